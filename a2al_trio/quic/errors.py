"""QUIC error codes (RFC 9000 §20) and the exceptions that carry them inside the core."""

from __future__ import annotations

import enum

from a2al_trio.errors import DecodeError, LocalProtocolError, RemoteProtocolError

__all__ = [
    "FrameDecodeError",
    "PacketDecodeError",
    "QuicTransportError",
    "TransportErrorCode",
    "check_code",
    "describe_code",
]

MAX_CODE = (1 << 62) - 1


class TransportErrorCode(enum.IntEnum):
    """Transport error codes of RFC 9000 §20.1 and RFC 9368 §10.2; TLS alerts are CRYPTO_ERROR + alert."""

    NO_ERROR = 0x0
    INTERNAL_ERROR = 0x1
    CONNECTION_REFUSED = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_LIMIT_ERROR = 0x4
    STREAM_STATE_ERROR = 0x5
    FINAL_SIZE_ERROR = 0x6
    FRAME_ENCODING_ERROR = 0x7
    TRANSPORT_PARAMETER_ERROR = 0x8
    CONNECTION_ID_LIMIT_ERROR = 0x9
    PROTOCOL_VIOLATION = 0xA
    INVALID_TOKEN = 0xB
    APPLICATION_ERROR = 0xC
    CRYPTO_BUFFER_EXCEEDED = 0xD
    KEY_UPDATE_ERROR = 0xE
    AEAD_LIMIT_REACHED = 0xF
    NO_VIABLE_PATH = 0x10
    VERSION_NEGOTIATION_ERROR = 0x11
    CRYPTO_ERROR = 0x100


def check_code(code: object) -> None:
    """Refuse what is no application error code (RFC 9000 §20.2) with LocalProtocolError."""
    if not isinstance(code, int) or not 0 <= code <= MAX_CODE:
        raise LocalProtocolError(f"application error codes are 0 to 2**62 - 1, not {code!r}")


def describe_code(code: int) -> str:
    """Name a transport error code for people."""
    if 0x100 <= code <= 0x1FF:
        return f"CRYPTO_ERROR (TLS alert {code - 0x100})"
    try:
        return TransportErrorCode(code).name
    except ValueError:
        return f"error {code:#x}"


class QuicTransportError(RemoteProtocolError):
    """The peer broke a rule: the connection closes with this code (RFC 9000 §11.1)."""

    def __init__(self, code: int, reason: str, frame_type: int = 0) -> None:
        super().__init__(f"{describe_code(code)}: {reason}")
        self.code = code
        self.reason = reason
        self.frame_type = frame_type


class PacketDecodeError(DecodeError):
    """A packet header does not decode; the packet is dropped without a word (RFC 9000 §12.2)."""


class FrameDecodeError(DecodeError):
    """A frame does not decode: FRAME_ENCODING_ERROR, or PROTOCOL_VIOLATION if it is not allowed there."""

    def __init__(self, reason: str, frame_type: int = 0, code: int = TransportErrorCode.FRAME_ENCODING_ERROR) -> None:
        super().__init__(reason)
        self.reason = reason
        self.frame_type = frame_type
        self.code = code
