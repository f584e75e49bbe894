"""The first stream of a connection: who is wanted, and what both sides tell each other (spec 04 §5, spec 08 §4).

It starts with a route frame of 25 bytes, a magic and the target's address; then each side sends framed messages until
it ends its direction.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, TypeAlias

import attrs

from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.errors import InvalidControlStream, InvalidRecord, WireEncodeError
from a2al_trio.wire.observed import decode_observed, encode_observed
from a2al_trio.wire.records import SignedRecord, decode_record

__all__ = [
    "MAX_CONTROL_PAYLOAD",
    "ROUTE_FRAME_SIZE",
    "AccessResult",
    "AccessToken",
    "AgentInfo",
    "AgentInfoHint",
    "ControlMessage",
    "ControlReader",
    "ControlType",
    "EnvelopeStream",
    "KeysDone",
    "ObservedAddress",
    "RouteFrame",
    "ServiceStream",
    "SkippedControl",
    "decode_route_frame",
    "encode_control",
    "encode_route_frame",
]

ROUTE_FRAME_SIZE: Final = 25
MAX_CONTROL_PAYLOAD: Final = 4096
_MAX_TOKEN_BYTES = 256
_MAGIC = b"a2r2"
_LEGACY_MAGIC = b"a2r1"
_HEAD = struct.Struct(">BH")
_HINT = struct.Struct(">21sQ")


@attrs.frozen
class RouteFrame:
    """Which agent the dialer wants. After a `legacy` frame nothing follows, in either direction."""

    target: Address
    legacy: bool = False


def encode_route_frame(target: Address, *, legacy: bool = False) -> bytes:
    """The 25 bytes a dialer sends first."""
    return (_LEGACY_MAGIC if legacy else _MAGIC) + target


def decode_route_frame(data: bytes) -> RouteFrame:
    """Read the first 25 bytes of stream 0. Raises InvalidControlStream."""
    if len(data) != ROUTE_FRAME_SIZE or data[:4] not in (_MAGIC, _LEGACY_MAGIC):
        raise InvalidControlStream(f"no route frame: {data[:4]!r}, {len(data)} bytes")
    return RouteFrame(Address(data[4:]), data[:4] == _LEGACY_MAGIC)


class ControlType(enum.IntEnum):
    """Types of control messages; unknown ones are skipped by their length."""

    OBSERVED_ADDRESS = 0x01
    AGENT_INFO_HINT = 0x02
    AGENT_INFO = 0x03
    ACCESS_TOKEN = 0x04
    ACCESS_RESULT = 0x05
    SERVICE_STREAM = 0x06
    KEYS_DONE = 0x07
    ENVELOPE_STREAM = 0x08


@attrs.frozen
class ObservedAddress:
    """Acceptor to dialer: the dialer's address as the acceptor sees it."""

    address: SocketAddress


@attrs.frozen
class AgentInfoHint:
    """Dialer to acceptor: the highest topic sequence the dialer holds of the target, 0 if none."""

    target: Address
    held_sequence: int


@attrs.frozen
class AgentInfo:
    """Acceptor to dialer: one of the target's topic records, its structure checked and nothing more."""

    record: SignedRecord


@attrs.frozen
class AccessToken:
    """Dialer to acceptor, on a service stream: the ticket for an agent that asks for one."""

    token: str = attrs.field(repr=False)


@attrs.frozen
class AccessResult:
    """Acceptor to dialer, on a service stream: whether service bytes may follow."""

    allowed: bool
    reason: str = ""


@attrs.frozen
class ServiceStream:
    """Acceptor to dialer: service streams may start with `a2s1`."""


@attrs.frozen
class KeysDone:
    """Dialer to acceptor, on a service stream: no more tokens."""


@attrs.frozen
class EnvelopeStream:
    """Acceptor to dialer: streams may start with `a2en`."""


@attrs.frozen
class SkippedControl:
    """A message of a type we do not know, or a known one whose content is to be ignored."""

    message_type: int
    payload: bytes


ControlMessage: TypeAlias = (
    ObservedAddress
    | AgentInfoHint
    | AgentInfo
    | AccessToken
    | AccessResult
    | ServiceStream
    | KeysDone
    | EnvelopeStream
    | SkippedControl
)
"""What a control stream carries after its route frame (spec 04 §5.2, spec 08 §4)."""


