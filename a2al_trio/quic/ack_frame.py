"""ACK frames (RFC 9000 §19.3): next to STREAM the commonest, so ours have a layout that is quickly dealt with."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from a2al_trio.quic.errors import FrameDecodeError
from a2al_trio.quic.varint import decode_varints, encode_varint, encode_varint_row

if TYPE_CHECKING:
    from a2al_trio.quic.ranges import RangeSet

__all__ = ["AckFrame", "decode_ack", "encode_ack"]

SMALL = 1 << 30
ACK_LAYOUT = struct.Struct(">IHBI")
ECN_ACK_LAYOUT = struct.Struct(">IHBIIBI")
"""How we write ACKs of one range: integers of fixed sizes cost a fraction of the shortest ones (RFC 9000 §16)."""


@attrs.frozen
class AckFrame:
    """ACK: half-open ranges, ascending; `delay` is in units of the sender's ack_delay_exponent."""

    ranges: tuple[tuple[int, int], ...]
    delay: int
    ecn_counts: tuple[int, int, int] | None = None


def _usual_ack(data: bytes, position: int, frame_type: int) -> tuple[AckFrame, int] | None:
    """Read an ACK that is laid out like our own, None if it is not."""
    ect0 = ect1 = ce = 0x80000000
    try:
        if frame_type == 0x02:
            largest, delay, count, first = ACK_LAYOUT.unpack_from(data, position)
            end = position + 11
        else:
            largest, delay, count, first, ect0, ect1, ce = ECN_ACK_LAYOUT.unpack_from(data, position)
            end = position + 20
    except struct.error:
        return None
    sizes = largest & first & ect0 & ce
    if count or sizes >> 30 != 2 or (largest | first | ect0 | ce) >> 30 != 2 or delay >> 14 != 1:
        return None
    largest ^= 0x80000000
    low = largest - (first ^ 0x80000000)
    if low < 0:
        return None
    if frame_type == 0x02:
        return AckFrame(((low, largest + 1),), delay & 0x3FFF), end
    if ect1 >= 0x40:
        return None
    return AckFrame(((low, largest + 1),), delay & 0x3FFF, (ect0 ^ 0x80000000, ect1, ce ^ 0x80000000)), end


def decode_ack(data: bytes, position: int, frame_type: int) -> tuple[AckFrame, int]:
    """Return the ACK frame whose type ends before `position`, and the position behind it.

    Raises `FrameDecodeError` and `VarintError`.
    """
    return _usual_ack(data, position, frame_type) or _any_ack(data, position, frame_type)


def _any_ack(data: bytes, position: int, frame_type: int) -> tuple[AckFrame, int]:
    (largest, delay, count, first), position = decode_varints(data, position, 4)
    if count * 2 > len(data) - position:
        raise FrameDecodeError("ACK ranges are cut off", frame_type)
    low = largest - first
    ranges = [(low, largest + 1)]
    if count:
        row, position = decode_varints(data, position, 2 * count)
        for gap, size in zip(row[::2], row[1::2], strict=True):
            high = low - gap - 2
            low = high - size
            ranges.append((low, high + 1))
    if low < 0:
        raise FrameDecodeError("ACK of a negative packet number", frame_type)
    counts = None
    if frame_type == 0x03:
        (ect0, ect1, ce), position = decode_varints(data, position, 3)
        counts = (ect0, ect1, ce)
    ranges.reverse()
    return AckFrame(tuple(ranges), delay, counts), position


def encode_ack(
    received: RangeSet, delay: int, *, ecn_counts: tuple[int, int, int] | None = None, room: int = 1100
) -> bytes:
    """Return an ACK frame of at most `room` bytes for the highest ranges of `received`, which is not empty."""
    low, stop = received.last
    if len(received) == 1 and stop <= SMALL and delay < 0x4000:
        largest, size = stop - 1 | 0x80000000, stop - 1 - low | 0x80000000
        if ecn_counts is None:
            return b"\x02" + ACK_LAYOUT.pack(largest, delay | 0x4000, 0, size)
        ect0, ect1, ce = ecn_counts
        if ect1 < 0x40 and ect0 < SMALL and ce < SMALL:
            return b"\x03" + ECN_ACK_LAYOUT.pack(
                largest, delay | 0x4000, 0, size, ect0 | 0x80000000, ect1, ce | 0x80000000
            )
    head = encode_varint_row((stop - 1, delay))
    first = encode_varint(stop - 1 - low)
    tail = b"" if ecn_counts is None else encode_varint_row(ecn_counts)
    frame_type = b"\x02" if ecn_counts is None else b"\x03"
    ranges = reversed(received)
    next(ranges)
    room -= len(head) + len(first) + len(tail) + 4
    parts: list[bytes] = []
    for start, stop in ranges:
        part = encode_varint(low - stop - 1) + encode_varint(stop - 1 - start)
        room -= len(part)
        if room < 0:
            break
        parts.append(part)
        low = start
    return b"".join((frame_type, head, encode_varint(len(parts)), first, *parts, tail))
