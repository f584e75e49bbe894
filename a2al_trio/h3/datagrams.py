"""HTTP datagrams and capsules as bytes (RFC 9297)."""

from __future__ import annotations

import enum

from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.frames import FrameParser, encode_frame
from a2al_trio.quic.varint import VarintError, decode_varint, encode_varint

__all__ = ["CapsuleReader", "CapsuleType", "decode_datagram", "encode_capsule", "encode_datagram"]

LARGEST_QUARTER = (1 << 60) - 1
"""A stream id is less than 2^62 (RFC 9297 §2.1)."""


class CapsuleType(enum.IntEnum):
    """Types of capsules that are known here (RFC 9297 §3.5)."""

    DATAGRAM = 0x0


def encode_datagram(stream_id: int, payload: bytes) -> bytes:
    """Return the content of the QUIC datagram that carries a payload for a request (RFC 9297 §2.1)."""
    return encode_varint(stream_id >> 2) + payload


def decode_datagram(data: bytes) -> tuple[int, bytes]:
    """Return the request stream that a QUIC datagram is for, and its payload; raises H3Error."""
    try:
        quarter, offset = decode_varint(data, 0)
    except VarintError as error:
        raise H3Error(ErrorCode.DATAGRAM_ERROR, "a datagram ends inside its stream id") from error
    if quarter > LARGEST_QUARTER:
        raise H3Error(ErrorCode.DATAGRAM_ERROR, f"a datagram for stream {quarter} * 4, which there cannot be")
    return quarter << 2, data[offset:]


def encode_capsule(kind: int, value: bytes) -> bytes:
    """Return a capsule (RFC 9297 §3.2), which looks as a frame does."""
    return encode_frame(kind, value)


class CapsuleReader:
    """Finds the DATAGRAM capsules in the content of a message; other capsules are passed over, however long."""

    __slots__ = ("_parser", "_stream_id")

    def __init__(self, stream_id: int, *, limit: int) -> None:
        self._stream_id = stream_id
        self._parser = FrameParser(kept=(CapsuleType.DATAGRAM,), refused={}, limit=limit, stream_id=stream_id)

    def receive(self, data: bytes) -> list[bytes]:
        """Take content and return the payloads that are complete; H3Error for one that is larger than the limit."""
        self._parser.feed(data)
        payloads = []
        while (capsule := self._parser.next_frame()) is not None:
            payloads.append(capsule.payload)
        return payloads

    def finish(self) -> None:
        """The content is complete; raises H3Error if that is inside a capsule (RFC 9297 §3.3)."""
        if not self._parser.between_frames:
            raise H3Error(ErrorCode.MESSAGE_ERROR, "a message ends inside a capsule", self._stream_id)
