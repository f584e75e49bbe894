"""ECN on one path: marking, validation and congestion marks (RFC 9000 §13.4, RFC 3168).

Only 1-RTT packets are marked. The first few test the path; when their acknowledgements come with plausible counts the
path is capable and everything is marked, at the first doubt nothing is any more.
"""

from __future__ import annotations

import enum

import attrs

__all__ = ["ECT_0", "EcnState", "EcnValidator"]

ECT_0 = 2
TEST_PACKETS = 10


class EcnState(enum.Enum):
    """Where validation stands (RFC 9000 §A.4)."""

    TESTING = "testing"
    UNKNOWN = "waiting for the test packets"
    CAPABLE = "capable"
    FAILED = "failed"


# Looking a member up in its class costs more than all the rest of what is done for a packet here.
TESTING, CAPABLE, FAILED = EcnState.TESTING, EcnState.CAPABLE, EcnState.FAILED


@attrs.define(eq=False)
class EcnValidator:
    """Counts what we marked and what the peer reports."""

    state: EcnState = attrs.field(default=TESTING, init=False)
    codepoint: int = attrs.field(default=ECT_0, init=False)
    """What to send with."""
    _marked: int = 0
    _counts: tuple[int, int, int] = (0, 0, 0)

    @property
    def is_capable(self) -> bool:
        """Whether the path proved to carry the marks."""
        return self.state is CAPABLE

    def turn_off(self) -> None:
        """Mark nothing from here on."""
        self._enter(FAILED)

    def _enter(self, state: EcnState) -> None:
        self.state = state
        self.codepoint = ECT_0 if state is CAPABLE or state is TESTING else 0

    def on_sent(self, packets: int) -> None:
        """Note that `packets` left with our mark."""
        self._marked += packets
        if self.state is TESTING and self._marked >= TEST_PACKETS:
            self._enter(EcnState.UNKNOWN)

    def on_acked(self, counts: tuple[int, int, int] | None, newly_marked: int) -> bool:
        """Check an ACK that raised the largest acknowledged; returns whether the path reports new congestion.

        `counts` are the ECT(0), ECT(1) and CE totals it carried, `newly_marked` how many marked packets it covers.
        """
        if self.state is FAILED:
            return False
        if counts is None:
            if newly_marked:
                self.turn_off()
            return False
        before, self._counts = self._counts, counts
        ect0, ect1, ce = counts[0] - before[0], counts[1] - before[1], counts[2] - before[2]
        if ect0 + ce < newly_marked or ect1 > 0 or min(ect0, ce) < 0 or counts[0] + counts[2] > self._marked:
            self.turn_off()
            return False
        if newly_marked and self.state is not CAPABLE:
            self._enter(CAPABLE)
        return ce > 0
