"""The streams of a connection: finding, opening and removing them (RFC 9000 §2, §3).

A `Stream` has up to two halves. A half ends on the wire and in the eyes of the application; a stream is removed
once both halves ended in both senses, and only then may the peer open another one in its place.

How many there may be is up to stream_counts.py, what arrives and is read to stream_reading.py, what is written to
stream_writing.py, and which stream sends next to stream_order.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.flow import ConnectionFlow
from a2al_trio.quic.stream import ReceiveHalf, SendHalf, Stream
from a2al_trio.quic.stream_counts import StreamCounts
from a2al_trio.quic.stream_order import SendOrder
from a2al_trio.quic.stream_reading import StreamReading
from a2al_trio.quic.stream_writing import StreamWriting
from a2al_trio.quic.varint import encode_varint

__all__ = ["StreamLimits", "StreamObserver", "StreamTable"]


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
    """All streams of a connection, by ID."""

    def __init__(
        self, *, is_client: bool, limits: StreamLimits, flow: ConnectionFlow, observer: StreamObserver
    ) -> None:
        self._local_bit = 0 if is_client else 1
        self._window, self._max_window = limits.window, limits.max_window
        self._observer = observer
        self.by_id: dict[int, Stream] = {}
        self.control: dict[int, Stream] = {}
        """Streams with a frame to send that carries no data."""
        self.counts = StreamCounts(
            bidirectional=limits.bidirectional,
            unidirectional=limits.unidirectional,
            on_available=observer.on_streams_available,
        )
        self.order = SendOrder()
        self.reading = StreamReading(self, flow, observer)
        self.writing = StreamWriting(self, flow, observer, send_buffer=limits.send_buffer)
        self._send_limits = [0, 0, 0, 0]
        """What we may send on a new stream, by the two bits of its ID that tell its kind (RFC 9000 §2.1)."""

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self.by_id.values())

    # The peer's transport parameters

    def set_peer_parameters(
        self, *, window_local: int, window_remote: int, window_unidirectional: int, counts: tuple[int, int]
    ) -> None:
        """Take the peer's initial limits; `window_local` and `window_remote` are named from the peer's side."""
        ours, theirs = self._local_bit, self._local_bit ^ 1
        self._send_limits[ours], self._send_limits[theirs] = window_remote, window_local
        self._send_limits[2 | ours] = window_unidirectional
        for stream in self.by_id.values():
            if stream.send is not None:
                self.writing.raise_limit(stream.send, self._send_limits[stream.stream_id & 3])
        for kind, count in enumerate(counts):
            self.counts.raise_local_limit(kind, count)

    def forget_peer_limits(self) -> None:
        """The limits of a session ticket do not hold: await the real ones (RFC 9000 §7.4.1)."""
        self.counts.forget_local_limits()
        for stream in self.by_id.values():
            if stream.send is not None:
                stream.send.limit = 0

    # Opening

    def open(self, *, unidirectional: bool) -> int | None:
        """Open a stream of ours; None while the peer's limit is reached (STREAMS_BLOCKED is sent)."""
        kind = int(unidirectional)
        number = self.counts.take_local(kind)
        if number is None:
            return None
        stream_id = number << 2 | kind << 1 | self._local_bit
        self._create(stream_id)
        return stream_id

    def for_peer(self, stream_id: int, *, receiving: bool) -> Stream | None:
        """Return the stream a frame of the peer names, opening it if need be; None if it is gone already.

        `receiving` tells which of our halves the frame is about. Raises QuicTransportError on a stream that
        cannot have that half, was never opened by us, or is beyond our limit (RFC 9000 §19.8 and others).
        """
        kind, number = stream_id >> 1 & 1, stream_id >> 2
        if stream_id & 1 == self._local_bit:
            if number >= self.counts.local_next[kind]:
                raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream was never opened")
            if kind and receiving:
                raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is send-only")
            return self.by_id.get(stream_id)
        if kind and not receiving:
            raise QuicTransportError(TransportErrorCode.STREAM_STATE_ERROR, "stream is receive-only")
        if number < self.counts.peer_next[kind]:
            return self.by_id.get(stream_id)
        stream = None
        for lower in self.counts.open_to(kind, number):
            lower_id = lower << 2 | stream_id & 3
            stream = self._create(lower_id)
            self._observer.on_stream_opened(lower_id)
        return stream

    def _create(self, stream_id: int) -> Stream:
        send = receive = None
        is_bidirectional, is_local = not stream_id & 2, stream_id & 1 == self._local_bit
        if is_bidirectional or is_local:
            send = SendHalf(self.writing, stream_id, self._send_limits[stream_id & 3], encode_varint(stream_id))
        if is_bidirectional or not is_local:
            receive = ReceiveHalf(self._window, self._max_window)
        stream = self.by_id[stream_id] = Stream(stream_id, send, receive)
        return stream

    # Ending

    def forget(self, stream_id: int) -> None:
        """The application is done with the stream: what is unfinished is abandoned with code 0."""
        stream = self.by_id.get(stream_id)
        if stream is None:
            return
        send, receive = stream.send, stream.receive
        if send is not None and not send.buffer.final:
            self.writing.reset(stream_id, 0)
        elif send is not None:
            send.stop_told = True
            if send.stopped_code is not None:
                self.remove_if_done(stream)
        if receive is not None and not receive.end_delivered and receive.stop_code is None:
            self.reading.stop(stream_id, 0)

    def remove_if_done(self, stream: Stream) -> None:
        """Drop the stream if both halves are over, and let the peer open another one."""
        send, receive = stream.send, stream.receive
        if send is not None and not (send.buffer.fin_acked or send.reset_acked):
            return
        if receive is not None and not (receive.end_delivered or receive.is_done):
            return
        if send is not None and not send.is_done:
            return
        if self.by_id.pop(stream.stream_id, None) is None:
            return
        if self.control:
            self.control.pop(stream.stream_id, None)
        if send is not None:
            if self.order.levels:
                self.order.deactivate(send)
            if self.writing.blocked:
                self.writing.blocked.pop(stream.stream_id, None)
        if stream.stream_id & 1 != self._local_bit:
            self.counts.on_peer_stream_over(stream.stream_id >> 1 & 1)
