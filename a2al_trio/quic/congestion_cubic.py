"""CUBIC (RFC 9438) with HyStart++ (RFC 9406): the default congestion controller."""

from __future__ import annotations

import attrs

from a2al_trio.quic.congestion import (
    AVOIDANCE_PACING_GAIN,
    SLOW_START_PACING_GAIN,
    RttSample,
    WindowUse,
    initial_window,
    minimum_window,
)
from a2al_trio.quic.congestion_hystart import HyStart

__all__ = ["Cubic"]

BETA = 0.7
C = 0.4
"""Segments per second cubed (RFC 9438 §5.1)."""
ALPHA = 3 * (1 - BETA) / (1 + BETA)
"""The Reno-friendly increase that matches Reno's average window at this BETA (RFC 9438 §4.3)."""


@attrs.define
class Cubic:
    """CUBIC.  Windows are bytes; the curve of RFC 9438 is in segments of the path's datagram size."""

    _max_datagram_size: int
    window: int = attrs.field(init=False)
    slow_start_threshold: int | None = None
    _recovery_started_at: float = float("-inf")
    _epoch_started_at: float | None = None
    _epoch_window: float = 0.0
    _window_max: float = 0.0
    _window_prior: float = 0.0
    _inflection_after: float = 0.0
    _reno_window: float = 0.0
    _fraction: float = 0.0
    _last_filled_at: float = 0.0
    _hystart: HyStart = attrs.Factory(HyStart)
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
        if sent_at <= self._recovery_started_at:
            return
        slow_start = self._in_slow_start
        if not self._use.fills(self.window, slow_start=slow_start, datagram_size=self._max_datagram_size):
            self._skip_idle_time(now)
        elif slow_start:
            self._grow_in_slow_start(now, acked_bytes, sent_at, rtt)
        else:
            self._grow_in_avoidance(now, acked_bytes, rtt)
            self._last_filled_at = now

    def _skip_idle_time(self, now: float) -> None:
        """Time without use of the window must not move the curve (RFC 9438 §5.8)."""
        if self._epoch_started_at is not None:
            self._epoch_started_at += now - self._last_filled_at
            self._last_filled_at = now

    def _grow_in_slow_start(self, now: float, acked_bytes: int, sent_at: float, rtt: RttSample) -> None:
        if self.slow_start_threshold is None and self._hystart.on_acked(now, sent_at, rtt.latest):
            self.slow_start_threshold = self.window
            return
        self.window += acked_bytes // self._hystart.growth_divisor

    def _grow_in_avoidance(self, now: float, acked_bytes: int, rtt: RttSample) -> None:
        if self._epoch_started_at is None:
            self._begin_epoch(now)
        assert self._epoch_started_at is not None
        size = self._max_datagram_size
        elapsed = now - self._epoch_started_at + rtt.smoothed
        target = (C * (elapsed - self._inflection_after) ** 3) * size + self._window_max
        target = min(max(target, self.window), 1.5 * self.window)
        # Once the Reno estimate is back where it was before the loss it grows as Reno itself would (RFC 9438 §4.3).
        alpha = ALPHA if self._reno_window < self._window_prior else 1.0
        self._reno_window += alpha * size * acked_bytes / self.window
        if self._reno_window > target:
            self.window = max(self.window, int(self._reno_window))
            return
        self._fraction += (target - self.window) * acked_bytes / self.window
        whole = int(self._fraction)
        self._fraction -= whole
        self.window += whole

    def _begin_epoch(self, now: float) -> None:
        self._epoch_started_at = self._last_filled_at = now
        self._epoch_window = self._reno_window = float(self.window)
        self._window_max = max(self._window_max, self._epoch_window)
        self._inflection_after = ((self._window_max - self._epoch_window) / self._max_datagram_size / C) ** (1 / 3)

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
        # A maximum lower than the last one means the share is shrinking: leave room for others (RFC 9438 §4.7).
        shrinking = self.window < self._window_max
        self._window_prior = float(self.window)
        self._window_max = self.window * (1 + BETA) / 2 if shrinking else float(self.window)
        self.window = max(int(self.window * BETA), minimum_window(self._max_datagram_size))
        self.slow_start_threshold = self.window
        self._epoch_started_at = None
        self._fraction = 0.0

    def on_persistent_congestion(self, now: float) -> None:
        """See `CongestionController`."""
        self.window = minimum_window(self._max_datagram_size)
        self._recovery_started_at = float("-inf")
        self._epoch_started_at = None

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Nothing to do: `WindowUse` sees it."""

    def set_max_datagram_size(self, size: int) -> None:
        """See `CongestionController`."""
        self._max_datagram_size = size
        self.window = max(self.window, minimum_window(size))
