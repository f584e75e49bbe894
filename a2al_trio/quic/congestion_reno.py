"""NewReno (RFC 9002 §7 and appendix B)."""

from __future__ import annotations

import attrs

from a2al_trio.quic.congestion import RttSample
from a2al_trio.quic.congestion_loss import LossBased

__all__ = ["NewReno"]

LOSS_REDUCTION = 0.5


@attrs.define
class NewReno(LossBased):
    """NewReno: slow start, one datagram more per round trip, one halving per round trip with losses."""

    def _grow_in_avoidance(self, now: float, acked_bytes: int, rtt: RttSample) -> None:
        self.exact_window += self._max_datagram_size * acked_bytes / self.exact_window

    def _reduced_window(self) -> float:
        return self.exact_window * LOSS_REDUCTION
