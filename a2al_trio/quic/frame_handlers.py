"""Received frames, handed to the objects that own their subject (RFC 9000 §19)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from a2al_trio.quic.ack_frame import AckFrame
from a2al_trio.quic.errors import FrameDecodeError, QuicTransportError, TransportErrorCode
from a2al_trio.quic.frames import (
    AckFrequencyFrame,
    ConnectionCloseFrame,
    CryptoFrame,
    DataBlockedFrame,
    DatagramFrame,
    FrameContext,
    HandshakeDoneFrame,
    ImmediateAckFrame,
    MaxDataFrame,
    MaxStreamDataFrame,
    MaxStreamsFrame,
    NewConnectionIdFrame,
    NewTokenFrame,
    PaddingFrame,
    PathChallengeFrame,
    PathResponseFrame,
    PingFrame,
    ResetStreamFrame,
    RetireConnectionIdFrame,
    StopSendingFrame,
    StreamDataBlockedFrame,
    StreamsBlockedFrame,
    decode_frame,
    decode_stream_frame,
)

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.spaces import PacketSpace

__all__ = ["FrameHandlers", "PacketContext"]

MESSAGE = 0x09
"""The type of a STREAM frame with all of a stream, neither offset nor length; those of type 0x0B have a length."""
MESSAGE_HEAD = struct.Struct(">HH")
LONG_MESSAGE_HEAD = struct.Struct(">IH")
"""Stream ID and length as we write them, to be had with one call."""

_NOT_ELICITING = (AckFrame, PaddingFrame, ConnectionCloseFrame)
_PROBING = (PathChallengeFrame, PathResponseFrame, NewConnectionIdFrame, PaddingFrame)


class PacketContext:
    """Where the frames at hand came from, and what they turned out to be."""

    __slots__ = ("destination_cid", "eliciting", "now", "only_probing", "path", "space_index")

    def __init__(self, space_index: int, path: Path, destination_cid: bytes, now: float) -> None:
        self.space_index = space_index
        self.path = path
        self.destination_cid = destination_cid
        self.now = now
        self.eliciting = False
        self.only_probing = True


class FrameHandlers:
    """Applies frames to one connection. Raises QuicTransportError, FrameDecodeError or TlsAlert."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection

    def process_streams(self, payload: bytes, position: int) -> int:
        """Apply the STREAM frames at `position` of a 1-RTT packet; returns where they end."""
        streams, end = self._connection.streams, len(payload)
        while position < end:
            frame_type = payload[position]
            if frame_type & 0xF8 != 0x08:
                break
            stop = 0
            if frame_type & 0xFD == MESSAGE and position + 7 < end:
                offset = 0
                stream_id, size = MESSAGE_HEAD.unpack_from(payload, position + 1)
                if stream_id >> 14 == 1:
                    stream_id ^= 0x4000
                    begin = position + 3
                else:
                    stream_id, size = LONG_MESSAGE_HEAD.unpack_from(payload, position + 1)
                    stream_id ^= 0x80000000
                    begin = position + 5
                if stream_id >= 1 << 30:
                    pass  # written with one byte, or eight
                elif frame_type == MESSAGE:
                    stop = end
                elif size >> 14 == 1:
                    begin += 2
                    stop = begin + (size ^ 0x4000)
            if not 0 < stop <= end:
                stream_id, offset, begin, stop = decode_stream_frame(payload, position)
            stream = streams.by_id.get(stream_id) or streams.for_peer(stream_id, receiving=True)
            if stream is not None:
                streams.reading.on_data(stream, offset, payload[begin:stop], fin=frame_type & 1 == 1)
            position = stop
        return position

    def process_mixed(self, payload: bytes, position: int, context: PacketContext) -> None:
        """Apply the frames of a 1-RTT packet that are not all STREAM; those before `position` have been applied."""
        context.eliciting, context.only_probing = position > 0, position == 0
        if not payload or payload[0] & 0xFE != 0x02:
            self.process(payload, FrameContext.ONE_RTT, context, position)
            return
        frame, position = decode_frame(payload, 0, FrameContext.ONE_RTT)
        assert isinstance(frame, AckFrame)
        connection, streams_at = self._connection, position
        connection.recovery.check_ack(connection.application, frame.ranges)
        position = self.process_streams(payload, position)
        context.eliciting, context.only_probing = position > streams_at, False
        is_current = context.path is connection.paths.current  # otherwise the path at hand is about to change
        if context.eliciting and is_current and position == len(payload):
            connection.intake.put_off(frame, context.now)
            return
        self._on_ack(frame, context)
        if position < len(payload):
            self.process(payload, FrameContext.ONE_RTT, context, position)

    def process(self, payload: bytes, allowed: frozenset[int], context: PacketContext, position: int = 0) -> None:
        """Apply all frames of a packet, or those from `position` on, and note in `context` of what kinds they were."""
        if not payload:
            raise FrameDecodeError("packet without frames", code=TransportErrorCode.PROTOCOL_VIOLATION)
        handlers = _HANDLERS
        end = len(payload)
        streams = self._connection.streams
        by_id = streams.by_id
        while position < end:
            frame_type = payload[position]
            if frame_type & 0xF8 == 0x08 and frame_type in allowed:
                stream_id, offset, begin, position = decode_stream_frame(payload, position)
                context.eliciting, context.only_probing = True, False
                stream = by_id.get(stream_id) or streams.for_peer(stream_id, receiving=True)
                if stream is not None:
                    streams.reading.on_data(stream, offset, payload[begin:position], fin=bool(frame_type & 1))
                continue
            frame, position = decode_frame(payload, position, allowed)
            kind = type(frame)
            if kind not in _NOT_ELICITING:
                context.eliciting = True
            if kind not in _PROBING:
                context.only_probing = False
            handlers[kind](self, frame, context)

    def process_application(self, payload: bytes, context: PacketContext) -> None:
        """Apply the frames of a 1-RTT packet."""
        self.process(payload, FrameContext.ONE_RTT, context)

    def _nothing(self, _frame: object, _context: PacketContext) -> None:
        """PADDING and PING only count; the blocked frames are information we act on anyway."""

    def _space(self, context: PacketContext) -> PacketSpace:
        return self._connection.spaces[context.space_index]

    def _on_ack(self, frame: AckFrame, context: PacketContext) -> None:
        self.apply_ack(frame, self._space(context), context.now)

    def apply_ack(self, frame: AckFrame, space: PacketSpace, now: float) -> None:
        """Take an ACK frame that arrived at `now`."""
        connection = self._connection
        path = connection.paths.current
        result = connection.recovery.on_ack(
            space, frame.ranges, ack_delay=frame.delay * connection.ack_delay_unit, now=now, path=path
        )
        if not result.packets:
            return
        if space.is_application:
            if (
                result.largest_is_new
                and result.path is path
                and path.ecn.on_acked(frame.ecn_counts, result.ecn_packets)
            ):
                path.congestion.on_ecn_ce(now, sent_at=result.newest_sent_at)
            path.mtu.on_packets_acked(path.mtu.size)
        elif space is connection.spaces[1]:
            connection.recovery.peer_validated_address = True
        connection.paths.sync_datagram_size(path)
        if connection.observer is not None:
            rtt = path.rtt
            connection.observer.metrics(
                now, smoothed_rtt=rtt.smoothed, latest_rtt=rtt.latest,
                window=path.congestion.window, in_flight=path.in_flight,
            )  # fmt: skip

    def _on_ack_frequency(self, frame: AckFrequencyFrame, _context: PacketContext) -> None:
        self._connection.ack_frequency.on_request(frame)

    def _on_immediate_ack(self, _frame: ImmediateAckFrame, context: PacketContext) -> None:
        self._connection.ack_frequency.on_immediate(context.now)

    def _on_crypto(self, frame: CryptoFrame, context: PacketContext) -> None:
        connection = self._connection
        data = self._space(context).crypto.on_frame(frame.offset, frame.data)
        if data:
            connection.handshake.receive(context.space_index, data, context.now)

    def _on_new_token(self, frame: NewTokenFrame, _context: PacketContext) -> None:
        if not self._connection.is_client:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "NEW_TOKEN from a client", 0x07)
        self._connection.reports.on_new_token(frame.token)

    def _on_handshake_done(self, _frame: HandshakeDoneFrame, context: PacketContext) -> None:
        if not self._connection.is_client:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "HANDSHAKE_DONE from a client", 0x1E)
        self._connection.establishment.confirm(context.now)

    # Streams

    def _on_reset_stream(self, frame: ResetStreamFrame, _context: PacketContext) -> None:
        streams = self._connection.streams
        stream = streams.for_peer(frame.stream_id, receiving=True)
        if stream is not None:
            streams.reading.on_reset(stream, frame.code, frame.final_size)

    def _on_stop_sending(self, frame: StopSendingFrame, _context: PacketContext) -> None:
        streams = self._connection.streams
        stream = streams.for_peer(frame.stream_id, receiving=False)
        if stream is not None:
            streams.writing.on_stop_sending(stream, frame.code)

    def _on_max_data(self, frame: MaxDataFrame, _context: PacketContext) -> None:
        connection = self._connection
        if connection.flow.raise_send_limit(frame.maximum):
            connection.streams.writing.unblock()

    def _on_max_stream_data(self, frame: MaxStreamDataFrame, _context: PacketContext) -> None:
        streams = self._connection.streams
        stream = streams.for_peer(frame.stream_id, receiving=False)
        if stream is not None and stream.send is not None:
            streams.writing.raise_limit(stream.send, frame.maximum)

    def _on_max_streams(self, frame: MaxStreamsFrame, _context: PacketContext) -> None:
        self._connection.streams.counts.raise_local_limit(int(frame.unidirectional), frame.maximum)

    def _on_stream_data_blocked(self, frame: StreamDataBlockedFrame, _context: PacketContext) -> None:
        self._connection.streams.for_peer(frame.stream_id, receiving=True)

    def _on_datagram(self, frame: DatagramFrame, _context: PacketContext) -> None:
        connection = self._connection
        limit = connection.config.max_datagram_frame_size
        if not limit or len(frame.data) > limit:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "DATAGRAM we did not ask for", 0x30)
        if connection.datagrams.on_received(frame.data):
            connection.reports.on_datagrams_readable()

    # Connection IDs and paths

    def _on_new_connection_id(self, frame: NewConnectionIdFrame, context: PacketContext) -> None:
        self._connection.on_new_connection_id(frame)

    def _on_retire_connection_id(self, frame: RetireConnectionIdFrame, context: PacketContext) -> None:
        self._connection.local_cids.on_retire(frame.sequence, addressed=context.destination_cid)

    def _on_path_challenge(self, frame: PathChallengeFrame, context: PacketContext) -> None:
        context.path.on_challenge(frame.data)

    def _on_path_response(self, frame: PathResponseFrame, _context: PacketContext) -> None:
        self._connection.migration.on_response(frame.data)

    def _on_connection_close(self, frame: ConnectionCloseFrame, context: PacketContext) -> None:
        self._connection.ending.on_peer_close(
            frame.code, frame.reason, is_application=frame.is_application, now=context.now
        )


