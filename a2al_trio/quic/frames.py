"""Frames (RFC 9000 §19; DATAGRAM: RFC 9221): values, decoding and encoding.

The usual frames of bulk transfer never pass through here, see receive.py and transmit.py; everything else does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import attrs

from a2al_trio.quic.ack_frame import AckFrame, decode_ack
from a2al_trio.quic.errors import FrameDecodeError, TransportErrorCode
from a2al_trio.quic.varint import (
    MAX_VARINT,
    VarintError,
    decode_varint,
    decode_varints,
    encode_varint,
    encode_varint_row,
)

__all__ = [
    "AckFrequencyFrame",
    "ConnectionCloseFrame",
    "CryptoFrame",
    "DataBlockedFrame",
    "DatagramFrame",
    "Frame",
    "FrameContext",
    "HandshakeDoneFrame",
    "ImmediateAckFrame",
    "MaxDataFrame",
    "MaxStreamDataFrame",
    "MaxStreamsFrame",
    "NewConnectionIdFrame",
    "NewTokenFrame",
    "PaddingFrame",
    "PathChallengeFrame",
    "PathResponseFrame",
    "PingFrame",
    "ResetStreamFrame",
    "RetireConnectionIdFrame",
    "StopSendingFrame",
    "StreamDataBlockedFrame",
    "StreamFrame",
    "StreamsBlockedFrame",
    "decode_frame",
    "decode_frames",
    "decode_stream_frame",
    "encode_connection_close",
    "encode_new_connection_id",
    "encode_varints",
]


@attrs.frozen
class PaddingFrame:
    """One or more PADDING bytes."""


@attrs.frozen
class PingFrame:
    """PING."""


@attrs.frozen
class ResetStreamFrame:
    """RESET_STREAM."""

    stream_id: int
    code: int
    final_size: int


@attrs.frozen
class StopSendingFrame:
    """STOP_SENDING."""

    stream_id: int
    code: int


@attrs.frozen
class CryptoFrame:
    """CRYPTO."""

    offset: int
    data: bytes


@attrs.frozen
class NewTokenFrame:
    """NEW_TOKEN."""

    token: bytes


@attrs.frozen
class StreamFrame:
    """STREAM."""

    stream_id: int
    offset: int
    data: bytes
    fin: bool


@attrs.frozen
class MaxDataFrame:
    """MAX_DATA."""

    maximum: int


@attrs.frozen
class MaxStreamDataFrame:
    """MAX_STREAM_DATA."""

    stream_id: int
    maximum: int


@attrs.frozen
class MaxStreamsFrame:
    """MAX_STREAMS."""

    unidirectional: bool
    maximum: int


@attrs.frozen
class DataBlockedFrame:
    """DATA_BLOCKED."""

    limit: int


@attrs.frozen
class StreamDataBlockedFrame:
    """STREAM_DATA_BLOCKED."""

    stream_id: int
    limit: int


@attrs.frozen
class StreamsBlockedFrame:
    """STREAMS_BLOCKED."""

    unidirectional: bool
    limit: int


@attrs.frozen
class NewConnectionIdFrame:
    """NEW_CONNECTION_ID."""

    sequence: int
    retire_prior_to: int
    connection_id: bytes
    reset_token: bytes


@attrs.frozen
class RetireConnectionIdFrame:
    """RETIRE_CONNECTION_ID."""

    sequence: int


@attrs.frozen
class PathChallengeFrame:
    """PATH_CHALLENGE."""

    data: bytes


@attrs.frozen
class PathResponseFrame:
    """PATH_RESPONSE."""

    data: bytes


@attrs.frozen
class ConnectionCloseFrame:
    """CONNECTION_CLOSE of the transport, or of the application if `is_application`."""

    is_application: bool
    code: int
    frame_type: int
    reason: str


@attrs.frozen
class HandshakeDoneFrame:
    """HANDSHAKE_DONE."""


@attrs.frozen
class DatagramFrame:
    """DATAGRAM."""

    data: bytes


@attrs.frozen
class AckFrequencyFrame:
    """ACK_FREQUENCY (draft-ietf-quic-ack-frequency-11 §4)."""

    sequence: int
    threshold: int
    delay_microseconds: int
    reordering: int


@attrs.frozen
class ImmediateAckFrame:
    """IMMEDIATE_ACK (draft-ietf-quic-ack-frequency-11 §5)."""


Frame = (
    PaddingFrame
    | PingFrame
    | AckFrame
    | ResetStreamFrame
    | StopSendingFrame
    | CryptoFrame
    | NewTokenFrame
    | StreamFrame
    | MaxDataFrame
    | MaxStreamDataFrame
    | MaxStreamsFrame
    | DataBlockedFrame
    | StreamDataBlockedFrame
    | StreamsBlockedFrame
    | NewConnectionIdFrame
    | RetireConnectionIdFrame
    | PathChallengeFrame
    | PathResponseFrame
    | ConnectionCloseFrame
    | HandshakeDoneFrame
    | DatagramFrame
    | AckFrequencyFrame
    | ImmediateAckFrame
)

_PADDING, _PING, _HANDSHAKE_DONE, _IMMEDIATE_ACK = (
    PaddingFrame(),
    PingFrame(),
    HandshakeDoneFrame(),
    ImmediateAckFrame(),
)
_ZEROS = re.compile(rb"\0*").match
_Decoded = tuple[Frame, int]


class FrameContext:
    """Which frames a kind of packet may carry (RFC 9000 §12.4, table 3), by the first byte of their type."""

    INITIAL = HANDSHAKE = frozenset((0x00, 0x01, 0x02, 0x03, 0x06, 0x1C))
    ONE_RTT = frozenset((*range(0x20), 0x30, 0x31, 0x40))
    ZERO_RTT = ONE_RTT - {0x02, 0x03, 0x06, 0x07, 0x19, 0x1B, 0x1E, 0x1F, 0x40}


def _padding(data: bytes, position: int, _type: int) -> _Decoded:
    match = _ZEROS(data, position)
    return _PADDING, match.end() if match else position


def _ping(_data: bytes, position: int, _type: int) -> _Decoded:
    return _PING, position


def _reset_stream(data: bytes, position: int, frame_type: int) -> _Decoded:
    stream_id, position = decode_varint(data, position)
    code, position = decode_varint(data, position)
    final_size, position = decode_varint(data, position)
    return ResetStreamFrame(stream_id, code, final_size), position


def _stop_sending(data: bytes, position: int, frame_type: int) -> _Decoded:
    stream_id, position = decode_varint(data, position)
    code, position = decode_varint(data, position)
    return StopSendingFrame(stream_id, code), position


def _sized(data: bytes, position: int, frame_type: int) -> tuple[bytes, int]:
    size, position = decode_varint(data, position)
    if size > len(data) - position:
        raise FrameDecodeError("frame is cut off", frame_type)
    return data[position : position + size], position + size


def _crypto(data: bytes, position: int, frame_type: int) -> _Decoded:
    offset, position = decode_varint(data, position)
    body, position = _sized(data, position, frame_type)
    if offset + len(body) > MAX_VARINT:
        raise FrameDecodeError("CRYPTO offset is too large", frame_type)
    return CryptoFrame(offset, body), position


def _new_token(data: bytes, position: int, frame_type: int) -> _Decoded:
    token, position = _sized(data, position, frame_type)
    if not token:
        raise FrameDecodeError("empty token", frame_type)
    return NewTokenFrame(token), position


def decode_stream_frame(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Return stream ID, offset, and start and end of the data of the STREAM frame at `position`.

    It saves the commonest of all frames the object that `decode_frame` makes. Raises `FrameDecodeError`.
    """
    # Short integers are read in place: a call for each would make every small message a quarter dearer to parse.
    frame_type = data[position]
    begin, end, offset = position + 2, len(data), 0
    try:
        stream_id = data[position + 1]
        if stream_id >= 0x80:
            stream_id, begin = decode_varint(data, position + 1)
        elif stream_id >= 0x40:
            stream_id = (stream_id & 0x3F) << 8 | data[begin]
            begin += 1
        if frame_type & 4:
            offset, begin = decode_varint(data, begin)
        if frame_type & 2:
            length = data[begin]
            if length < 0x40:
                begin += 1
            elif length < 0x80:
                length = (length & 0x3F) << 8 | data[begin + 1]
                begin += 2
            else:
                length, begin = decode_varint(data, begin)
            if length > end - begin:
                raise FrameDecodeError("frame is cut off", frame_type)
            end = begin + length
    except (VarintError, IndexError):
        raise FrameDecodeError("frame is cut off", frame_type) from None
    if offset and offset + end - begin > MAX_VARINT:
        raise FrameDecodeError("stream offset is too large", frame_type)
    return stream_id, offset, begin, end


