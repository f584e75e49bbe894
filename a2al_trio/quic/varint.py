"""Variable-length integers (RFC 9000 §16): two bits of length, then 6, 14, 30 or 62 bits of value."""

from __future__ import annotations

from collections.abc import Iterable

from a2al_trio.errors import DecodeError

__all__ = [
    "MAX_VARINT",
    "VarintError",
    "decode_varint",
    "decode_varints",
    "encode_varint",
    "encode_varint_row",
    "varint_size",
]

MAX_VARINT = (1 << 62) - 1


class VarintError(DecodeError):
    """The bytes end inside a variable-length integer."""


def decode_varint(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int]:
    """Return the integer at `offset` and the offset behind it; raises `VarintError` when `data` is too short.

    Encodings longer than needed are accepted, as RFC 9000 §16 asks.
    """
    try:
        first = data[offset]
        if first < 0x40:
            return first, offset + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | data[offset + 1], offset + 2
    except IndexError:
        raise VarintError("variable-length integer is cut off") from None
    end = offset + (4 if first < 0xC0 else 8)
    if end > len(data):
        raise VarintError("variable-length integer is cut off")
    value = int.from_bytes(data[offset:end], "big")
    return value & (0x3FFFFFFF if first < 0xC0 else MAX_VARINT), end


def decode_varints(data: bytes, offset: int, count: int) -> tuple[list[int], int]:
    """Return the `count` integers from `offset` on and the offset behind them, as `decode_varint` does one."""
    # In place, for ACK frames have rows of them: with a call for each this takes half as long again.
    values = []
    try:
        for _ in range(count):
            value = data[offset]
            if value < 0x40:
                offset += 1
            elif value < 0x80:
                value = (value & 0x3F) << 8 | data[offset + 1]
                offset += 2
            else:
                value, offset = decode_varint(data, offset)
            values.append(value)
    except IndexError:
        raise VarintError("variable-length integer is cut off") from None
    return values, offset


def encode_varint(value: int) -> bytes:
    """Return the shortest encoding of `value`; `ValueError` outside 0..2^62-1."""
    if value < 0x40:
        if value < 0:
            raise ValueError("a variable-length integer cannot be negative")
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    if value <= MAX_VARINT:
        return (value | 0xC000000000000000).to_bytes(8, "big")
    raise ValueError("a variable-length integer has at most 62 bits")


def encode_varint_row(values: Iterable[int]) -> bytes:
    """Return the shortest encodings of all `values` in a row; `ValueError` outside 0..2^62-1."""
    row = bytearray()
    for value in values:
        if 0 <= value < 0x40:
            row.append(value)
        elif 0 <= value < 0x4000:
            row += (value | 0x4000).to_bytes(2, "big")
        else:
            row += encode_varint(value)
    return bytes(row)


def varint_size(value: int) -> int:
    """Return how many bytes the shortest encoding of `value` takes."""
    if value < 0x40:
        return 1
    if value < 0x4000:
        return 2
    if value < 0x40000000:
        return 4
    if value <= MAX_VARINT:
        return 8
    raise ValueError("a variable-length integer has at most 62 bits")
