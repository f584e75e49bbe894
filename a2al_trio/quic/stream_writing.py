"""Sending on streams: what the application writes, resets and what the peer stops (RFC 9000 §3.1, §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.errors import LocalProtocolError, StreamStopped
from a2al_trio.quic.stream_order import URGENCIES

if TYPE_CHECKING:
    from a2al_trio.quic.flow import ConnectionFlow
    from a2al_trio.quic.stream import SendHalf, Stream
    from a2al_trio.quic.streams import StreamObserver, StreamTable

__all__ = ["StreamWriting"]

MAX_MESSAGE = 1024
"""What a stream carries in one piece may have so many bytes to be kept as it is, without a buffer.

That fits into the smallest datagram there is, 1200 bytes, with all that goes around it and the usual ACK.
"""


class StreamWriting:
    """The sending halves of a connection's streams; `send_buffer` is how many unsent bytes each may hold."""

    __slots__ = (
        "_control", "_flow", "_most_message", "_observer", "_send_buffer", "_streams", "_table", "blocked", "order"
    )  # fmt: skip

    def __init__(self, table: StreamTable, flow: ConnectionFlow, observer: StreamObserver, *, send_buffer: int) -> None:
        self._table = table
        self._streams = table.by_id
        self._control = table.control
        self.order = table.order
        self._flow = flow
        self._observer = observer
        self._send_buffer = send_buffer
        self._most_message = min(MAX_MESSAGE, send_buffer)
        self.blocked: dict[int, SendHalf] = {}
        """What waits for credit of the connection."""

    # What the application does

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, fin: bool) -> int:
        """Accept bytes up to the send buffer's mark and return how many; see QuicConnectionCore.write."""
        stream = self._streams.get(stream_id)
        half = None if stream is None else stream.send
        if half is None or half.reset_code is not None or half.buffer.final:
            if half is not None and half.stopped_code is None and half.buffer.final and fin and not data:
                return 0  # the end may be told twice
            raise self._refusal(stream_id, stream)
        buffer, size = half.buffer, len(data)
        if fin and 0 < size <= self._most_message and type(data) is bytes and not buffer.end:
            # All the stream will ever carry, in one small piece.
            buffer.write_message(data)
            self.order.activate(half)
            return size
        if type(data) is memoryview and data.itemsize != 1:
            data = data.cast("B")
            size = len(data)
        if size:
            room = self._send_buffer - buffer.end + buffer.next_offset
            if size > room:
                half.wants_writable = True
                if room <= 0:
                    return 0
                data = bytes(memoryview(data)[:room])
                size, fin = room, False
            buffer.write(data)
        if fin:
            buffer.finish()
        self.order.activate(half)
        return size

    def _refusal(self, stream_id: int, stream: Stream | None) -> LocalProtocolError | StreamStopped:
        """Return why nothing can be written, and note that the application knows."""
        if stream is None:
            return LocalProtocolError(f"stream {stream_id} is closed")
        half = stream.send
        if half is None:
            return LocalProtocolError(f"stream {stream_id} is receive-only")
        if half.stopped_code is None:  # a stream that was stopped has been reset as well
            return LocalProtocolError(f"stream {stream_id} has been finished or reset already")
        half.stop_told = True
        self._table.remove_if_done(stream)
        return StreamStopped(half.stopped_code)

    def set_urgency(self, stream_id: int, urgency: int) -> None:
        """Set the sending order: 0 goes first, 7 last; of a stream that is over there is nothing to order."""
        if not 0 <= urgency < URGENCIES:
            raise LocalProtocolError(f"urgency must be in 0..{URGENCIES - 1}, not {urgency}")
        stream = self._streams.get(stream_id)
        if stream is not None and stream.send is not None:
            self.order.set_urgency(stream.send, urgency)

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending: RESET_STREAM; nothing happens if that direction is over."""
        stream = self._streams.get(stream_id)
        half = stream.send if stream is not None else None
        if stream is None or half is None:
            return
        half.stop_told = True
        if half.reset_code is None and not half.is_done:
            self._reset(half, code)
        self._table.remove_if_done(stream)

    def _reset(self, half: SendHalf, code: int) -> None:
        half.reset_code = code
        half.reset_size = half.buffer.next_offset
        half.reset_pending = True
        half.buffer.clear()
        self.order.deactivate(half)
        self.want_control(half.stream_id)

    # What becomes of what was sent

    def on_sent_new(self, half: SendHalf) -> None:
        """New bytes of the stream left; the application may be waiting for room in the buffer."""
        if half.wants_writable and half.buffer.unsent <= self._send_buffer >> 1:
            half.wants_writable = False
            self._observer.on_stream_writable(half.stream_id)

    def on_send_done(self, stream_id: int) -> None:
        """The peer has all of the stream that we will ever send."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._table.remove_if_done(stream)

    def on_reset_acked(self, stream: Stream) -> None:
        """The peer knows of our RESET_STREAM."""
        if stream.send is not None:
            stream.send.reset_acked = True
            self._table.remove_if_done(stream)

    def resend_reset(self, stream: Stream) -> None:
        """Our RESET_STREAM was lost."""
        if stream.send is not None and not stream.send.reset_acked:
            stream.send.reset_pending = True
            self._control[stream.stream_id] = stream

    def want_control(self, stream_id: int) -> None:
        """A control frame of the stream waits to be sent."""
        self._control[stream_id] = self._streams[stream_id]

    # What the peer says

    def on_stop_sending(self, stream: Stream, code: int) -> None:
        """Take STOP_SENDING: answer with RESET_STREAM (RFC 9000 §3.5) and tell the application."""
        half = stream.send
        assert half is not None
        if half.stopped_code is not None or half.is_done:
            return
        half.stopped_code = code
        if half.reset_code is None:
            self._reset(half, code)
        self._observer.on_stream_writable(stream.stream_id)

    def raise_limit(self, half: SendHalf, maximum: int) -> None:
        """Take MAX_STREAM_DATA."""
        if maximum > half.limit:
            half.limit = maximum
            half.blocked_pending = False
            if half.buffer.has_pending:
                self.order.activate(half)

    def block(self, half: SendHalf) -> None:
        """New data of the stream waits for credit: of its own, or of the connection."""
        self.order.deactivate(half)
        if half.buffer.next_offset >= half.limit:
            half.on_blocked()
        else:
            self._flow.on_blocked()
            self.blocked[half.stream_id] = half

    def unblock(self) -> None:
        """The connection has credit again: streams that waited for it may send."""
        blocked, self.blocked = self.blocked, {}
        for half in blocked.values():
            self.order.activate(half)
