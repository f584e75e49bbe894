"""TURN channel data (RFC 8656 §12.4) and the framing of TURN over TCP and TLS (§3.1, §12.5). Pure."""

from __future__ import annotations

from typing import Final

from a2al_trio.ice.errors import StunDecodeError

__all__ = [
    "FIRST_CHANNEL",
    "LAST_CHANNEL",
    "StreamReader",
    "decode_channel_data",
    "encode_channel_data",
    "is_channel_data",
]

FIRST_CHANNEL: Final = 0x4000
LAST_CHANNEL: Final = 0x4FFF


def is_channel_data(data: bytes | bytearray | memoryview) -> bool:
    """Whether a message from a TURN server is channel data; from others such bytes may be QUIC."""
    return len(data) >= 4 and 0x40 <= data[0] <= 0x4F


def encode_channel_data(channel: int, data: bytes | memoryview, *, pad: bool) -> bytes:
    """Return one channel data message; over streams it is padded to a multiple of four (RFC 8656 §12.5)."""
    head = channel.to_bytes(2, "big") + len(data).to_bytes(2, "big")
    return b"".join((head, data, bytes(-len(data) % 4 if pad else 0)))


def decode_channel_data(data: bytes | bytearray | memoryview) -> tuple[int, memoryview]:
    """Return channel and payload; raises `StunDecodeError` if the payload is cut short."""
    view = memoryview(data)
    size = int.from_bytes(view[2:4], "big")
    if len(view) < 4 or len(view) < 4 + size:
        raise StunDecodeError("channel data is cut short")
    return int.from_bytes(view[:2], "big"), view[4 : 4 + size]


class StreamReader:
    """Cuts a byte stream from a TURN server into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """Add bytes and return the messages that are complete; raises `StunDecodeError` if framing is lost."""
        self._buffer += data
        messages = []
        start = 0
        while (size := self._message_size(start)) is not None:
            if len(self._buffer) - start < size:
                break
            messages.append(bytes(self._buffer[start : start + size]))
            start += size
        del self._buffer[:start]
        return messages

    def _message_size(self, start: int) -> int | None:
        head = self._buffer[start : start + 4]
        if len(head) < 4:
            return None
        size = int.from_bytes(head[2:4], "big")
        if head[0] < 4:
            return 20 + size
        if is_channel_data(head):
            return 4 + size + -size % 4
        raise StunDecodeError("neither STUN nor channel data on the stream")
