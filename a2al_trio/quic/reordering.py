"""Packets that were given up and arrive after all, and what that says about their path (RFC 9002 §6.1).

A packet number is never used twice, so the acknowledgement of a packet declared lost proves that it was late. The
congestion controller can take back what it did for such losses, and the path gets more patience.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2al_trio.quic.paths import Path

__all__ = ["PACKET_THRESHOLD", "TIME_THRESHOLD", "GivenUp", "LossMemory", "Patience"]

PACKET_THRESHOLD = 3
TIME_THRESHOLD = 9 / 8
MAX_TIME_THRESHOLD = 2.0
LOSSES_UNTIL_FORGOTTEN = 16
"""After so many losses that were none of reordering, patience is back at its least (RFC 8985 §6.2 counts so)."""

MAX_REMEMBERED = 256


@attrs.define(eq=False)
class Patience:
    """How much later than others a packet of one path may arrive before it counts as lost.

    `packets` is kPacketThreshold, `time` is kTimeThreshold in round trips; they grow to what would have been enough.
    """

    packets: int = PACKET_THRESHOLD
    time: float = TIME_THRESHOLD
    _losses_left: int = 0

    def on_late(self, distance: int, round_trips: float) -> None:
        """A packet given up was acknowledged so many packets and round trips after its turn."""
        self.packets = max(self.packets, distance + 1)
        self.time = max(self.time, min(round_trips, MAX_TIME_THRESHOLD))
        self._losses_left = LOSSES_UNTIL_FORGOTTEN

    def on_lost(self) -> None:
        """Packets were given up."""
        self._losses_left -= 1
        if self._losses_left == 0:
            self.packets, self.time = PACKET_THRESHOLD, TIME_THRESHOLD


class GivenUp(NamedTuple):
    """Packets `first` to `last` of `size` bytes each, sent on `path` and declared lost at `lost_at`."""

    first: int
    last: int
    size: int
    path: Path
    sent_at: float
    lost_at: float


@attrs.define(eq=False)
class LossMemory:
    """The packets of one space that were given up last, in the order of their numbers."""

    _entries: list[GivenUp] = attrs.field(factory=list)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, packets: GivenUp) -> None:
        """Remember packets that were just given up; the oldest make room."""
        self._entries.append(packets)
        if len(self._entries) > MAX_REMEMBERED:
            del self._entries[: MAX_REMEMBERED // 2]

    def take(self, ranges: Sequence[tuple[int, int]]) -> list[GivenUp]:
        """Take out and return what the ranges of an ACK, half-open and ascending, say has arrived."""
        entries = self._entries
        begin = bisect_left(entries, ranges[0][0], key=attrgetter("last"))
        end = bisect_left(entries, ranges[-1][1], key=attrgetter("first"))
        late: list[GivenUp] = []
        left: list[GivenUp] = []
        index = 0
        for entry in entries[begin:end]:
            position = entry.first
            # The first range that may hold some of it: an ACK can have a great many.
            index = bisect_right(ranges, position, lo=index, key=itemgetter(1))
            for place in range(index, len(ranges)):
                start, stop = ranges[place]
                if start > entry.last:
                    break
                low, high = max(start, position), min(stop - 1, entry.last)
                if low > position:
                    left.append(entry._replace(first=position, last=low - 1))
                late.append(entry._replace(first=low, last=high))
                position = high + 1
            if position <= entry.last:
                left.append(entry._replace(first=position))
        if late:
            entries[begin:end] = left
        return late
