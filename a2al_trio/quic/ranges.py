"""Sets of integers kept as ranges: packet numbers received, stream bytes acknowledged, lost or missing."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["RangeSet"]


class RangeSet:
    """A set of integers as sorted, disjoint, non-adjacent half-open ranges.

    Appending at the upper end, the usual case for everything in QUIC, is O(1); other changes are O(ranges).
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        """The number of ranges."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __reversed__(self) -> Iterator[tuple[int, int]]:
        return zip(reversed(self._starts), reversed(self._stops), strict=True)

    def __contains__(self, value: int) -> bool:
        index = bisect_right(self._starts, value) - 1
        return index >= 0 and value < self._stops[index]

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    @property
    def first(self) -> tuple[int, int]:
        """The lowest range; IndexError when empty."""
        return self._starts[0], self._stops[0]

    @property
    def last(self) -> tuple[int, int]:
        """The highest range; IndexError when empty."""
        return self._starts[-1], self._stops[-1]

    @property
    def size(self) -> int:
        """How many integers the set holds."""
        return sum(self._stops) - sum(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Add `start` up to but not including `stop`."""
        if start >= stop:
            return
        starts, stops = self._starts, self._stops
        if stops and start == stops[-1]:
            stops[-1] = stop
            return
        if not starts or start > stops[-1]:
            starts.append(start)
            stops.append(stop)
            return
        # The ranges from low to high (exclusive) overlap or touch the new one and melt into it.
        low = bisect_left(stops, start)
        high = bisect_right(starts, stop)
        if low < high:
            start = min(start, starts[low])
            stop = max(stop, stops[high - 1])
        starts[low:high] = [start]
        stops[low:high] = [stop]

    def grow(self) -> None:
        """Add the integer that follows the highest; IndexError when empty."""
        self._stops[-1] += 1

    def subtract(self, start: int, stop: int) -> None:
        """Remove `start` up to but not including `stop`."""
        starts, stops = self._starts, self._stops
        if start >= stop or not starts or start >= stops[-1] or stop <= starts[0]:
            return
        low = bisect_right(stops, start)
        high = bisect_left(starts, stop)
        if low >= high:
            return
        new_starts, new_stops = [], []
        if starts[low] < start:
            new_starts.append(starts[low])
            new_stops.append(start)
        if stops[high - 1] > stop:
            new_starts.append(stop)
            new_stops.append(stops[high - 1])
        starts[low:high] = new_starts
        stops[low:high] = new_stops

    def drop_first(self) -> tuple[int, int]:
        """Remove and return the lowest range; IndexError when empty."""
        return self._starts.pop(0), self._stops.pop(0)

    def drop_below(self, value: int) -> None:
        """Remove everything lower than `value`."""
        starts, stops = self._starts, self._stops
        while starts and starts[0] < value:
            if stops[0] > value:
                starts[0] = value
                return
            del starts[0]
            del stops[0]

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of `start` to `stop` (exclusive) that are not in the set."""
        index = bisect_right(self._stops, start)
        while start < stop and index < len(self._starts):
            if self._starts[index] >= stop:
                break
            if start < self._starts[index]:
                yield start, self._starts[index]
            start = self._stops[index]
            index += 1
        if start < stop:
            yield start, stop
