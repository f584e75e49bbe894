"""HyStart++: leave slow start when the round-trip time rises, before packets are lost (RFC 9406)."""

from __future__ import annotations

import attrs

__all__ = ["HyStart"]

MIN_RTT_THRESHOLD = 0.004
MAX_RTT_THRESHOLD = 0.016
MIN_RTT_DIVISOR = 8
RTT_SAMPLES = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5
INFINITE = float("inf")


@attrs.define
class HyStart:
    """Watches round-trip times during slow start.

    One ACK may stand for a whole batch of packets here, so it takes longer to gather the RTT_SAMPLES of a round; a
    round that ends with fewer is not judged.
    """

    _round_started_at: float = -INFINITE
    _last_round_rtt: float = INFINITE
    _round_rtt: float = INFINITE
    _samples: int = 0
    _css_baseline: float | None = None
    _css_rounds: int = 0

    @property
    def growth_divisor(self) -> int:
        """Slow start grows by acked bytes over this: 1, or 4 in conservative slow start."""
        return 1 if self._css_baseline is None else CSS_GROWTH_DIVISOR

    def on_acked(self, now: float, sent_at: float, latest_rtt: float) -> bool:
        """Take one RTT sample; True when slow start should end for good."""
        if sent_at >= self._round_started_at and self._end_round(now):
            return True
        self._round_rtt = min(self._round_rtt, latest_rtt)
        self._samples += 1
        if self._samples < RTT_SAMPLES or INFINITE in (self._round_rtt, self._last_round_rtt):
            return False
        if self._css_baseline is None:
            allowance = max(MIN_RTT_THRESHOLD, min(self._last_round_rtt / MIN_RTT_DIVISOR, MAX_RTT_THRESHOLD))
            if self._round_rtt >= self._last_round_rtt + allowance:
                self._css_baseline = self._round_rtt
                self._css_rounds = 0
        elif self._round_rtt < self._css_baseline:
            # The rise was noise: resume ordinary slow start (RFC 9406 §4.2).
            self._css_baseline = None
        return False

    def _end_round(self, now: float) -> bool:
        self._round_started_at = now
        self._last_round_rtt, self._round_rtt = self._round_rtt, INFINITE
        self._samples = 0
        if self._css_baseline is None:
            return False
        self._css_rounds += 1
        return self._css_rounds >= CSS_ROUNDS
