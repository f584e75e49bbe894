"""What goes wrong in HTTP/3: codes of RFC 9114 §8.1, RFC 9204 §6 and RFC 9297 §5.2, and the one error for them all."""

from __future__ import annotations

import enum

from a2al_trio.errors import DecodeError

__all__ = ["ErrorCode", "H3Error"]


class ErrorCode(enum.IntEnum):
    """Codes for ending streams and connections."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    CONNECT_ERROR = 0x10F
    VERSION_FALLBACK = 0x110
    DATAGRAM_ERROR = 0x33
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201
    QPACK_DECODER_STREAM_ERROR = 0x202


class H3Error(DecodeError):
    """The peer broke HTTP/3.

    `code` is what it is told. `stream_id` is the request stream that is lost, or None when the connection is.
    """

    def __init__(self, code: ErrorCode, message: str, stream_id: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.stream_id = stream_id
