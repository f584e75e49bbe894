"""HTTP/3 frames (RFC 9114 §7): an incremental parser that never holds a body, and settings."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import NamedTuple

from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.quic.varint import VarintError, decode_varint, encode_varint

__all__ = [
    "DATA",
    "HEADERS",
    "Frame",
    "FrameParser",
    "FrameType",
    "Setting",
    "decode_settings",
    "decode_single_id",
    "encode_frame",
    "encode_settings",
    "frame_header",
    "split_message",
]


class FrameType(enum.IntEnum):
    """Types of RFC 9114 §7.2."""

    DATA = 0x0
    HEADERS = 0x1
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    GOAWAY = 0x7
    MAX_PUSH_ID = 0xD


DATA, HEADERS = int(FrameType.DATA), int(FrameType.HEADERS)
"""Plain numbers for what is done with every message; to look up a member of an enum takes several times as long."""
HTTP2_FRAMES = (0x2, 0x6, 0x8, 0x9)
"""Types that HTTP/2 has and HTTP/3 forbids (RFC 9114 §7.2.8)."""


class Setting(enum.IntEnum):
    """Identifiers of RFC 9114 §7.2.4.1, RFC 9204 §5, RFC 9220 §5 and RFC 9297 §2.1.1."""

    QPACK_MAX_TABLE_CAPACITY = 0x1
    MAX_FIELD_SECTION_SIZE = 0x6
    QPACK_BLOCKED_STREAMS = 0x7
    ENABLE_CONNECT_PROTOCOL = 0x8
    H3_DATAGRAM = 0x33


YES_OR_NO = (Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM)
HTTP2_SETTINGS = (0x0, 0x2, 0x3, 0x4, 0x5)
"""Identifiers that HTTP/2 has and HTTP/3 forbids (RFC 9114 §7.2.4.1)."""


class Frame(NamedTuple):
    """A whole frame, or a piece of the payload of a DATA frame."""

    kind: int
    payload: bytes


def frame_header(kind: int, size: int) -> bytes:
    """Return what comes before a payload of `size` bytes."""
    if kind < 0x40 and size < 0x4000:
        return bytes((kind, size) if size < 0x40 else (kind, 0x40 | size >> 8, size & 0xFF))
    return encode_varint(kind) + encode_varint(size)


def split_message(data: bytes) -> tuple[bytes, bytes | None] | None:
    """Split the bytes of a whole message of the usual form into the payloads of its HEADERS and DATA frames.

    The usual form is one HEADERS frame, and at most one DATA frame behind it. None if it is another one, or wrong:
    `FrameParser` takes everything.
    """
    try:
        if data[0] != HEADERS:
            return None
        size, offset = data[1], 2
        if size >= 0x40:
            size, offset = decode_varint(data, 1)
        block = data[offset : offset + size]
        offset += size
        if offset == len(data):
            return block, None
        if data[offset] != DATA:
            return None
        size, offset = data[offset + 1], offset + 2
        if size >= 0x40:
            size, offset = decode_varint(data, offset - 1)
    except (IndexError, VarintError):
        return None
    return (block, data[offset:]) if offset + size == len(data) else None


def encode_frame(kind: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return frame_header(kind, len(payload)) + payload


def encode_settings(settings: Mapping[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(encode_varint(key) + encode_varint(value) for key, value in settings.items())
    return encode_frame(FrameType.SETTINGS, payload)


def decode_settings(payload: bytes) -> dict[int, int]:
    """Return the settings of a SETTINGS frame, unknown ones too; raises H3Error."""
    settings: dict[int, int] = {}
    offset = 0
    while offset < len(payload):
        try:
            key, offset = decode_varint(payload, offset)
            value, offset = decode_varint(payload, offset)
        except VarintError as error:
            raise H3Error(ErrorCode.FRAME_ERROR, "SETTINGS end inside a setting") from error
        if key in settings:
            raise H3Error(ErrorCode.SETTINGS_ERROR, f"setting {key:#x} comes twice")
        if key in HTTP2_SETTINGS:
            raise H3Error(ErrorCode.SETTINGS_ERROR, f"setting {key:#x} belongs to HTTP/2")
        if key in YES_OR_NO and value > 1:
            raise H3Error(ErrorCode.SETTINGS_ERROR, f"setting {key:#x} is {value}, neither 0 nor 1")
        settings[key] = value
    return settings


def decode_single_id(payload: bytes) -> int:
    """Return the one identifier that GOAWAY, MAX_PUSH_ID and CANCEL_PUSH consist of; raises H3Error."""
    try:
        value, end = decode_varint(payload, 0)
    except VarintError as error:
        raise H3Error(ErrorCode.FRAME_ERROR, "a frame ends inside its identifier") from error
    if end != len(payload):
        raise H3Error(ErrorCode.FRAME_ERROR, "a frame has more than its identifier")
    return value


class FrameParser:
    """Cuts the bytes of one stream into frames.

    Frames of the types `kept` come whole, DATA comes in pieces as it arrives, types in `refused` raise H3Error with
    the code they stand with, and all others are skipped, however long (RFC 9114 §9). A kept frame above `limit` is an
    error of the request stream `stream_id` alone if that is given.
    """

    __slots__ = ("_data", "_kept", "_limit", "_offset", "_refused", "_remaining", "_stream_id", "_streamed", "first")

    def __init__(
        self, *, kept: Collection[int], refused: Mapping[int, ErrorCode], limit: int, stream_id: int | None = None
    ) -> None:
        self._kept = kept
        self._stream_id = stream_id
        self._refused = refused
        self._limit = limit
        self._data = b""
        self._offset = 0
        self._remaining = 0
        self._streamed = -1
        self.first: int | None = None
        """Type of the stream's first frame, once it is known."""

    @property
    def held(self) -> int:
        """Bytes that have come and were not given out."""
        return len(self._data) - self._offset

    @property
    def between_frames(self) -> bool:
        """Whether everything that came has been given out, and the last frame is complete."""
        return not self.held and not self._remaining

    def feed(self, data: bytes) -> None:
        """Add bytes; `next_frame` then gives out frames."""
        self._data = self._data[self._offset :] + data if self.held else data
        self._offset = 0

    def next_frame(self) -> Frame | None:
        """Return the next frame or piece of DATA, None if more bytes must come first; raises H3Error."""
        while True:
            if self._remaining:
                chunk = self._data[self._offset : self._offset + self._remaining]
                if not chunk:
                    self._data, self._offset = b"", 0
                    return None
                self._offset += len(chunk)
                self._remaining -= len(chunk)
                if self._streamed == DATA:
                    return Frame(DATA, chunk)
                continue
            if self._offset == len(self._data):
                self._data, self._offset = b"", 0  # what was given out need not be kept
                return None
            try:
                kind, offset = decode_varint(self._data, self._offset)
                if self.first is None:
                    self.first = kind
                if (code := self._refused.get(kind)) is not None:
                    raise H3Error(code, f"a frame of type {kind:#x} has no place here")
                size, offset = decode_varint(self._data, offset)
            except VarintError:
                return None
            if kind in self._kept:
                if size > self._limit:
                    raise H3Error(
                        ErrorCode.EXCESSIVE_LOAD, f"a frame of type {kind:#x} is {size} bytes long", self._stream_id
                    )
                if len(self._data) - offset < size:
                    return None
                self._offset = offset + size
                return Frame(kind, self._data[offset : offset + size])
            self._offset, self._remaining, self._streamed = offset, size, kind
            if kind == DATA and not size:
                return Frame(kind, b"")  # empty, but it has to stand in its place
