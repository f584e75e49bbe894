"""Pacing in bursts (RFC 9002 §7.7).

A token bucket that fills at the controller's rate. Its depth is two milliseconds of that rate, and never less than
ten datagrams: timers cannot be kept finer than about a millisecond anyway, and one burst is then what one GSO call
sends. On paths with a round trip shorter than the burst (loopback, a local network) pacing never binds.
"""

from __future__ import annotations

import attrs

__all__ = ["MINIMUM_BURST_DATAGRAMS", "Pacer"]

MINIMUM_BURST_DATAGRAMS = 10
BURST_SECONDS = 0.002
REFILL_SECONDS = 0.001
"""How much of the bucket must have come back before it is worth waking up."""


@attrs.define
class Pacer:
    """The token bucket of one path; sizes in bytes, times in seconds, rates in bytes per second."""

    max_datagram_size: int
    tokens: float = float("inf")
    """What was left of the bucket after the last look at it, in bytes; by now it may be more."""
    _filled_at: float = float("-inf")

    def _depth(self, rate: float) -> float:
        return max(MINIMUM_BURST_DATAGRAMS * self.max_datagram_size, rate * BURST_SECONDS)

    def _fill(self, now: float, rate: float) -> float:
        if now > self._filled_at:
            self.tokens = min(self._depth(rate), self.tokens + rate * (now - self._filled_at))
            self._filled_at = now
        return self.tokens

    def budget(self, now: float, rate: float) -> int:
        """Bytes that may leave at once; 0 when `ready_at` should be awaited."""
        tokens = self._fill(now, rate)
        return int(tokens) if tokens >= self.max_datagram_size else 0

    def spend(self, size: int) -> None:
        """Account for `size` bytes sent; a final datagram may overdraw the bucket a little."""
        self.tokens -= size

    def ready_at(self, now: float, rate: float) -> float:
        """When enough has accumulated for a burst worth waking up for."""
        worthwhile = max(2 * self.max_datagram_size, rate * REFILL_SECONDS)
        missing = min(worthwhile, self._depth(rate)) - self._fill(now, rate)
        return now + max(missing, 0.0) / rate
