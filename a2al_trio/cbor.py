"""Canonical CBOR: a strict bounded decoder and the matching encoder (spec 02 §2, RFC 7049 §3.9).

The decoder takes nothing but the canonical form: shortest heads, definite lengths, integers and texts as map keys,
sorted length-first and without duplicates, no tags, shortest floats, valid UTF-8, no byte left over. Two values are
then equal exactly if their bytes are, so a signature over received bytes is a signature over what they mean, and
nothing needs encoding again.

Depth is bounded by `MAX_DEPTH`, maps by `MAX_PAIRS`, and every count by the bytes that are there, so time and memory
are linear in the input. The decoder runs once per datagram and element, hence its one long function and plain positions
in place of a reader object.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs

from a2al_trio.errors import DecodeError, LocalProtocolError

__all__ = [
    "MAX_DEPTH",
    "MAX_PAIRS",
    "CborDecodeError",
    "CborEncodeError",
    "CborKey",
    "CborMap",
    "CborSimple",
    "CborValue",
    "Encodable",
    "decode",
    "encode",
    "head",
    "read_item",
]

MAX_DEPTH = 32  # levels, the outermost item being the first (spec 02 §3)
MAX_PAIRS = 512  # chosen integer keys collide in a dict, at quadratic cost; honest maps have a few dozen pairs

_FLOAT16 = struct.Struct(">e")
_FLOAT32 = struct.Struct(">f")
_FLOAT64 = struct.Struct(">d")
_NAN = b"\xf9\x7e\x00"


class CborDecodeError(DecodeError):
    """The bytes are not one canonical CBOR item within our bounds."""


class CborEncodeError(LocalProtocolError):
    """A value has no canonical CBOR form here: its type is not encodable, or an integer has more than 64 bits."""


@attrs.frozen
class CborSimple:
    """A simple value without meaning here (RFC 8949 §3.3); only ever met under keys we do not know."""

    value: int


CborKey: TypeAlias = int | str
CborValue: TypeAlias = (
    bool | int | float | str | bytes | CborSimple | list["CborValue"] | Mapping[CborKey, "CborValue"] | None
)
EncodableMap: TypeAlias = Mapping[CborKey, "Encodable"] | Mapping[int, "Encodable"] | Mapping[str, "Encodable"]
Encodable: TypeAlias = bool | int | float | str | bytes | CborSimple | Sequence["Encodable"] | EncodableMap | None


class CborMap(dict[CborKey, CborValue]):
    """A decoded map that also knows which bytes of the input it stood in: `data[start:end]`."""

    __slots__ = ("end", "start")
    start: int
    end: int


def decode(data: bytes) -> CborValue:
    """Decode the one item that `data` must be. Raises CborDecodeError for anything else."""
    value, end = read_item(data, 0, 1)
    if end != len(data):
        raise CborDecodeError(f"{len(data) - end} bytes after the item")
    return value


def read_item(data: bytes, at: int, depth: int) -> tuple[CborValue, int]:
    """Decode the item that starts at `at`, itself on level `depth`; return it and the position after it."""
    try:
        return _read(data, at, depth)
    except (IndexError, struct.error):
        raise CborDecodeError("the input ends inside an item") from None
    except UnicodeDecodeError:
        raise CborDecodeError("text that is not UTF-8") from None


def _read(data: bytes, at: int, depth: int) -> tuple[CborValue, int]:
    first = data[at]
    at += 1
    if first < 0x18:
        return first, at
    major = first >> 5
    number = first & 0x1F
    if number >= 0x18 and major != 7:
        if number == 0x18:  # one byte, the usual case
            number = data[at]
            at += 1
            if number < 0x18:
                raise CborDecodeError("a head that could be shorter")
        else:
            number, at = _read_argument(data, at, number)
    if major == 2:
        end = at + number
        value = data[at:end]
        if len(value) != number:
            raise IndexError
        return value, end
    if major == 5:
        return _read_map(data, at, number, depth)
    if major == 3:
        end = at + number
        if end > len(data):
            raise IndexError
        return str(data[at:end], "utf-8"), end
    if major == 0:
        return number, at
    if major == 4:
        if depth > MAX_DEPTH:
            raise CborDecodeError(f"nested deeper than {MAX_DEPTH} levels")
        if number > len(data) - at:
            raise IndexError
        items: list[CborValue] = []
        for _ in range(number):
            item, at = _read(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 1:
        return -1 - number, at
    if major == 6:
        raise CborDecodeError("a tag")
    return _read_simple(data, at, number)


def _read_argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """The argument after a head byte whose low five bits are `info` > 24 (RFC 8949 §3)."""
    if info > 0x1B:
        raise CborDecodeError("an indefinite length" if info == 0x1F else "a reserved head")
    width = 1 << (info - 0x18)
    end = at + width
    if end > len(data):
        raise IndexError
    number = int.from_bytes(data[at:end], "big")
    if number >> (width * 4) == 0:
        raise CborDecodeError("a head that could be shorter")
    return number, end


def _read_map(data: bytes, at: int, count: int, depth: int) -> tuple[CborMap, int]:
    if depth > MAX_DEPTH:
        raise CborDecodeError(f"nested deeper than {MAX_DEPTH} levels")
    if count * 2 > len(data) - at:
        raise IndexError
    if count > MAX_PAIRS:
        raise CborDecodeError(f"a map of more than {MAX_PAIRS} pairs")
    pairs = CborMap()
    pairs.start = at - 1 if count < 0x18 else at - len(head(0xA0, count))
    depth += 1
    previous = b""
    small = -1  # the last key while all of them are below 24, where order is plain order
    key: CborKey
    for _ in range(count):
        key = data[at]
        if small < key < 0x18:
            small = key
            start = at
            at += 1
        else:
            start = at
            item, at = _read(data, at, depth)
            if type(item) is not int and type(item) is not str:
                raise CborDecodeError("a map key that is neither an integer nor a text")
            key = item
            if small >= 0:
                previous = bytes((small,))
            raw = data[start:at]
            if (len(raw), raw) <= (len(previous), previous):
                raise CborDecodeError("map keys that are doubled or not sorted")
            previous = raw
            small = 0x18
        # Small numbers and short byte strings are most of what peers send; they are read without a call.
        first = data[at]
        if first < 0x18:
            pairs[key] = first
            at += 1
        elif first == 0x58:
            number = data[at + 1]
            start = at + 2
            at = start + number
            value = data[start:at]
            if len(value) != number:
                raise IndexError
            if number < 0x18:
                raise CborDecodeError("a head that could be shorter")
            pairs[key] = value
        elif 0x40 <= first < 0x58:
            start = at + 1
            at += first - 0x3F
            value = data[start:at]
            if len(value) != first - 0x40:
                raise IndexError
            pairs[key] = value
        else:
            pairs[key], at = _read(data, at, depth)
    pairs.end = at
    return pairs, at


def _read_simple(data: bytes, at: int, info: int) -> tuple[CborValue, int]:
    """Major type 7: booleans, null, floats and simple values."""
    if info == 20:
        return False, at
    if info == 21:
        return True, at
    if info == 22:
        return None, at
    if info < 24:
        return CborSimple(info), at
    if info == 24:
        if data[at] < 32:
            raise CborDecodeError("a simple value that is written wrongly")
        return CborSimple(data[at]), at + 1
    if info > 27:
        raise CborDecodeError("a break or a reserved head")
    end = at + (1 << (info - 24))
    encoded = data[at - 1 : end]
    layout = (_FLOAT16, _FLOAT32, _FLOAT64)[info - 25]
    (number,) = layout.unpack(encoded[1:])
    if _encode_float(number) != encoded:
        raise CborDecodeError("a float that could be shorter")
    return float(number), end


def head(major: int, number: int) -> bytes:
    """The shortest head: `major` is the major type already in the top three bits, 0x00 to 0xA0."""
    if number < 0x18:
        return bytes((major | number,))
    if number < 0x100:
        return bytes((major | 0x18, number))
    if number < 0x10000:
        return bytes((major | 0x19,)) + number.to_bytes(2, "big")
    if number < 0x1_0000_0000:
        return bytes((major | 0x1A,)) + number.to_bytes(4, "big")
    if number < 0x1_0000_0000_0000_0000:
        return bytes((major | 0x1B,)) + number.to_bytes(8, "big")
    raise CborEncodeError(f"{number} has more than 64 bits")


def encode(value: Encodable) -> bytes:
    """The canonical form of a value. Raises CborEncodeError if it has none."""
    parts: list[bytes] = []
    _write(value, parts, 1)
    return b"".join(parts)


def _write(value: Encodable, parts: list[bytes], depth: int) -> None:
    if value is None:
        parts.append(b"\xf6")
    elif isinstance(value, bool):
        parts.append(b"\xf5" if value else b"\xf4")
    elif isinstance(value, int):
        parts.append(head(0x00, value) if value >= 0 else head(0x20, -1 - value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts += (head(0x40, len(value)), bytes(value))
    elif isinstance(value, str):
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise CborEncodeError("text with a lone surrogate has no UTF-8 form") from None
        parts += (head(0x60, len(text)), text)
    elif isinstance(value, float):
        parts.append(_encode_float(value))
    elif isinstance(value, CborSimple):
        parts.append(bytes((0xE0 | value.value,)) if value.value < 24 else bytes((0xF8, value.value)))
    elif isinstance(value, (Mapping, list, tuple)):
        if depth > MAX_DEPTH:
            raise CborEncodeError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            _write_map(value, parts, depth)
        else:
            parts.append(head(0x80, len(value)))
            for item in value:
                _write(item, parts, depth + 1)
    else:
        raise CborEncodeError(f"{type(value).__name__} has no CBOR form here")


def _write_map(value: EncodableMap, parts: list[bytes], depth: int) -> None:
    if len(value) > MAX_PAIRS:
        raise CborEncodeError(f"a map has at most {MAX_PAIRS} pairs, not {len(value)}")
    parts.append(head(0xA0, len(value)))
    keyed: list[tuple[int, bytes, Encodable]] = []
    for key, item in value.items():
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise CborEncodeError(f"{type(key).__name__} as a map key has no CBOR form here")
        raw = encode(key)
        keyed.append((len(raw), raw, item))
    keyed.sort(key=lambda pair: pair[:2])
    for _, raw, item in keyed:
        parts.append(raw)
        _write(item, parts, depth + 1)


def _encode_float(number: float) -> bytes:
    """The shortest of the three widths that keeps the value (spec 02 §2 rule 4)."""
    if math.isnan(number):
        return _NAN
    for lead, layout in ((b"\xf9", _FLOAT16), (b"\xfa", _FLOAT32)):
        try:
            packed = layout.pack(number)
        except OverflowError:
            continue
        if layout.unpack(packed)[0] == number:
            return lead + packed
    return b"\xfb" + _FLOAT64.pack(number)
