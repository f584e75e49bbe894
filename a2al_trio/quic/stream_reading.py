"""Receiving on streams: data in order for the application, credit for the peer, giving up (RFC 9000 §3.2, §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.errors import LocalProtocolError, StreamReset
from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode

if TYPE_CHECKING:
    from a2al_trio.quic.flow import ConnectionFlow
    from a2al_trio.quic.stream import ReceiveHalf, Stream
    from a2al_trio.quic.streams import StreamObserver, StreamTable

__all__ = ["StreamReading"]


class StreamReading:
    """The receiving halves of a connection's streams."""

    __slots__ = ("_control", "_flow", "_observer", "_streams", "_table")

    def __init__(self, table: StreamTable, flow: ConnectionFlow, observer: StreamObserver) -> None:
        self._table = table
        self._streams = table.by_id
        self._control = table.control
        self._flow = flow
        self._observer = observer

    # What arrives

    def on_data(self, stream: Stream, offset: int, data: bytes, *, fin: bool) -> None:
        """Take a STREAM frame for a stream that exists."""
        half = stream.receive
        if half is None:
            raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is send-only")
        end = offset + len(data)
        if fin and not offset and half.is_untouched and 0 < end <= half.first_window:
            self._flow.on_received(end)
            half.is_untouched = False
            half.message, half.message_size = data, end
            half.signalled = True
            self._observer.on_stream_readable(stream.stream_id)
            return
        assembler = half.assembler
        if fin or assembler.final_size is not None:
            self.check_final_size(half, end, is_final=fin)
        new = end - assembler.highest
        if new > 0:
            self.charge(half, end, new)
        if half.reset_code is not None:
            return
        if half.stop_code is not None:
            assembler.highest = max(end, assembler.highest)
            self._flow.on_consumed(max(new, 0))
            self._table.remove_if_done(stream)
            return
        before = assembler.received_to
        assembler.insert(offset, data)
        if not half.signalled and (assembler.received_to > before or assembler.is_complete):
            half.signalled = True
            self._observer.on_stream_readable(stream.stream_id)

    def on_chunks(self, stream: Stream, chunks: list[bytes]) -> None:
        """Take stream data in order, from one batch of packets; the stream is known to want it."""
        half = stream.receive
        assert half is not None
        assembler = half.assembler
        size = sum(map(len, chunks))
        new = assembler.received_to + size - assembler.highest
        if new > 0:
            self.charge(half, assembler.received_to + size, new)
        if assembler.final_size is not None and assembler.received_to + size > assembler.final_size:
            raise QuicTransportError(TransportErrorCode.FINAL_SIZE_ERROR, "data beyond the end of the stream")
        assembler.extend_in_order(chunks, size)
        if not half.signalled:
            half.signalled = True
            self._observer.on_stream_readable(stream.stream_id)

    def charge(self, half: ReceiveHalf, end: int, new: int) -> None:
        """Hold `new` bytes up to offset `end` against the limits we granted."""
        if end > half.window.limit:
            raise QuicTransportError(
                TransportErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's flow control allows"
            )
        self._flow.on_received(new)

    @staticmethod
    def check_final_size(half: ReceiveHalf, end: int, *, is_final: bool) -> None:
        """Apply RFC 9000 §4.5; remembers the final size if `is_final`."""
        final_size = half.assembler.final_size
        if final_size is not None and (end > final_size or (is_final and end != final_size)):
            raise QuicTransportError(TransportErrorCode.FINAL_SIZE_ERROR, "stream changed its final size")
        if is_final:
            if end < half.assembler.highest:
                raise QuicTransportError(TransportErrorCode.FINAL_SIZE_ERROR, "final size is below received data")
            half.assembler.final_size = end

    def on_reset(self, stream: Stream, code: int, final_size: int) -> None:
        """Take RESET_STREAM."""
        half = stream.receive
        assert half is not None
        assembler = half.assembler
        had_everything = assembler.is_complete
        self.check_final_size(half, final_size, is_final=True)
        new = final_size - assembler.highest
        if new > 0:
            self.charge(half, final_size, new)
            assembler.highest = final_size
        if half.reset_code is not None or half.end_delivered:
            return
        if half.stop_code is not None:
            self._flow.on_consumed(max(new, 0))
            half.reset_code = code
            self._table.remove_if_done(stream)
            return
        if had_everything:
            return
        # What was not read yet is dropped, so its credit goes back to the connection.
        self._flow.on_consumed(final_size - assembler.read_to)
        half.reset_code = code
        assembler.clear()
        # Told even if something is there to be read already: it no longer is.
        half.signalled = True
        self._observer.on_stream_readable(stream.stream_id)

    # What the application does

    def read(self, stream_id: int, limit: int) -> bytes | None:
        """Take up to `limit` bytes: None if there are none now, empty at the end; raises StreamReset."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return b""
        half = stream.receive
        if half is None:
            raise LocalProtocolError(f"stream {stream_id} is send-only")
        message = half.message
        if message is not None and len(message) <= limit:
            half.message = None
            half.end_delivered = True
            self._flow.on_consumed(len(message))
            self._table.remove_if_done(stream)
            return message
        if half.is_untouched:
            return None
        if half.stop_code is not None:
            return b""
        if half.reset_code is not None:
            half.end_delivered = True
            self._table.remove_if_done(stream)
            raise StreamReset(half.reset_code)
        assembler = half.assembler
        data = assembler.read(limit)
        if data:
            window = half.window
            window.consumed = assembler.read_to
            self._flow.on_consumed(len(data))
            if assembler.final_size is None:
                if not half.credit_pending and window.wants_update:
                    half.credit_pending = True
                    self._control[stream_id] = stream
            elif assembler.read_to == assembler.final_size:
                # Nothing but the end is left to tell, and a stream that is gone reads as ended.
                half.end_delivered = True
                self._table.remove_if_done(stream)
            return data
        if assembler.is_read:
            half.end_delivered = True
            self._table.remove_if_done(stream)
            return b""
        half.signalled = False
        return None

    def stop(self, stream_id: int, code: int) -> None:
        """Give up receiving: STOP_SENDING, and drop what arrived or will arrive."""
        stream = self._streams.get(stream_id)
        half = stream.receive if stream is not None else None
        if stream is None or half is None or half.stop_code is not None or half.end_delivered:
            return
        if half.reset_code is None:
            assembler = half.assembler
            half.stop_pending = not assembler.is_complete
            self._flow.on_consumed(assembler.highest - assembler.read_to)
            assembler.clear()
            if half.stop_pending:
                self._control[stream_id] = stream
        half.stop_code = code
        self._table.remove_if_done(stream)

    # What was lost

    def resend_stop(self, stream: Stream) -> None:
        """Our STOP_SENDING was lost."""
        half = stream.receive
        if half is not None and half.assembler.final_size is None:
            half.stop_pending = True
            self._control[stream.stream_id] = stream

    def resend_credit(self, stream: Stream) -> None:
        """Our MAX_STREAM_DATA was lost; the newest limit goes out again."""
        half = stream.receive
        if half is not None and half.assembler.final_size is None and stream.stream_id in self._streams:
            half.credit_pending = True
            self._control[stream.stream_id] = stream
