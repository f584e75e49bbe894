"""What makes bytes canonical, judged independently of the package: the grounds on which deviations are granted."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import cbor2

__all__ = ["canonical_message", "canonical_record", "has_unknown_keys", "is_canonical", "item_end", "map_spans"]

HEADER = ((1, 2, 3, 4), ())
OUTER = ((1, 2, 3, 4), ())
NODE = ((1, 2, 3, 4), ())
RECORD = ((1, 2, 3, 4, 5, 6, 7, 8), (9,))
BODIES: Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]] = {  # required and optional keys of v0.2.0
    1: ((1,), ()),
    2: ((1, 2), ()),
    3: ((1,), ()),
    4: ((1, 2), ()),
    5: ((1,), (2,)),
    6: ((1, 3), (2, 4)),
    7: ((1,), (2,)),
    8: ((1,), (2, 3)),
    9: ((1, 2), ()),
    10: ((1,), ()),
}


class NotCanonical(Exception):
    """The walker met something no canonical encoder writes."""


def is_canonical(data: bytes) -> bool:
    """Whether `data` is exactly one item in the form of spec 02 §2."""
    try:
        return item_end(data, 0) == len(data)
    except (NotCanonical, IndexError, UnicodeDecodeError, RecursionError, struct.error):
        return False


def item_end(data: bytes, at: int, level: int = 1) -> int:
    """Where the canonical item at `at` ends; raises for anything else."""
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return _simple_end(data, at, info)
    if major == 6 or info > 27:
        raise NotCanonical
    number = info
    if info > 23:
        width = 1 << (info - 24)
        number = int.from_bytes(data[at : at + width], "big")
        at += width
        if number < (24, 2**8, 2**16, 2**32)[info - 24]:
            raise NotCanonical
    if major in (2, 3):
        content = data[at : at + number]
        if len(content) != number:
            raise IndexError
        if major == 3:
            content.decode()
        return at + number
    if major in (4, 5) and level > 32:
        raise NotCanonical
    if major == 4:
        for _ in range(number):
            at = item_end(data, at, level + 1)
    if major == 5:
        previous = b""
        for _ in range(number):
            if data[at] >> 5 not in (0, 1, 2, 3):
                raise NotCanonical
            end = item_end(data, at, level + 1)
            key = data[at:end]
            if (len(key), key) <= (len(previous), previous):
                raise NotCanonical
            previous = key
            at = item_end(data, end, level + 1)
    return at


def _simple_end(data: bytes, at: int, info: int) -> int:
    if info < 24:
        return at
    if info == 24:
        if data[at] < 32:
            raise NotCanonical
        return at + 1
    if info > 27:
        raise NotCanonical
    end = at + (1 << (info - 24))
    (number,) = struct.unpack({25: ">e", 26: ">f", 27: ">d"}[info], data[at:end])
    shortest = b"\xf9\x7e\x00" if math.isnan(number) else cbor2.dumps(number, canonical=True)
    if data[at - 1 : end] != shortest:
        raise NotCanonical
    return end


def map_spans(data: bytes) -> dict[int, bytes]:
    """The encoded values under the integer keys of a canonical map."""
    count, at = data[0] & 31, 1
    spans: dict[int, bytes] = {}
    for _ in range(count):
        value_at = item_end(data, at)
        end = item_end(data, value_at)
        if data[at] < 24:
            spans[data[at]] = data[value_at:end]
        at = end
    return spans


def _known(fields: Any, required: tuple[int, ...], optional: tuple[int, ...]) -> dict[int, Any]:
    """What v0.2.0 would encode again: known keys, required ones always, optional ones unless empty."""
    fields = _numbered(fields)
    kept = {key: _plain(fields.get(key)) for key in required}
    return kept | {key: _plain(fields[key]) for key in optional if _plain(fields.get(key))}


def _numbered(fields: Any) -> dict[Any, Any]:
    """The text key "1" counts as 1 unless that is there itself, as v0.2.0 reads it."""
    texts = {int(key): item for key, item in fields.items() if isinstance(key, str) and key.isdecimal()}
    return texts | {key: item for key, item in fields.items() if not (isinstance(key, str) and key.isdecimal())}


def _plain(value: Any) -> Any:
    """Undefined counts as null and an array of numbers as a byte string, as v0.2.0 reads them."""
    if value is cbor2.undefined:
        return None
    if isinstance(value, list) and value and all(type(item) is int and 0 <= item <= 255 for item in value):
        return bytes(value)
    return value


def canonical_record(fields: Any) -> dict[int, Any]:
    """The fields of a record v0.2.0 knows."""
    return _known(fields, *RECORD)


def canonical_message(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The four fields of a well-formed message as v0.2.0 would encode them again after decoding."""
    outer = _known(cbor2.loads(data), *OUTER)
    header, body = _known(outer[1], *HEADER), outer[2]
    header[2] = header[2] or 0
    kind = header[3]
    body = _known(body, *BODIES[kind])
    if kind in (4, 6) and body[1]:
        body[1] = [_known(node, *NODE) for node in body[1]]
    if kind == 7 and body[1]:
        body[1] = canonical_record(body[1])
    if kind == 6 and 2 in body:
        body[2] = canonical_record(body[2])
    if kind == 6 and 4 in body:
        body[4] = [canonical_record(record) for record in body[4]]
    if kind == 8:
        body[1] = bool(body[1])
    header_bytes, body_bytes = (cbor2.dumps(each, canonical=True) for each in (header, body))
    return header_bytes, body_bytes, cbor2.dumps(outer[3]), cbor2.dumps(outer[4])


def has_unknown_keys(data: bytes) -> bool:
    """Whether the header, the body or a node or record in it has keys v0.2.0 does not know."""
    outer = _numbered(cbor2.loads(data))
    header, body = _numbered(outer[1]), _numbered(outer[2])
    required, optional = BODIES[header[3]]
    if not set(header) <= {1, 2, 3, 4} or not set(body) <= {*required, *optional}:
        return True
    nested = [item for value in body.values() for item in (value if isinstance(value, list) else [value])]
    return any(isinstance(item, dict) and not set(item) <= set(range(1, 10)) for item in nested)