def encode_control(message: ControlMessage) -> bytes:
    """One framed message. Raises WireEncodeError over 4,096 bytes of payload."""
    message_type, payload = _encode_parts(message)
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise WireEncodeError(f"a control message carries at most {MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
    return _HEAD.pack(message_type, len(payload)) + payload


def _encode_parts(message: ControlMessage) -> tuple[int, bytes]:
    match message:
        case ObservedAddress():
            return ControlType.OBSERVED_ADDRESS, encode_observed(message.address)
        case AgentInfoHint():
            if not 0 <= message.held_sequence < 2**64:
                raise WireEncodeError("a held sequence is an unsigned 64-bit number")
            return ControlType.AGENT_INFO_HINT, _HINT.pack(message.target, message.held_sequence)
        case AgentInfo():
            return ControlType.AGENT_INFO, message.record.encoded
        case AccessToken():
            token = message.token.encode()
            if not 1 <= len(token) <= _MAX_TOKEN_BYTES:
                raise WireEncodeError(f"an access token has 1 to {_MAX_TOKEN_BYTES} bytes of UTF-8, not {len(token)}")
            return ControlType.ACCESS_TOKEN, token
        case AccessResult():
            return ControlType.ACCESS_RESULT, bytes((message.allowed,)) + message.reason.encode()
        case ServiceStream():
            return ControlType.SERVICE_STREAM, b""
        case KeysDone():
            return ControlType.KEYS_DONE, b""
        case EnvelopeStream():
            return ControlType.ENVELOPE_STREAM, b""
        case SkippedControl():
            return message.message_type, message.payload


def _decode_control(message_type: int, payload: bytes) -> ControlMessage:
    """Read one message; one that is malformed inside is skipped, as all versions do (spec 04 §5.3)."""
    match message_type:
        case ControlType.OBSERVED_ADDRESS if len(payload) in (6, 18):
            return ObservedAddress(decode_observed(payload))
        case ControlType.AGENT_INFO_HINT if len(payload) >= _HINT.size:
            target, held_sequence = _HINT.unpack_from(payload)
            return AgentInfoHint(Address(target), held_sequence)
        case ControlType.AGENT_INFO:
            try:
                return AgentInfo(decode_record(payload))
            except InvalidRecord:
                return SkippedControl(message_type, payload)
        case ControlType.ACCESS_TOKEN if 1 <= len(payload) <= _MAX_TOKEN_BYTES:
            try:
                return AccessToken(payload.decode())
            except UnicodeDecodeError:
                return SkippedControl(message_type, payload)
        case ControlType.ACCESS_RESULT if payload:
            return AccessResult(payload[0] != 0, payload[1:].decode(errors="replace"))
        case ControlType.SERVICE_STREAM:
            return ServiceStream()
        case ControlType.KEYS_DONE:
            return KeysDone()
        case ControlType.ENVELOPE_STREAM:
            return EnvelopeStream()
    return SkippedControl(message_type, payload)


class ControlReader:
    """Reads one direction of control messages as its bytes come in.

    Feed, then take messages until None; so every message before a broken one is still delivered. More than
    `max_messages`, or a payload over 4,096 bytes, is an InvalidControlStream: memory stays bounded whatever comes.
    """

    def __init__(self, *, max_messages: int = 128) -> None:
        self._buffer = bytearray()
        self._messages_left = max_messages

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes of the stream; take out all messages before feeding on."""
        self._buffer += data

    def next_message(self) -> ControlMessage | None:
        """The next complete message, or None if more bytes are needed. Raises InvalidControlStream."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        message_type, length = _HEAD.unpack_from(buffer)
        if length > MAX_CONTROL_PAYLOAD:
            raise InvalidControlStream(f"a control message of {length} bytes, more than {MAX_CONTROL_PAYLOAD}")
        end = _HEAD.size + length
        if len(buffer) < end:
            return None
        if not self._messages_left:
            raise InvalidControlStream("too many control messages")
        self._messages_left -= 1
        payload = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        return _decode_control(message_type, payload)

    def end(self) -> None:
        """The stream has ended; raises InvalidControlStream if that was inside a message."""
        if self._buffer:
            raise InvalidControlStream("the stream ended inside a control message")

    def take_rest(self) -> bytes:
        """The bytes after the last message taken; on a service stream, the first bytes of the service."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
