"""The buffer packets are built, sealed and masked in (RFC 9001 §5.3, §5.4).

One buffer serves all connections of an endpoint. A run of 1-RTT packets of one size is written back to back as one
GSO call wants it: headers by one `pack_into` each, sealed in place, and masked all at once.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from a2al_trio.quic.packet_crypto import SAMPLE_SIZE, TAG_SIZE

if TYPE_CHECKING:
    from a2al_trio.quic.packet_crypto import PacketKeys

__all__ = ["BUFFER_SIZE", "MAX_SEGMENTS", "PacketBuffer", "mask_long_header", "repeat_byte", "stream_packet_struct"]

BUFFER_SIZE = 65_507
"""Largest UDP payload, and so the largest run one GSO call takes."""

MAX_SEGMENTS = 60
"""Linux takes 64 segments at most in one call."""

MAX_LAYOUTS = 16

_Slot = tuple[memoryview, memoryview, memoryview]


@functools.lru_cache(maxsize=1024)
def repeat_byte(value: int, count: int) -> int:
    """Return `value` repeated `count` times as one big-endian integer."""
    return int.from_bytes(bytes((value,)) * count, "big")


@functools.lru_cache(maxsize=256)
def stream_packet_struct(
    cid_size: int, number_size: int, id_size: int, offset_size: int, data_size: int
) -> struct.Struct:
    """Layout of a 1-RTT packet that one STREAM frame fills: header, frame type, stream ID, offset, data."""
    number = "H" if number_size == 2 else "I"
    offset = "I" if offset_size == 4 else "Q"
    return struct.Struct(f">B{cid_size}s{number}B{id_size}s{offset}{data_size}s")


class PacketBuffer:
    """A reused buffer with views prepared for sealing in place."""

    __slots__ = ("_layouts", "data", "view")

    def __init__(self) -> None:
        self.data = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.data)
        self._layouts: dict[tuple[int, int], list[_Slot]] = {}

    def slots(self, size: int, header_size: int) -> list[_Slot]:
        """Return plaintext, header and output views of every packet of `size` in the buffer."""
        layout = self._layouts.get((size, header_size))
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            view = self.view
            layout = []
            for start in range(0, min(BUFFER_SIZE, MAX_SEGMENTS * size) - size + 1, size):
                body, end = start + header_size, start + size
                layout.append((view[body : end - TAG_SIZE], view[start:body], view[body:end]))
            self._layouts[(size, header_size)] = layout
        return layout

    def write_packet(self, at: int, keys: PacketKeys, number: int, header: bytes, payload: bytes) -> int:
        """Write and seal one packet whose header ends with its number; returns its end. Masking comes later."""
        begin = at + len(header)
        middle = begin + len(payload)
        end = middle + TAG_SIZE
        self.data[at:middle] = header + payload
        view = self.view
        keys.encrypt_into((keys.iv ^ number).to_bytes(12, "big"), view[begin:middle], header, view[begin:end])
        return end

    def mask_short_headers(self, keys: PacketKeys, end: int, size: int, *, number_at: int, number_size: int) -> None:
        """Protect the headers of all packets up to `end`, `size` apart, whose numbers are at `number_at` in each."""
        data = self.data
        sample = number_at + 4
        if end <= size:
            mask = keys.masks(data[sample : sample + SAMPLE_SIZE])
            data[0] ^= mask[0] & 0x1F
            for index in range(number_size):
                data[number_at + index] ^= mask[1 + index]
            return
        masks = keys.masks(b"".join([data[at : at + SAMPLE_SIZE] for at in range(sample, end, size)]))
        count = len(masks) // SAMPLE_SIZE
        bits = int.from_bytes(masks[::SAMPLE_SIZE], "big") & repeat_byte(0x1F, count)
        data[0:end:size] = (int.from_bytes(data[0:end:size], "big") ^ bits).to_bytes(count, "big")
        for index in range(number_size):
            column = slice(number_at + index, end, size)
            bits = int.from_bytes(masks[1 + index :: SAMPLE_SIZE], "big")
            data[column] = (int.from_bytes(data[column], "big") ^ bits).to_bytes(count, "big")


def mask_long_header(packet: bytearray, keys: PacketKeys, start: int, number_at: int) -> None:
    """Protect the header of a long header packet that begins at `start`; its number has four bytes."""
    mask = keys.masks(bytes(packet[number_at + 4 : number_at + 4 + SAMPLE_SIZE]))
    packet[start] ^= mask[0] & 0x0F
    for index in range(4):
        packet[number_at + index] ^= mask[1 + index]
