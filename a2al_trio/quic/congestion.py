"""The congestion controller port, and NewReno (RFC 9002 §7 and appendix B).

Controllers see runs, not packets: one `on_sent` per run of datagrams and one `on_acked` per ACK frame. Rounds and
recovery periods are therefore told apart by *send times*: a packet sent before a period began belongs to the one
before it. That is the same order as packet numbers give, and needs nothing remembered per packet.

A controller class is its own factory: `QuicConfig.congestion` takes any callable from the path's datagram size to a
controller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

__all__ = [
    "CongestionController",
    "CongestionFactory",
    "NewReno",
    "RttSample",
    "WindowUse",
    "initial_window",
    "minimum_window",
]


class RttSample(Protocol):
    """Round-trip times of a path, in seconds, as the path's RTT estimator keeps them."""

    @property
    def latest(self) -> float:
        """The most recent sample."""

    @property
    def smoothed(self) -> float:
        """The moving average of RFC 9002 §5.3."""

    @property
    def minimum(self) -> float:
        """The least sample seen."""


class CongestionController(Protocol):
    """Decides how many bytes may be in flight on one path, and how fast they may leave."""

    @property
    def window(self) -> int:
        """Bytes allowed in flight."""

    @property
    def slow_start_threshold(self) -> int | None:
        """The window at which slow start ends, or None while it is unknown (or unused by the algorithm)."""

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """Bytes per second at which the window should be spread over a round trip."""

    def on_sent(self, now: float, sent_bytes: int, in_flight: int) -> None:
        """A run of packets left; `in_flight` counts it already."""

    def on_acked(self, now: float, acked_bytes: int, *, sent_at: float, in_flight: int, rtt: RttSample) -> None:
        """Packets were newly acknowledged.

        `sent_at` is when the newest of them left, `in_flight` no longer counts them.
        """

    def on_lost(self, now: float, lost_bytes: int, *, sent_at: float, in_flight: int) -> None:
        """Packets were declared lost.

        `sent_at` is when the newest of them left, `in_flight` no longer counts them.
        """

    def on_ecn_ce(self, now: float, *, sent_at: float) -> None:
        """The path marked packets as congested; `sent_at` is when the newest acknowledged packet left."""

    def on_persistent_congestion(self, now: float) -> None:
        """Everything sent over a long period was lost (RFC 9002 §7.6); called after `on_lost`."""

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Sending stopped for lack of data although the window was open."""

    def set_max_datagram_size(self, size: int) -> None:
        """The path carries datagrams of `size` bytes from now on."""


CongestionFactory = Callable[[int], CongestionController]
"""Makes the controller of a new path from its datagram size in bytes."""

LOSS_REDUCTION = 0.5
SLOW_START_PACING_GAIN = 2.0
AVOIDANCE_PACING_GAIN = 1.25


def initial_window(max_datagram_size: int) -> int:
    """The window of a new path: ten datagrams, within the bounds of RFC 9002 §7.2."""
    return min(10 * max_datagram_size, max(14720, 2 * max_datagram_size))


def minimum_window(max_datagram_size: int) -> int:
    """The least window any event may leave (RFC 9002 §7.2)."""
    return 2 * max_datagram_size


@attrs.define
class WindowUse:
    """Tells whether the sender fills its window, so that an idle window does not grow (RFC 9002 §7.8).

    Pacing and batching keep `in_flight` below the window for most of a round, so what counts is the peak of this
    round trip or the last one.
    """

    _peak: int = 0
    _last_peak: int = 0
    _round_started_at: float = float("-inf")

    def on_sent(self, in_flight: int) -> None:
        """Note the bytes in flight after sending a run."""
        self._peak = max(self._peak, in_flight)

    def on_acked(self, now: float, sent_at: float) -> None:
        """Begin a new round when a packet sent in this one is acknowledged."""
        if sent_at >= self._round_started_at:
            self._round_started_at = now
            self._last_peak, self._peak = self._peak, 0

    def fills(self, window: int, *, slow_start: bool, datagram_size: int) -> bool:
        """Whether `window` is used enough to grow; doubling in slow start leaves half of it free at first."""
        peak = max(self._peak, self._last_peak)
        return 2 * peak >= window if slow_start else peak + max(window >> 3, datagram_size) >= window


@attrs.define
class NewReno:
    """NewReno as RFC 9002 appendix B gives it: slow start, additive increase, one halving per round trip."""

    _max_datagram_size: int
    window: int = attrs.field(init=False)
    slow_start_threshold: int | None = None
    _recovery_started_at: float = float("-inf")
    _acked_in_avoidance: int = 0
    _use: WindowUse = attrs.Factory(WindowUse)

    @window.default
    def _initial_window(self) -> int:
        return initial_window(self._max_datagram_size)

    @property
    def _in_slow_start(self) -> bool:
        return self.slow_start_threshold is None or self.window < self.slow_start_threshold

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """See `CongestionController`."""
        gain = SLOW_START_PACING_GAIN if self._in_slow_start else AVOIDANCE_PACING_GAIN
        return gain * self.window / max(smoothed_rtt, 1e-6)

    def on_sent(self, now: float, sent_bytes: int, in_flight: int) -> None:
        """See `CongestionController`."""
        self._use.on_sent(in_flight)

    def on_acked(self, now: float, acked_bytes: int, *, sent_at: float, in_flight: int, rtt: RttSample) -> None:
        """See `CongestionController`."""
        self._use.on_acked(now, sent_at)
        slow_start = self._in_slow_start
        if sent_at <= self._recovery_started_at:
            return
        if not self._use.fills(self.window, slow_start=slow_start, datagram_size=self._max_datagram_size):
            return
        if slow_start:
            self.window += acked_bytes
            return
        self._acked_in_avoidance += acked_bytes
        if self._acked_in_avoidance >= self.window:
            self._acked_in_avoidance -= self.window
            self.window += self._max_datagram_size

    def on_lost(self, now: float, lost_bytes: int, *, sent_at: float, in_flight: int) -> None:
        """See `CongestionController`."""
        self._reduce(now, sent_at)

    def on_ecn_ce(self, now: float, *, sent_at: float) -> None:
        """See `CongestionController`."""
        self._reduce(now, sent_at)

    def _reduce(self, now: float, sent_at: float) -> None:
        if sent_at <= self._recovery_started_at:
            return
        self._recovery_started_at = now
        self.window = max(int(self.window * LOSS_REDUCTION), minimum_window(self._max_datagram_size))
        self.slow_start_threshold = self.window
        self._acked_in_avoidance = 0

    def on_persistent_congestion(self, now: float) -> None:
        """See `CongestionController`."""
        self.window = minimum_window(self._max_datagram_size)
        self._recovery_started_at = float("-inf")

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Nothing to do: `WindowUse` sees it."""

    def set_max_datagram_size(self, size: int) -> None:
        """See `CongestionController`."""
        self._max_datagram_size = size
        self.window = max(self.window, minimum_window(size))
