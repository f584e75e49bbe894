"""One stream: its two halves and what each of them is waiting for (RFC 9000 §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.assembler import Assembler
from a2al_trio.quic.flow import ReceiveWindow
from a2al_trio.quic.send_buffer import SendBuffer

if TYPE_CHECKING:
    from a2al_trio.quic.stream_writing import StreamWriting

__all__ = ["DEFAULT_URGENCY", "ReceiveHalf", "SendHalf", "Stream"]

DEFAULT_URGENCY = 3
"""Streams of a lower urgency number go first; equal ones take turns."""


class SendHalf:
    """Our sending direction of a stream (RFC 9000 §3.1).

    It does not refer to its `Stream`: without cycles, streams that come and go cost the garbage collector nothing.
    """

    __slots__ = (
        "_blocked_at",
        "blocked_pending",
        "buffer",
        "id_field",
        "limit",
        "reset_acked",
        "reset_code",
        "reset_pending",
        "reset_size",
        "stop_told",
        "stopped_code",
        "stream_id",
        "urgency",
        "wants_writable",
        "writing",
    )

    def __init__(self, writing: StreamWriting, stream_id: int, limit: int, id_field: bytes) -> None:
        self.writing = writing
        self.stream_id = stream_id
        self.urgency = DEFAULT_URGENCY
        self.buffer = SendBuffer()
        self.limit = limit
        self.id_field = id_field
        self.reset_code: int | None = None
        self.reset_size = 0
        self.reset_pending = False
        self.reset_acked = False
        self.stopped_code: int | None = None
        self.stop_told = False
        self.wants_writable = False
        self.blocked_pending = False
        self._blocked_at = -1

    @property
    def is_done(self) -> bool:
        """Whether the peer has everything there will ever be, and the application knows if the peer stopped it."""
        if self.reset_code is None:
            buffer = self.buffer
            return buffer.fin_acked and buffer.acked_to == buffer.end
        return self.reset_acked and (self.stopped_code is None or self.stop_told)

    def on_range_acked(self, start: int, stop: int, *, fin: bool = False) -> None:
        """The peer has these bytes."""
        if self.reset_code is None:
            buffer = self.buffer
            buffer.on_acked(start, stop, fin=fin)
            if buffer.is_finished:
                self.writing.on_send_done(self.stream_id)

    def on_range_lost(self, start: int, stop: int, *, fin: bool = False) -> None:
        """These bytes must be sent again."""
        if self.reset_code is None:
            self.buffer.on_lost(start, stop, fin=fin)
            self.writing.order.activate(self)

    def on_blocked(self) -> None:
        """Data waits for the peer's credit: tell it once per limit (STREAM_DATA_BLOCKED)."""
        if self._blocked_at != self.limit:
            self._blocked_at = self.limit
            self.blocked_pending = True
            self.writing.want_control(self.stream_id)


class ReceiveHalf:
    """Our receiving direction of a stream (RFC 9000 §3.2).

    A message that arrives whole, as small ones do, is all there will be: it is kept as `message` until it is read, and
    needs neither an assembler nor more window. These are made for whoever asks.
    """

    __slots__ = (
        "_assembler",
        "_max_window",
        "_window",
        "credit_pending",
        "end_delivered",
        "first_window",
        "is_untouched",
        "message",
        "message_size",
        "reset_code",
        "signalled",
        "stop_code",
        "stop_pending",
    )

    def __init__(self, window: int, max_window: int) -> None:
        self.first_window = window
        self._max_window = max_window
        self._assembler: Assembler | None = None
        self._window: ReceiveWindow | None = None
        self.is_untouched = True
        """Whether nothing has arrived yet, and the application wants what will."""
        self.message: bytes | None = None
        self.message_size = 0
        self.reset_code: int | None = None
        self.stop_code: int | None = None
        self.stop_pending = False
        self.credit_pending = False
        self.signalled = False
        self.end_delivered = False

    @property
    def assembler(self) -> Assembler:
        """What has arrived."""
        if self._assembler is None:
            self._assembler = Assembler()
            self.is_untouched = False
            if self.message_size:
                self._assembler.take_whole(self.message, self.message_size)
                self.message = None
        return self._assembler

    @property
    def window(self) -> ReceiveWindow:
        """How much may arrive."""
        if self._window is None:
            self._window = ReceiveWindow(self.first_window, self._max_window)
        return self._window

    @property
    def is_read(self) -> bool:
        """Whether everything up to the end of the stream has arrived and was taken."""
        return self.end_delivered or (self._assembler is not None and self._assembler.is_read)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come and the application knows, or does not care."""
        if self.stop_code is not None:
            return self.assembler.final_size is not None
        return self.end_delivered


class Stream:
    """One stream; `send` or `receive` is None where the stream has no such direction."""

    __slots__ = ("receive", "send", "stream_id")

    def __init__(self, stream_id: int, send: SendHalf | None, receive: ReceiveHalf | None) -> None:
        self.stream_id = stream_id
        self.send = send
        self.receive = receive
