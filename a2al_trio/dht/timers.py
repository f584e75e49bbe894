"""Timers of a pure core: callbacks on a heap, run when the driver says that time has passed."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import attrs

__all__ = ["Timer", "Timers"]

Callback = Callable[[float], None]


@attrs.define(eq=False)
class Timer:
    """One scheduled callback; it gets the time it runs at."""

    at: float
    callback: Callback | None

    def cancel(self) -> None:
        """Do not run it; harmless afterwards."""
        self.callback = None


class Timers:
    """Callbacks in order of time; those for the same instant run in the order they were made.

    `now` is the time the core was last given.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0
        self.now = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, callback: Callback) -> Timer:
        """Run the callback at that time."""
        timer = Timer(when, callback)
        self._made += 1
        heapq.heappush(self._heap, (when, self._made, timer))
        return timer

    def next_at(self) -> float | None:
        """When the next callback is due."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Run all that is due; a callback may make new timers, which run too if they are due."""
        self.now = now
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback(now)
