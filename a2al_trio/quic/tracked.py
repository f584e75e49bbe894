"""What packets carried, as far as its owner must hear of arrival or loss (RFC 9000 §13.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2al_trio.quic.acks import AckTracker
    from a2al_trio.quic.send_buffer import SendBuffer
    from a2al_trio.quic.stream import SendHalf

__all__ = ["AckSent", "CryptoSent", "OnAcked", "Resend", "StreamSent"]


class StreamSent:
    """A STREAM frame that was not part of a run."""

    __slots__ = ("fin", "half", "start", "stop")

    def __init__(self, half: SendHalf, start: int, stop: int, fin: bool) -> None:
        self.half = half
        self.start = start
        self.stop = stop
        self.fin = fin

    def on_acked(self) -> None:
        """The peer has the bytes."""
        self.half.on_range_acked(self.start, self.stop, fin=self.fin)

    def on_lost(self) -> None:
        """Send the bytes again."""
        self.half.on_range_lost(self.start, self.stop, fin=self.fin)


class CryptoSent:
    """A CRYPTO frame."""

    __slots__ = ("buffer", "start", "stop")

    def __init__(self, buffer: SendBuffer, start: int, stop: int) -> None:
        self.buffer = buffer
        self.start = start
        self.stop = stop

    def on_acked(self) -> None:
        """The peer has the bytes."""
        self.buffer.on_acked(self.start, self.stop)

    def on_lost(self) -> None:
        """Send the bytes again."""
        self.buffer.on_lost(self.start, self.stop)


class AckSent:
    """An ACK frame up to packet `largest`; once it arrived, older packets need no more acknowledging."""

    __slots__ = ("largest", "tracker")

    def __init__(self, tracker: AckTracker, largest: int) -> None:
        self.tracker = tracker
        self.largest = largest

    def on_acked(self) -> None:
        """Stop repeating what the peer knows by now."""
        self.tracker.forget_to(self.largest)

    def on_lost(self) -> None:
        """Later ACKs repeat the content."""


class Resend:
    """A frame whose loss calls `queue`, which queues it anew if its content still matters."""

    __slots__ = ("queue",)

    def __init__(self, queue: Callable[[], None]) -> None:
        self.queue = queue

    def on_acked(self) -> None:
        """Nothing more to do."""

    def on_lost(self) -> None:
        """Queue the frame again."""
        self.queue()


class OnAcked:
    """A frame whose arrival calls `done`, and whose loss calls `queue`."""

    __slots__ = ("done", "queue")

    def __init__(self, done: Callable[[], None], queue: Callable[[], None]) -> None:
        self.done = done
        self.queue = queue

    def on_acked(self) -> None:
        """Report arrival."""
        self.done()

    def on_lost(self) -> None:
        """Queue the frame again."""
        self.queue()
