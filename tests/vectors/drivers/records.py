"""Records as the reference signs them, values it refuses to sign, and the rules around them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from a2al_trio.identity import Identity, NodeId, SigningKey
from a2al_trio.wire import (
    EndpointPayload,
    SignedRecord,
    WireEncodeError,
    check_authority,
    check_record,
    decode_payload,
    decode_record,
    is_newer,
    record_category,
    sign_record,
)
from tests.vectors.bodies import Careless, json_of_record, without_empty
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree, unhex

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["endpoint_payload"]:
        yield Case("endpoint_payload", case["name"], partial(endpoint_payload, case))
    for case in document["sign"]:
        yield Case("sign", case["name"], partial(sign, case))
    for case in document["sign_reject"]:
        yield Case("sign_reject", case["name"], partial(sign_reject, case))
    for case in document["category"]:
        yield Case("category", hex(case["rec_type"]), partial(category, case))
    for case in document["newer"]:
        yield Case("newer", str(case), partial(newer, case))


def texts(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def endpoint_payload(case: Json) -> tuple[Deviation, ...]:
    fields = case["payload"]
    payload = EndpointPayload(
        texts(fields["endpoints"]),
        fields["nat_type"],
        fields["signal"],
        tuple(fields["turns"] or ()),
        tuple(fields["signals"] or ()),
    )
    assert payload.encode().hex() == case["payload_cbor"]
    assert EndpointPayload.decode(payload.encode()) == payload
    return ()


def publisher(case: Json, fields: Json) -> Careless:
    return Careless(SigningKey(bytes.fromhex(case["seed"])), fields["address"], fields["delegation"])


def sign(case: Json) -> tuple[Deviation, ...]:
    fields, encoded = case["record"], bytes.fromhex(case["record_cbor"])
    record = sign_record(
        publisher(case, fields),
        fields["rec_type"],
        unhex(fields["payload"]),
        sequence=fields["seq"],
        timestamp=fields["timestamp"],
        ttl=fields["ttl"],
    )
    assert record.encoded == encoded
    assert record == decode_record(encoded)
    assert record.signed_bytes.hex() == case["sign_preimage"]
    assert record.category.value == case["category"]
    assert without_empty(json_of_record(record)) == without_empty(fields)
    if case.get("endpoint_record"):
        shown = decode_payload(EndpointPayload, record.record_type, record.payload)
        expected = case["endpoint_record"]
        assert shown.endpoints == texts(expected["endpoints"])
        assert (shown.nat_type, shown.signal) == (expected["nat_type"], expected["signal"])
        assert (shown.turns, shown.signals) == (tuple(expected["turns"] or ()), tuple(expected["signals"] or ()))
    return tuple(verify(case, record)) + tuple(authority(case, record))


def verify(case: Json, record: SignedRecord) -> Iterator[Deviation]:
    for outcome in case["verify"]:
        now = outcome["now"]
        yield from agree(outcome, partial(check_record, record, now=now, tolerance=0)).deviations


def authority(case: Json, record: SignedRecord) -> Iterator[Deviation]:
    for outcome in case["authority"]:
        key, now = NodeId(bytes.fromhex(outcome["key"])), outcome["now"]
        yield from agree(outcome, partial(check_authority, record, key, now=now, tolerance=0)).deviations


def sign_reject(case: Json) -> tuple[Deviation, ...]:
    signer = publisher(case, case)
    # The reference signs endpoint records by an operation of their own; here it is the payload that must be one.
    payload = b"\xa0" if case["operation"].startswith("sign_endpoint") else b"anything"
    action = partial(sign_record, signer, case["rec_type"], payload, sequence=1, timestamp=1, ttl=case["ttl"])
    return agree(case, action, refusals=WireEncodeError).deviations


def category(case: Json) -> tuple[Deviation, ...]:
    assert record_category(case["rec_type"]).value == case["category"]
    return ()


def newer(case: Json) -> tuple[Deviation, ...]:
    signer = Identity.from_seed(bytes(32))
    a, b = (
        sign_record(signer, 1, b"\xa0", sequence=case[f"{side}_seq"], timestamp=case[f"{side}_timestamp"], ttl=1)
        for side in "ab"
    )
    assert is_newer(a, b) == case["a_is_newer"]
    return ()
