"""Whose turn it is to send: streams by urgency, those of one urgency in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2al_trio.quic.stream import SendHalf

__all__ = ["URGENCIES", "SendOrder"]

URGENCIES = 8
FEW_STREAMS = 16
LITTLE_DATA = 512
"""What is sent by the packet, not by the run: at most so many streams, and bytes of the first of them."""


class SendOrder:
    """The streams that have something to send and may; urgency 0 goes first."""

    __slots__ = ("_by_urgency", "levels", "lone")

    def __init__(self) -> None:
        self._by_urgency: list[dict[int, SendHalf]] = [{} for _ in range(URGENCIES)]
        self.levels = 0
        """Bit n is set when a stream of urgency n has something to send."""
        self.lone: SendHalf | None = None
        """The only stream that has something to send, if it was the first to come since there was none."""

    def activate(self, half: SendHalf) -> None:
        """Put the stream in the order unless it is there."""
        urgency = half.urgency
        level = self._by_urgency[urgency]
        if half.stream_id not in level:
            level[half.stream_id] = half
            if self.levels:
                self.lone = None
                self.levels |= 1 << urgency
            else:
                self.lone = half
                self.levels = 1 << urgency

    def deactivate(self, half: SendHalf) -> None:
        """Take the stream out of the order."""
        urgency = half.urgency
        level = self._by_urgency[urgency]
        if half.stream_id in level:
            self.lone = None
            del level[half.stream_id]
            if not level:
                self.levels &= ~(1 << urgency)

    def next(self) -> SendHalf | None:
        """Return the stream whose turn it is to send."""
        levels = self.levels
        if not levels:
            return None
        return next(iter(self._by_urgency[(levels & -levels).bit_length() - 1].values()))

    @property
    def first_level(self) -> dict[int, SendHalf]:
        """The streams whose turn comes first, in order; there is at least one that has something to send."""
        levels = self.levels
        return self._by_urgency[(levels & -levels).bit_length() - 1]

    def drop_first(self, count: int) -> None:
        """Take the first streams of `first_level` out of the order."""
        self.lone = None
        levels = self.levels
        lowest = levels & -levels
        level = self._by_urgency[lowest.bit_length() - 1]
        if count == len(level):
            level.clear()
            self.levels = levels ^ lowest
        else:
            for stream_id in list(level)[:count]:
                del level[stream_id]

    @property
    def is_little(self) -> bool:
        """Whether so few streams have so little to send each that it may well fit into one packet."""
        levels = self.levels
        if not levels or levels & levels - 1:
            return False
        active = self._by_urgency[levels.bit_length() - 1]
        return len(active) <= FEW_STREAMS and next(iter(active.values())).buffer.pending_bytes <= LITTLE_DATA

    def rotate(self, half: SendHalf) -> None:
        """The stream has had its turn; it goes behind those of its urgency."""
        level = self._by_urgency[half.urgency]
        if len(level) > 1 and level.pop(half.stream_id, None) is not None:
            level[half.stream_id] = half

    def set_urgency(self, half: SendHalf, urgency: int) -> None:
        """Move the stream to another urgency, below URGENCIES."""
        is_active = half.stream_id in self._by_urgency[half.urgency]
        if is_active:
            self.deactivate(half)
        half.urgency = urgency
        if is_active:
            self.activate(half)
