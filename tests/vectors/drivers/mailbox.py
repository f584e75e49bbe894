"""Mail: keys, sealing with given randomness, opening, and the size limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cbor2

from a2al_trio.identity import Address, Identity, SigningKey
from a2al_trio.wire import (
    InvalidRecord,
    PayloadTooLarge,
    check_record,
    decode_record,
    mailbox_recipient,
    open_mailbox,
    seal_mailbox,
    sign_record,
)
from a2al_trio.wire.mailbox import x25519_private_key, x25519_public_key
from tests.vectors.bodies import Careless
from tests.vectors.canonical import is_canonical
from tests.vectors.deviations import NOT_CANONICAL, Deviation
from tests.vectors.harness import Case, Document, agree, unhex

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["key_conversion"]:
        yield Case("key_conversion", case["seed"], partial(key_conversion, case))
    for case in document["seal"]:
        yield Case("seal", case["body"], partial(seal, case))
    for case in document["open"]:
        yield Case("open", case["name"], partial(open_, case))
    for case in document["size_limit"]:
        yield Case("size_limit", str(case["body_length"]), partial(size_limit, case))


def key_conversion(case: Json) -> tuple[Deviation, ...]:
    seed = bytes.fromhex(case["seed"])
    assert SigningKey(seed).public_key.hex() == case["ed25519_public_key"]
    assert x25519_private_key(seed).hex() == case["x25519_private_key"]
    assert x25519_public_key(SigningKey(seed).public_key).hex() == case["x25519_public_key"]
    return ()


def given(*draws: bytes) -> Callable[[int], bytes]:
    """Entropy that hands out the given draws, in order and in the size asked for."""
    left = list(draws)

    def draw(count: int) -> bytes:
        drawn = left.pop(0)
        assert len(drawn) == count
        return drawn

    return draw


def seal(case: Json) -> tuple[Deviation, ...]:
    sender, recipient = (Address(bytes.fromhex(case[f"{side}_address"])) for side in ("sender", "recipient"))
    key = SigningKey(bytes.fromhex(case["recipient_seed"]))
    body = unhex(case["body"])
    entropy = given(bytes.fromhex(case["ephemeral_private_key"]), bytes.fromhex(case["nonce"]))
    payload = seal_mailbox(sender, recipient, key.public_key, case["msg_type"], body, entropy=entropy)
    assert key.public_key.hex() == case["recipient_public_key"]
    assert x25519_public_key(key.public_key).hex() == case["recipient_x25519_public_key"]
    assert payload.hex() == case["payload_cbor"]

    carrier = Careless(SigningKey(bytes(32)), case["sender_address"], "00")
    record = sign_record(carrier, 0x80, payload, sequence=7, timestamp=1, ttl=1)
    opened = open_mailbox(record, recipient, key)
    assert (opened.sender, opened.message_type, opened.body) == (sender, case["msg_type"], body or b"")
    assert mailbox_recipient(record) == recipient
    return ()


def open_(case: Json) -> tuple[Deviation, ...]:
    record = decode_record(bytes.fromhex(case["record_cbor"]))
    check = partial(check_record, record, now=case["record_verify_now"], tolerance=0)
    met = agree(case["record_verify"], check, refusals=InvalidRecord).deviations
    recipient, key = (
        Address(bytes.fromhex(case["recipient_address"])),
        SigningKey(bytes.fromhex(case["recipient_seed"])),
    )
    judged = agree(
        case["open"],
        lambda: open_mailbox(record, recipient, key),
        refusals=InvalidRecord,
        excuse=lambda: None if is_canonical(record.payload) else NOT_CANONICAL,
    )
    if judged.accepted and judged.value is not None:
        expected, message = case["open"], judged.value
        assert message.sender.hex() == expected["sender_address"]
        assert message.sender_key.hex() == expected["sender_public_key"]
        assert message.message_type == expected["msg_type"]
        assert message.body.hex() == (expected["body"] or "")
        assert message.sequence == expected["seq"]
    return met + judged.deviations


def size_limit(case: Json) -> tuple[Deviation, ...]:
    me = Identity.from_seed(bytes(32))
    body = bytes(case["body_length"])
    action = partial(seal_mailbox, me.address, me.address, me.public_key, case["msg_type"], body)
    judged = agree(case, lambda: action(entropy=lambda count: bytes(range(count))), refusals=PayloadTooLarge)
    if judged.accepted and judged.value is not None:
        assert len(judged.value) == case["payload_length"]
        assert cbor2.loads(judged.value)[1] == me.address
    return judged.deviations
