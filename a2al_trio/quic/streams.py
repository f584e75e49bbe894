"""Streams: their states, opening and closing, and which of them has something to send (RFC 9000 §2, §3).

A `Stream` has up to two halves. A half ends on the wire and in the eyes of the application; a stream is removed
once both halves ended in both senses, and only then may the peer open another one in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs

from a2al_trio.errors import LocalProtocolError, StreamReset, StreamStopped
from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.flow import ConnectionFlow
from a2al_trio.quic.stream import ReceiveHalf, SendHalf, Stream
from a2al_trio.quic.varint import encode_varint

__all__ = ["StreamLimits", "StreamObserver", "StreamTable"]

URGENCIES = 8
FEW_STREAMS = 16
MAX_MESSAGE = 1024
LITTLE_DATA = 512
"""What is sent by the packet, not by the run: at most so many streams, and bytes of the first of them."""


class StreamObserver(Protocol):
    """Whom the table tells what its streams have news for."""

    def on_stream_opened(self, stream_id: int) -> None:
        """The peer opened a stream."""

    def on_stream_readable(self, stream_id: int) -> None:
        """There is something to read."""

    def on_stream_writable(self, stream_id: int) -> None:
        """There is room to write, or a reason not to."""

    def on_streams_available(self, unidirectional: bool) -> None:
        """More streams may be opened."""


@attrs.frozen(kw_only=True)
class StreamLimits:
    """What we grant: stream counts, windows and the send buffer of one stream."""

    bidirectional: int
    unidirectional: int
    window: int
    max_window: int
    send_buffer: int


class StreamTable:
    """All streams of a connection. Kind 0 is bidirectional, kind 1 unidirectional, as in stream IDs' second bit."""

    def __init__(
        self, *, is_client: bool, limits: StreamLimits, flow: ConnectionFlow, observer: StreamObserver
    ) -> None:
        self._local_bit = 0 if is_client else 1
        self._limits = limits
        self._most_message = min(MAX_MESSAGE, limits.send_buffer)
        self._flow = flow
        self._observer = observer
        self._streams: dict[int, Stream] = {}
        self._local_next = [0, 0]
        self._local_limit = [0, 0]
        self._available_wanted = [False, False]
        self._peer_next = [0, 0]
        self._peer_allowance = [limits.bidirectional, limits.unidirectional]
        self.peer_limit = [limits.bidirectional, limits.unidirectional]
        self._peer_open = [0, 0]
        self._active: list[dict[int, SendHalf]] = [{} for _ in range(URGENCIES)]
        self.active_levels = 0
        """Bit n is set when a stream of urgency n has something to send."""
        self.blocked: dict[int, SendHalf] = {}
        self.control: dict[int, Stream] = {}
        self.limits_pending = [False, False]
        self.blocked_pending = [False, False]
        self._peer_window_local_opened = 0
        self._peer_window_peer_opened = 0
        self._peer_window_unidirectional = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    def get(self, stream_id: int) -> Stream | None:
        """Return the stream if it still exists."""
        return self._streams.get(stream_id)

    # Opening

    def set_peer_parameters(
        self, *, window_local: int, window_remote: int, window_unidirectional: int, counts: tuple[int, int]
    ) -> None:
        """Take the peer's initial limits; `window_local` and `window_remote` are named from the peer's side."""
        self._peer_window_peer_opened = window_local
        self._peer_window_local_opened = window_remote
        self._peer_window_unidirectional = window_unidirectional
        for stream in self._streams.values():
            if stream.send is not None:
                self.raise_stream_limit(stream.send, self._initial_send_limit(stream.stream_id))
        for kind, count in enumerate(counts):
            self.raise_stream_count(kind, count)

    def forget_peer_limits(self) -> None:
        """The limits of a session ticket do not hold: await the real ones (RFC 9000 §7.4.1)."""
        self._local_limit = [0, 0]
        for stream in self._streams.values():
            if stream.send is not None:
                stream.send.limit = 0

    def _initial_send_limit(self, stream_id: int) -> int:
        if stream_id & 2:
            return self._peer_window_unidirectional
        is_local = stream_id & 1 == self._local_bit
        return self._peer_window_local_opened if is_local else self._peer_window_peer_opened

    def _create(self, stream_id: int) -> Stream:
        stream = Stream(stream_id)
        is_local = stream_id & 1 == self._local_bit
        if is_local or not stream_id & 2:
            stream.send = SendHalf(self, stream_id, self._initial_send_limit(stream_id), encode_varint(stream_id))
        if not is_local or not stream_id & 2:
            limits = self._limits
            stream.receive = ReceiveHalf(limits.window, limits.max_window)
        self._streams[stream_id] = stream
        return stream

    def open(self, *, unidirectional: bool) -> int | None:
        """Open a stream of ours; None while the peer's limit is reached (STREAMS_BLOCKED is sent)."""
        kind = int(unidirectional)
        number = self._local_next[kind]
        if number >= self._local_limit[kind]:
            if not self._available_wanted[kind]:
                self._available_wanted[kind] = True
                self.blocked_pending[kind] = True
            return None
        self._local_next[kind] = number + 1
        stream_id = number << 2 | kind << 1 | self._local_bit
        self._create(stream_id)
        return stream_id

    def local_limit(self, kind: int) -> int:
        """How many streams of that kind the peer lets us open in all."""
        return self._local_limit[kind]

    def raise_stream_count(self, kind: int, maximum: int) -> None:
        """Take MAX_STREAMS."""
        if maximum <= self._local_limit[kind]:
            return
        self._local_limit[kind] = maximum
        self.blocked_pending[kind] = False
        if self._available_wanted[kind]:
            self._available_wanted[kind] = False
            self._observer.on_streams_available(bool(kind))

    def for_peer(self, stream_id: int, *, receiving: bool) -> Stream | None:
        """Return the stream a frame of the peer names, opening it if need be; None if it is gone already.

        `receiving` tells which of our halves the frame is about. Raises QuicTransportError on a stream that
        cannot have that half, was never opened by us, or is beyond our limit (RFC 9000 §19.8 and others).
        """
        stream = self._streams.get(stream_id)
        kind, number = stream_id >> 1 & 1, stream_id >> 2
        if stream_id & 1 == self._local_bit:
            if number >= self._local_next[kind]:
                raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream was never opened")
            if kind and receiving:
                raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is send-only")
            return stream
        if kind and not receiving:
            raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is receive-only")
        if stream is not None or number < self._peer_next[kind]:
            return stream
        if number >= self.peer_limit[kind]:
            raise QuicTransportError(TransportErrorCode.STREAM_LIMIT_ERROR, "too many streams")
        for lower in range(self._peer_next[kind], number + 1):
            lower_id = lower << 2 | stream_id & 3
            stream = self._create(lower_id)
            self._peer_open[kind] += 1
            self._observer.on_stream_opened(lower_id)
        self._peer_next[kind] = number + 1
        return stream

    # Receiving

    def on_data(self, stream: Stream, offset: int, data: bytes, *, fin: bool) -> None:
        """Take a STREAM frame for a stream that exists."""
        half = stream.receive
        if half is None:
            raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is send-only")
        assembler = half.assembler
        end = offset + len(data)
        if fin and offset == 0 and 0 < end <= half.window.limit and half.is_untouched:
            # A small message, whole: nothing has to be put in order.
            self._flow.on_received(end)
            assembler.take_whole(data)
            half.signalled = True
            self._observer.on_stream_readable(stream.stream_id)
            return
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
            self.remove_if_done(stream)
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
            self.remove_if_done(stream)
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

    def read(self, stream_id: int, limit: int) -> bytes | None:
        """Take up to `limit` bytes: None if there are none now, empty at the end; raises StreamReset."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return b""
        half = stream.receive
        if half is None:
            raise LocalProtocolError(f"stream {stream_id} is send-only")
        if half.stop_code is not None:
            return b""
        if half.reset_code is not None:
            half.end_delivered = True
            self.remove_if_done(stream)
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
                    self.control[stream_id] = stream
            elif assembler.read_to == assembler.final_size:
                # Nothing but the end is left to tell, and a stream that is gone reads as ended.
                half.end_delivered = True
                self.remove_if_done(stream)
            return data
        if assembler.is_read:
            half.end_delivered = True
            self.remove_if_done(stream)
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
                self.control[stream_id] = stream
        half.stop_code = code
        self.remove_if_done(stream)

    # Sending

    def _sending(self, stream_id: int) -> SendHalf:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise LocalProtocolError(f"stream {stream_id} is closed")
        if stream.send is None:
            raise LocalProtocolError(f"stream {stream_id} is receive-only")
        if stream.send.stopped_code is not None:
            stream.send.stop_told = True
            self.remove_if_done(stream)
            raise StreamStopped(stream.send.stopped_code)
        return stream.send

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, *, fin: bool) -> int:
        """Accept bytes up to the send buffer's mark and return how many; see QuicConnectionCore.write."""
        half = self._sending(stream_id)
        buffer = half.buffer
        if fin and not buffer.end and type(data) is bytes and 0 < len(data) <= self._most_message and half.is_open:
            # All the stream will ever carry, in one small piece.
            buffer.write_message(data)
            self.activate(half)
            return len(data)
        if buffer.final or half.reset_code is not None:
            if fin and not data and buffer.final:
                return 0
            raise LocalProtocolError(f"stream {stream_id} has been finished or reset already")
        size = len(data)
        if size:
            room = self._limits.send_buffer - buffer.end + buffer.next_offset
            if size > room:
                half.wants_writable = True
                if room <= 0:
                    return 0
                data = bytes(memoryview(data)[:room])
                size, fin = room, False
            buffer.write(data)
        if fin:
            buffer.finish()
        self.activate(half)
        return size

    def on_sent_new(self, half: SendHalf) -> None:
        """New bytes of the stream left; the application may be waiting for room in the buffer."""
        if half.wants_writable and half.buffer.unsent <= self._limits.send_buffer >> 1:
            half.wants_writable = False
            self._observer.on_stream_writable(half.stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending: RESET_STREAM; nothing happens if that direction is over."""
        stream = self._streams.get(stream_id)
        half = stream.send if stream is not None else None
        if stream is None or half is None:
            return
        half.stop_told = True
        if half.reset_code is None and not half.is_done:
            self._reset(half, code)
        self.remove_if_done(stream)

    def _reset(self, half: SendHalf, code: int) -> None:
        half.reset_code = code
        half.reset_size = half.buffer.next_offset
        half.reset_pending = True
        half.buffer.clear()
        self.deactivate(half)
        self.want_control(half.stream_id)

    def want_control(self, stream_id: int) -> None:
        """A control frame of the stream waits to be sent."""
        self.control[stream_id] = self._streams[stream_id]

    def on_send_done(self, stream_id: int) -> None:
        """The peer has all of the stream that we will ever send."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self.remove_if_done(stream)

    def forget(self, stream_id: int) -> None:
        """The application is done with the stream: what is unfinished is abandoned with code 0."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        send, receive = stream.send, stream.receive
        if send is not None and not send.buffer.final:
            self.reset(stream_id, 0)
        elif send is not None:
            send.stop_told = True
        if receive is not None and not receive.end_delivered and receive.stop_code is None:
            self.stop(stream_id, 0)
        else:
            self.remove_if_done(stream)

    def on_reset_acked(self, stream: Stream) -> None:
        """The peer knows of our RESET_STREAM."""
        if stream.send is not None:
            stream.send.reset_acked = True
            self.remove_if_done(stream)

    def resend_reset(self, stream: Stream) -> None:
        """Our RESET_STREAM was lost."""
        if stream.send is not None and not stream.send.reset_acked:
            stream.send.reset_pending = True
            self.control[stream.stream_id] = stream

    def resend_stop(self, stream: Stream) -> None:
        """Our STOP_SENDING was lost."""
        half = stream.receive
        if half is not None and half.assembler.final_size is None:
            half.stop_pending = True
            self.control[stream.stream_id] = stream

    def resend_credit(self, stream: Stream) -> None:
        """Our MAX_STREAM_DATA was lost; the newest limit goes out again."""
        half = stream.receive
        if half is not None and half.assembler.final_size is None and stream.stream_id in self._streams:
            half.credit_pending = True
            self.control[stream.stream_id] = stream

    def block(self, half: SendHalf) -> None:
        """New data of the stream waits for credit: of its own, or of the connection."""
        self.deactivate(half)
        if half.buffer.next_offset >= half.limit:
            half.on_blocked()
        else:
            self._flow.on_blocked()
            self.blocked[half.stream_id] = half

    def unblock(self) -> None:
        """The connection has credit again: streams that waited for it may send."""
        blocked, self.blocked = self.blocked, {}
        for half in blocked.values():
            self.activate(half)

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

    def raise_stream_limit(self, half: SendHalf, maximum: int) -> None:
        """Take MAX_STREAM_DATA."""
        if maximum > half.limit:
            half.limit = maximum
            half.blocked_pending = False
            if half.buffer.has_pending:
                self.activate(half)

    def activate(self, half: SendHalf) -> None:
        """Put the stream in the sending order unless it is there."""
        urgency = half.urgency
        level = self._active[urgency]
        if half.stream_id not in level:
            level[half.stream_id] = half
            self.active_levels |= 1 << urgency

    def deactivate(self, half: SendHalf) -> None:
        """Take the stream out of the sending order."""
        urgency = half.urgency
        level = self._active[urgency]
        if half.stream_id in level:
            del level[half.stream_id]
            if not level:
                self.active_levels &= ~(1 << urgency)

    def next_active(self) -> SendHalf | None:
        """Return the stream whose turn it is to send."""
        levels = self.active_levels
        if not levels:
            return None
        return next(iter(self._active[(levels & -levels).bit_length() - 1].values()))

    @property
    def first_level(self) -> dict[int, SendHalf]:
        """The streams whose turn comes first, in order; there is at least one that has something to send."""
        levels = self.active_levels
        return self._active[(levels & -levels).bit_length() - 1]

    def drop_first(self, count: int) -> None:
        """Take the first streams of `first_level` out of the sending order."""
        levels = self.active_levels
        lowest = levels & -levels
        level = self._active[lowest.bit_length() - 1]
        if count == len(level):
            level.clear()
            self.active_levels = levels ^ lowest
        else:
            for stream_id in list(level)[:count]:
                del level[stream_id]

    @property
    def is_little_active(self) -> bool:
        """Whether so few streams have so little to send each that it may well fit into one packet."""
        levels = self.active_levels
        if not levels or levels & levels - 1:
            return False
        active = self._active[levels.bit_length() - 1]
        return len(active) <= FEW_STREAMS and next(iter(active.values())).buffer.pending_bytes <= LITTLE_DATA

    def rotate(self, half: SendHalf) -> None:
        """The stream has had its turn; it goes behind those of its urgency."""
        level = self._active[half.urgency]
        if len(level) > 1 and level.pop(half.stream_id, None) is not None:
            level[half.stream_id] = half

    def set_urgency(self, stream_id: int, urgency: int) -> None:
        """Set the sending order: 0 goes first, 7 last."""
        stream = self._streams.get(stream_id)
        if stream is None or not 0 <= urgency < URGENCIES:
            raise LocalProtocolError(f"urgency must be in 0..{URGENCIES - 1}, and stream {stream_id} open")
        half = stream.send
        if half is None:
            return
        is_active = stream_id in self._active[half.urgency]
        if is_active:
            self.deactivate(half)
        half.urgency = urgency
        if is_active:
            self.activate(half)

    # Ending

    def remove_if_done(self, stream: Stream) -> None:
        """Drop the stream if both halves are over, and let the peer open another one."""
        send, receive = stream.send, stream.receive
        if send is not None and not (send.buffer.fin_acked or send.reset_acked):
            return
        if receive is not None and not (receive.end_delivered or receive.is_done):
            return
        if send is not None and not send.is_done:
            return
        if self._streams.pop(stream.stream_id, None) is None:
            return
        if self.control:
            self.control.pop(stream.stream_id, None)
        if send is not None:
            if self.active_levels:
                self.deactivate(send)
            if self.blocked:
                self.blocked.pop(stream.stream_id, None)
        if stream.stream_id & 1 != self._local_bit:
            kind = stream.stream_id >> 1 & 1
            self._peer_open[kind] -= 1
            allowance = self._peer_allowance[kind]
            # Half of the allowance at a time, so that a MAX_STREAMS frame is not spent on every stream.
            if self._peer_next[kind] - self._peer_open[kind] + allowance - self.peer_limit[kind] > allowance >> 1:
                self.limits_pending[kind] = True

    def grant_streams(self, kind: int) -> int:
        """Raise the number of streams the peer may open in all, and return it."""
        closed = self._peer_next[kind] - self._peer_open[kind]
        self.peer_limit[kind] = max(self.peer_limit[kind], closed + self._peer_allowance[kind])
        return self.peer_limit[kind]