def _stream(data: bytes, position: int, frame_type: int) -> _Decoded:
    stream_id, offset, begin, end = decode_stream_frame(data, position - 1)
    return StreamFrame(stream_id, offset, data[begin:end], bool(frame_type & 1)), end


def _max_data(data: bytes, position: int, _type: int) -> _Decoded:
    maximum, position = decode_varint(data, position)
    return MaxDataFrame(maximum), position


def _max_stream_data(data: bytes, position: int, _type: int) -> _Decoded:
    stream_id, position = decode_varint(data, position)
    maximum, position = decode_varint(data, position)
    return MaxStreamDataFrame(stream_id, maximum), position


def _max_streams(data: bytes, position: int, frame_type: int) -> _Decoded:
    maximum, position = decode_varint(data, position)
    if maximum > 1 << 60:
        raise FrameDecodeError("more than 2^60 streams", frame_type)
    return MaxStreamsFrame(frame_type == 0x13, maximum), position


def _data_blocked(data: bytes, position: int, _type: int) -> _Decoded:
    limit, position = decode_varint(data, position)
    return DataBlockedFrame(limit), position


def _stream_data_blocked(data: bytes, position: int, _type: int) -> _Decoded:
    stream_id, position = decode_varint(data, position)
    limit, position = decode_varint(data, position)
    return StreamDataBlockedFrame(stream_id, limit), position


