"""Records given to the decoder, the check and the authority policy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import cbor2

from a2al_trio.identity import NodeId
from a2al_trio.wire import InvalidRecord, SignedRecord, check_authority, check_record, decode_record
from tests.vectors.bodies import json_of_record, without_empty
from tests.vectors.canonical import canonical_record, is_canonical
from tests.vectors.deviations import NOT_CANONICAL, Deviation
from tests.vectors.harness import Case, Document, agree

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["verify"]:
        yield Case("verify", case["name"], partial(verify, case))
    for case in document["decode"]:
        yield Case("decode", case["name"], partial(decode, case))
    for case in document["authority"]:
        yield Case("authority", case["name"], partial(authority, case))


def read_and_check(data: bytes, now: int) -> SignedRecord:
    record = decode_record(data)
    check_record(record, now=now, tolerance=0)
    return record


def excuse(data: bytes) -> Deviation | None:
    """A record, or a payload or proof in it, that no canonical encoder writes."""
    if not is_canonical(data):
        return NOT_CANONICAL
    fields = cbor2.loads(data) or {}  # null reads as an empty map
    if not isinstance(fields, dict):
        return None
    known = {key: value for key, value in fields.items() if key in range(1, 10)}
    if known != canonical_record(fields):  # a missing, null or empty field the reference adds or drops
        return NOT_CANONICAL
    if known[2] in (0x01, 0x10) and not is_canonical(known[3] or b""):
        return NOT_CANONICAL
    if 9 in known and not is_canonical(known[9]):
        return NOT_CANONICAL
    return None


def verify(case: Json) -> tuple[Deviation, ...]:
    data = bytes.fromhex(case["record_cbor"])
    met: tuple[Deviation, ...] = ()
    for outcome in case["verify"]:
        action = partial(read_and_check, data, outcome["now"])
        met += agree(outcome, action, refusals=InvalidRecord, excuse=partial(excuse, data)).deviations
    return met


def decode(case: Json) -> tuple[Deviation, ...]:
    data = bytes.fromhex(case["record_cbor"])
    judged = agree(case["decode"], partial(decode_record, data), refusals=InvalidRecord, excuse=partial(excuse, data))
    if judged.accepted and judged.value is not None:
        assert without_empty(json_of_record(judged.value)) == without_empty(case["decode"]["record"])
        check = partial(check_record, judged.value, now=case["now"], tolerance=0)
        return judged.deviations + agree(case["verify"], check, refusals=InvalidRecord).deviations
    return judged.deviations


def authority(case: Json) -> tuple[Deviation, ...]:
    data = bytes.fromhex(case["record_cbor"])
    record = decode_record(data)
    met: tuple[Deviation, ...] = ()
    for outcome in case["authority"]:
        key = NodeId(bytes.fromhex(outcome["key"]))
        action = partial(check_authority, record, key, now=outcome["now"], tolerance=0)
        met += agree(outcome, action, refusals=InvalidRecord, excuse=partial(excuse, data)).deviations
    return met
