"""Datagrams given to the verifier; also drives dht_verify_encoding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from a2al_trio.wire import InvalidMessage, decode_message, parse_message
from tests.vectors.bodies import json_of, without_empty
from tests.vectors.canonical import canonical_message, has_unknown_keys, is_canonical, map_spans
from tests.vectors.deviations import EXTRA_SIGNED_KEYS, NOT_CANONICAL, UNSIGNED_EXTRA_KEYS, Deviation
from tests.vectors.harness import Case, Document, agree


def cases(document: Document) -> Iterator[Case]:
    for case in document["verify"]:
        yield Case("verify", f"{case['group']}/{case['name']}", partial(verify, case))


def verify(case: dict[str, Any]) -> tuple[Deviation, ...]:
    data = bytes.fromhex(case["message"])
    judged = agree(case, lambda: decode_message(data), refusals=InvalidMessage, excuse=lambda: excuse(data))
    if judged.accepted and judged.value is not None:
        message, decoded = judged.value, case["decoded"]
        parsed = parse_message(data)
        assert (parsed.version, parsed.features) == (decoded["header"]["version"], decoded["header"]["features"])
        assert message.message_type == decoded["header"]["msg_type"]
        assert message.transaction_id.hex() == decoded["header"]["tx_id"]
        assert json_of(message.body) == without_empty(decoded["body"])
        assert message.sender_key.hex() == decoded["sender_public_key"]
        assert message.sender.hex() == decoded["sender_address"]
        assert message.body.encode() == canonical_message(data)[1]
    return judged.deviations


def excuse(data: bytes) -> Deviation | None:
    """Why we may differ: from the bytes alone."""
    if not is_canonical(data):
        return NOT_CANONICAL
    spans, encoded_again = map_spans(data), canonical_message(data)
    received = (spans[1], spans[2], spans[3], spans[4])
    if received == encoded_again:
        return None
    if is_signed(*received):
        return EXTRA_SIGNED_KEYS
    if is_signed(*encoded_again):
        # The reference drops or adds something before it checks: keys it does not know, or fields that were missing,
        # or written although empty, or in another type.
        return UNSIGNED_EXTRA_KEYS if has_unknown_keys(data) else NOT_CANONICAL
    return None


def is_signed(header: bytes, body: bytes, public_key: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key[2:]).verify(signature[2:], b"a2al-msg\0" + header + body)
    except (InvalidSignature, ValueError):
        return False
    return True