def _streams_blocked(data: bytes, position: int, frame_type: int) -> _Decoded:
    limit, position = decode_varint(data, position)
    if limit > 1 << 60:
        raise FrameDecodeError("more than 2^60 streams", frame_type)
    return StreamsBlockedFrame(frame_type == 0x17, limit), position


def _new_connection_id(data: bytes, position: int, frame_type: int) -> _Decoded:
    sequence, position = decode_varint(data, position)
    retire_prior_to, position = decode_varint(data, position)
    if position >= len(data):
        raise FrameDecodeError("frame is cut off", frame_type)
    size = data[position]
    token_at = position + 1 + size
    if not 1 <= size <= 20 or retire_prior_to > sequence or token_at + 16 > len(data):
        raise FrameDecodeError("malformed NEW_CONNECTION_ID", frame_type)
    cid, token = data[position + 1 : token_at], data[token_at : token_at + 16]
    return NewConnectionIdFrame(sequence, retire_prior_to, cid, token), token_at + 16


def _retire_connection_id(data: bytes, position: int, _type: int) -> _Decoded:
    sequence, position = decode_varint(data, position)
    return RetireConnectionIdFrame(sequence), position


def _path_data(data: bytes, position: int, frame_type: int) -> _Decoded:
    body = data[position : position + 8]
    if len(body) < 8:
        raise FrameDecodeError("frame is cut off", frame_type)
    return PathChallengeFrame(body) if frame_type == 0x1A else PathResponseFrame(body), position + 8


def _connection_close(data: bytes, position: int, frame_type: int) -> _Decoded:
    code, position = decode_varint(data, position)
    cause = 0
    if frame_type == 0x1C:
        cause, position = decode_varint(data, position)
    reason, position = _sized(data, position, frame_type)
    return ConnectionCloseFrame(frame_type == 0x1D, code, cause, reason.decode("utf-8", "replace")), position


def _handshake_done(_data: bytes, position: int, _type: int) -> _Decoded:
    return _HANDSHAKE_DONE, position


