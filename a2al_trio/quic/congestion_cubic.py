"""CUBIC (RFC 9438) with HyStart++ (RFC 9406): the default congestion controller."""

from __future__ import annotations

import attrs

from a2al_trio.quic.congestion import RttSample
from a2al_trio.quic.congestion_hystart import HyStart
from a2al_trio.quic.congestion_loss import LossBased

__all__ = ["Cubic"]

BETA = 0.7
C = 0.4
"""Segments per second cubed (RFC 9438 §5.1)."""
ALPHA = 3 * (1 - BETA) / (1 + BETA)
"""The Reno-friendly increase that matches Reno's average window at this BETA (RFC 9438 §4.3)."""


@attrs.define
class Cubic(LossBased):
    """CUBIC.  Windows are bytes; the curve of RFC 9438 is in segments of the path's datagram size."""

    _epoch_started_at: float | None = None
    _window_max: float = 0.0
    _window_prior: float = 0.0
    _inflection_after: float = 0.0
    _reno_window: float = 0.0
    _last_filled_at: float = 0.0
    _hystart: HyStart = attrs.Factory(HyStart)

    def _on_unused(self, now: float) -> None:
        # Time without use of the window must not move the curve (RFC 9438 §5.8).
        if self._epoch_started_at is not None:
            self._epoch_started_at += now - self._last_filled_at
            self._last_filled_at = now

    def _grow_in_slow_start(self, now: float, acked_bytes: int, sent_at: float, rtt: RttSample) -> None:
        if self.slow_start_threshold is None and self._hystart.on_acked(now, sent_at, rtt.latest):
            self.slow_start_threshold = int(self.exact_window)
            return
        self.exact_window += acked_bytes / self._hystart.growth_divisor

    def _grow_in_avoidance(self, now: float, acked_bytes: int, rtt: RttSample) -> None:
        if self._epoch_started_at is None:
            self._begin_epoch(now)
        assert self._epoch_started_at is not None
        self._last_filled_at = now
        window, elapsed = self.exact_window, now - self._epoch_started_at
        # Once the Reno estimate is back where it was before the loss it grows as Reno itself would (RFC 9438 §4.3).
        alpha = ALPHA if self._reno_window < self._window_prior else 1.0
        self._reno_window += alpha * self._max_datagram_size * acked_bytes / window
        if self._reno_window > self._curve(elapsed):
            self.exact_window = max(window, self._reno_window)
            return
        target = min(max(self._curve(elapsed + rtt.smoothed), window), 1.5 * window)
        self.exact_window += (target - window) * acked_bytes / window

    def _curve(self, elapsed: float) -> float:
        """Return W_cubic, in bytes, so long after the epoch began (RFC 9438 §4.2)."""
        return C * (elapsed - self._inflection_after) ** 3 * self._max_datagram_size + self._window_max

    def _begin_epoch(self, now: float) -> None:
        self._epoch_started_at = now
        window = self._reno_window = self.exact_window
        self._window_max = max(self._window_max, window)
        self._inflection_after = ((self._window_max - window) / self._max_datagram_size / C) ** (1 / 3)

    def _growth(self) -> tuple[float | None, float, float, float, float]:
        return self._epoch_started_at, self._window_max, self._window_prior, self._inflection_after, self._reno_window

    def _restore_growth(self, growth: object) -> None:
        assert isinstance(growth, tuple)
        (
            self._epoch_started_at, self._window_max, self._window_prior, self._inflection_after, self._reno_window
        ) = growth  # fmt: skip

    def _reduced_window(self) -> float:
        # A maximum lower than the last one means the share is shrinking: leave room for others (RFC 9438 §4.7).
        shrinking = self.exact_window < self._window_max
        self._window_prior = self.exact_window
        self._window_max = self.exact_window * (1 + BETA) / 2 if shrinking else self.exact_window
        self._epoch_started_at = None
        return self.exact_window * BETA

    def on_persistent_congestion(self, now: float) -> None:
        """See `CongestionController`."""
        LossBased.on_persistent_congestion(self, now)
        self._epoch_started_at = None