_HANDLERS: dict[type, Callable[[FrameHandlers, Any, PacketContext], None]] = {
    PaddingFrame: FrameHandlers._nothing,
    PingFrame: FrameHandlers._nothing,
    AckFrame: FrameHandlers._on_ack,
    ResetStreamFrame: FrameHandlers._on_reset_stream,
    StopSendingFrame: FrameHandlers._on_stop_sending,
    CryptoFrame: FrameHandlers._on_crypto,
    NewTokenFrame: FrameHandlers._on_new_token,
    MaxDataFrame: FrameHandlers._on_max_data,
    MaxStreamDataFrame: FrameHandlers._on_max_stream_data,
    MaxStreamsFrame: FrameHandlers._on_max_streams,
    DataBlockedFrame: FrameHandlers._nothing,
    StreamDataBlockedFrame: FrameHandlers._on_stream_data_blocked,
    StreamsBlockedFrame: FrameHandlers._nothing,
    NewConnectionIdFrame: FrameHandlers._on_new_connection_id,
    RetireConnectionIdFrame: FrameHandlers._on_retire_connection_id,
    PathChallengeFrame: FrameHandlers._on_path_challenge,
    PathResponseFrame: FrameHandlers._on_path_response,
    ConnectionCloseFrame: FrameHandlers._on_connection_close,
    HandshakeDoneFrame: FrameHandlers._on_handshake_done,
    DatagramFrame: FrameHandlers._on_datagram,
    AckFrequencyFrame: FrameHandlers._on_ack_frequency,
    ImmediateAckFrame: FrameHandlers._on_immediate_ack,
}
