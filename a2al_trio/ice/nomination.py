"""When the controlling agent nominates which pair (RFC 8445 §8.1.1, regular nomination).

Direct pairs come before relayed ones. A pair that works is nominated at once if nothing better is still being checked,
else after a moment's patience, which is longer for relays. An unanswered nomination moves on to the next pair.
"""

from __future__ import annotations

import attrs

from a2al_trio.ice.candidate import CandidateType
from a2al_trio.ice.consent import Consent
from a2al_trio.ice.pairs import Checklist, Pair, PairState

__all__ = ["Nomination"]


@attrs.define(eq=False)
class Nomination:
    """The nomination under way, and the patience in seconds before the next."""

    direct_patience: float
    relay_patience: float
    current: Pair | None = None

    def abandon(self, pair: Pair | None = None) -> None:
        """Forget the nomination under way, if it is of `pair` or of any by default."""
        if pair is None or pair is self.current:
            self.current = None

    def confirmed(self, pair: Pair) -> None:
        """The peer answered a nomination."""
        self.abandon(pair)

    def decide(self, checklist: Checklist, selected: Pair | None, consent: Consent | None, now: float) -> Pair | None:
        """Return a pair to nominate now; it counts as being nominated from then on."""
        if self.current is not None:
            return None
        pair = self._wanted(checklist, selected, consent, now)
        if pair is None or now < self._ready_at(checklist, pair):
            return None
        self.current = pair
        return pair

    def decide_at(self, checklist: Checklist, selected: Pair | None) -> float | None:
        """When patience with the best pair so far ends."""
        if self.current is not None or not checklist.controlling:
            return None
        best = self._best(checklist)
        if best is None or (selected is not None and (best.is_relayed or not selected.is_relayed)):
            return None
        return self._ready_at(checklist, best)

    @staticmethod
    def _best(checklist: Checklist) -> Pair | None:
        return checklist.best(pair for pair in checklist if pair.state is PairState.SUCCEEDED)

    def _wanted(self, checklist: Checklist, selected: Pair | None, consent: Consent | None, now: float) -> Pair | None:
        if selected is None or consent is None:
            return self._best(checklist)
        if now >= consent.silent_at:
            fresh = [
                pair
                for pair in checklist
                if pair.state is PairState.SUCCEEDED and pair.valid_since > consent.confirmed_at
            ]
            if fresh:
                return checklist.best(fresh)
        best = self._best(checklist)
        return best if best is not None and selected.is_relayed and not best.is_relayed else None

    def _ready_at(self, checklist: Checklist, pair: Pair) -> float:
        better = [
            other
            for other in checklist
            if other.is_pending
            and other is not pair
            and checklist.best((other, pair)) is other
            # A source seen on another base is hardly worth waiting for: the peer's NAT made that port for it alone.
            and (other.checked_by_peer or other.remote.type is not CandidateType.PEER_REFLEXIVE)
        ]
        if not better:
            return pair.valid_since
        if not pair.is_relayed:
            return pair.valid_since + self.direct_patience
        # What is better has been tried for a while already, and a slow network needs more time to answer.
        patience = min(max(1.5 * pair.round_trip, 0.05), 1.0) if pair.round_trip else self.relay_patience
        tried_since = max(min(other.checked_at or pair.valid_since, pair.valid_since) for other in better)
        return max(pair.valid_since, tried_since + patience)