def _datagram(data: bytes, position: int, frame_type: int) -> _Decoded:
    if frame_type & 1:
        body, position = _sized(data, position, frame_type)
        return DatagramFrame(body), position
    return DatagramFrame(data[position:]), len(data)


def _immediate_ack(_data: bytes, position: int, _type: int) -> _Decoded:
    return _IMMEDIATE_ACK, position


def _two_byte_type(data: bytes, position: int, _type: int) -> _Decoded:
    """The type began with 0x40: the only one of two bytes that we know is 0xaf."""
    if data[position : position + 1] != b"\xaf":
        raise FrameDecodeError("unknown frame type", int.from_bytes(data[position : position + 1], "big"))
    (sequence, threshold, delay, reordering), position = decode_varints(data, position + 1, 4)
    return AckFrequencyFrame(sequence, threshold, delay, reordering), position


_DECODERS: dict[int, Callable[[bytes, int, int], _Decoded]] = {
    0x00: _padding,
    0x01: _ping,
    0x02: decode_ack,
    0x03: decode_ack,
    0x04: _reset_stream,
    0x05: _stop_sending,
    0x06: _crypto,
    0x07: _new_token,
    **dict.fromkeys(range(0x08, 0x10), _stream),
    0x10: _max_data,
    0x11: _max_stream_data,
    0x12: _max_streams,
    0x13: _max_streams,
    0x14: _data_blocked,
    0x15: _stream_data_blocked,
    0x16: _streams_blocked,
    0x17: _streams_blocked,
    0x18: _new_connection_id,
    0x19: _retire_connection_id,
    0x1A: _path_data,
    0x1B: _path_data,
    0x1C: _connection_close,
    0x1D: _connection_close,
    0x1E: _handshake_done,
    0x1F: _immediate_ack,
    0x30: _datagram,
    0x31: _datagram,
    0x40: _two_byte_type,
}


def decode_frame(payload: bytes, position: int, allowed: frozenset[int]) -> tuple[Frame, int]:
    """Return the frame at `position` of a packet's payload and the position behind it; raises `FrameDecodeError`.

    A type outside `allowed` is a PROTOCOL_VIOLATION if we know it, else a FRAME_ENCODING_ERROR.
    """
    frame_type = payload[position]
    if frame_type not in allowed:
        if frame_type in _DECODERS:
            code = TransportErrorCode.PROTOCOL_VIOLATION
            raise FrameDecodeError("frame not allowed in this packet", frame_type, code)
        raise FrameDecodeError("unknown frame type", frame_type)
    try:
        return _DECODERS[frame_type](payload, position + 1, frame_type)
    except VarintError:
        raise FrameDecodeError("frame is cut off", frame_type) from None


def decode_frames(payload: bytes, allowed: frozenset[int] = FrameContext.ONE_RTT) -> Iterator[Frame]:
    """Yield the frames of a packet one by one; raises `FrameDecodeError` where they stop making sense."""
    if not payload:
        raise FrameDecodeError("packet without frames", code=TransportErrorCode.PROTOCOL_VIOLATION)
    position, end = 0, len(payload)
    while position < end:
        frame, position = decode_frame(payload, position, allowed)
        yield frame


def encode_varints(frame_type: int, *values: int) -> bytes:
    """Return a frame that is its type and a row of integers, as most control frames are."""
    return bytes((frame_type,)) + encode_varint_row(values)


def encode_connection_close(
    code: int, reason: str, *, is_application: bool, frame_type: int = 0, room: int = 1000
) -> bytes:
    """Return a CONNECTION_CLOSE frame; the reason is cut to fit into `room`."""
    text = reason.encode(errors="replace")[: max(0, room - 24)]
    head = encode_varints(0x1D, code) if is_application else encode_varints(0x1C, code, frame_type)
    return head + encode_varint(len(text)) + text


def encode_new_connection_id(sequence: int, retire_prior_to: int, cid: bytes, reset_token: bytes) -> bytes:
    """Return a NEW_CONNECTION_ID frame."""
    return encode_varints(0x18, sequence, retire_prior_to) + bytes((len(cid),)) + cid + reset_token
