"""The small flat CBOR maps of this layer: delegation proofs and the certificate extension (spec 01 §6.1).

Reading is strict: one map in canonical form (RFC 7049 §3.9: shortest heads, definite lengths, keys ascending and
so without duplicates), no tags, nothing after it. Keys that are not asked for are skipped, whatever they hold.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

__all__ = ["CborMapError", "Other", "Scalar", "decode_map", "encode_map"]



class Other(enum.Enum):
    """Stands for a well-formed value of a type that no field of this layer has."""

    VALUE = "other"


Scalar: TypeAlias = int | bytes | str | Other | None

_MAX_DEPTH = 32
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_NULL = 22


class CborMapError(ValueError):
    """The bytes are not one canonical CBOR map."""


def encode_map(fields: dict[int, int | bytes | str]) -> bytes:
    """Canonical encoding of a map with unsigned integer keys."""
    parts = [_head(_MAP, len(fields))]
    for key in sorted(fields):
        parts.append(_head(_UNSIGNED, key))
        value = fields[key]
        if isinstance(value, int):
            parts.append(_head(_UNSIGNED, value))
        else:
            raw = value.encode("utf-8") if isinstance(value, str) else value
            parts += (_head(_TEXT if isinstance(value, str) else _BYTES, len(raw)), raw)
    return b"".join(parts)


def decode_map(data: bytes) -> dict[int, Scalar]:
    """Values of the unsigned integer keys of one map; keys of other types are checked and left out.

    A value that is neither unsigned, bytes, text nor null comes back as `Other`. Raises `CborMapError` only.
    """
    reader = _Reader(data)
    major, count = reader.read_head()
    if major != _MAP:
        raise CborMapError("expected a map")
    fields: dict[int, Scalar] = {}
    previous = b""
    for _ in range(count):
        key, previous = reader.read_key(previous)
        value = reader.read_value(depth=2)
        if isinstance(key, int):
            fields[key] = value
    if reader.position != len(data):
        raise CborMapError("bytes after the map")
    return fields


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | code,)) + number.to_bytes(size, "big")
    raise ValueError("CBOR integers have at most 64 bits")


@attrs.define
class _Reader:
    data: bytes
    position: int = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise CborMapError("input ends early")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def read_head(self) -> tuple[int, int]:
        """Major type and argument of the next item, in the shortest form (floats may have any width)."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        if info > 27:
            raise CborMapError("indefinite or reserved length")
        argument = int.from_bytes(self.take(1 << info - 24), "big")
        smallest = 24 if info == 24 else 1 << (1 << info - 25) * 8
        if major == _SIMPLE:
            if info == 24 and argument < 32:
                raise CborMapError("simple value in two bytes")
            return major, -1
        if argument < smallest:
            raise CborMapError("length or number not in its shortest form")
        return major, argument

    def read_key(self, previous: bytes) -> tuple[int | None, bytes]:
        """An unsigned key, or None for a text or negative one, with its encoding to order the next one by."""
        start = self.position
        major, argument = self.read_head()
        if major == _TEXT:
            self.read_text(argument)
        elif major not in (_UNSIGNED, _NEGATIVE):
            raise CborMapError("map keys must be integers or text")
        encoded = self.data[start : self.position]
        if (len(previous), previous) >= (len(encoded), encoded):
            raise CborMapError("map keys out of order or twice")
        return (argument if major == _UNSIGNED else None), encoded

    def read_text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise CborMapError("text is not UTF-8") from None

    def read_value(self, depth: int) -> Scalar:
        major, argument = self.read_head()
        if major == _UNSIGNED:
            return argument
        if major == _BYTES:
            return self.take(argument)
        if major == _TEXT:
            return self.read_text(argument)
        if major == _SIMPLE and argument == _NULL:
            return None
        if major == _TAG:
            raise CborMapError("tags are not allowed")
        if major in (_ARRAY, _MAP):
            self.skip_items(argument * 2 if major == _MAP else argument, depth + 1)
        return Other.VALUE

    def skip_items(self, count: int, depth: int) -> None:
        # Each item takes a byte at least, so the length of the input bounds the loop.
        if depth > _MAX_DEPTH:
            raise CborMapError("nested too deeply")
        if count > len(self.data) - self.position:
            raise CborMapError("input ends early")
        for _ in range(count):
            self.read_value(depth)
