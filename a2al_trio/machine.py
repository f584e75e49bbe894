"""The five verbs every pure protocol core speaks.

A machine never waits, reads a clock, draws randomness or touches a socket: the driver tells it what arrived
and what time it is, then drains what it wants sent. The driver's rule is: one input, then drain until empty or
until the socket is full, with no checkpoint in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from a2al_trio.net.datagram import Received, Transmit

__all__ = ["Entropy", "Machine"]

EventT_co = TypeVar("EventT_co", covariant=True)

Entropy = Callable[[int], bytes]
"""A source of that many unpredictable bytes; tests pass a seeded one."""


class Machine(Protocol[EventT_co]):
    """A protocol core. `now` is in seconds on one monotonic clock (`trio.current_time()` in a driver)."""

    def receive_datagrams(self, batch: Received, now: float) -> None:
        """Take the datagrams of one read; the views are only valid during the call."""

    def handle_timeout(self, now: float) -> None:
        """Do what was due at or before `now`."""

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due next, or None."""

    def datagrams_to_send(self, now: float) -> Iterable[Transmit]:
        """Yield what to send now; each buffer may be reused once the next one is asked for."""

    def next_event(self) -> EventT_co | None:
        """Take the oldest event, or None."""
