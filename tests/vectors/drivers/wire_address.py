"""Observed addresses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import WireDecodeError, decode_observed, encode_observed, is_public
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["format"]:
        yield Case("format", case["ip"], partial(format_, case))
    for case in document["parse"]:
        yield Case("parse", case["wire"], partial(parse, case))


def format_(case: Json) -> tuple[Deviation, ...]:
    wire = encode_observed(SocketAddress(case["ip"], case["port"]))
    assert wire.hex() == case["wire"]
    assert decode_observed(wire) == (case["parsed_host"], case["parsed_port"])
    assert case["ok"]
    assert case["parsed_ok"]
    assert is_public(case["ip"]) == case["is_public"]
    return ()


def parse(case: Json) -> tuple[Deviation, ...]:
    judged = agree(case, lambda: decode_observed(bytes.fromhex(case["wire"])), refusals=WireDecodeError)
    if judged.accepted:
        assert judged.value == (case["host"], case["port"])
    return judged.deviations
