"""The checklist: pairs of a local base and a remote candidate, in the order they are to be checked (RFC 8445 §6.1.2).

Only what can send is paired: host and relayed candidates. A server-reflexive candidate sends from its base, so its
pairs would be pruned at once (RFC 8445 §6.1.2.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Final

import attrs

from a2al_trio.ice.candidate import Candidate, CandidateType
from a2al_trio.net.address import SocketAddress

__all__ = ["MAX_PAIRS", "MAX_REMOTE_CANDIDATES", "Checklist", "Pair", "PairState", "pair_priority"]

MAX_REMOTE_CANDIDATES: Final = 64
MAX_PAIRS: Final = 200


class PairState(Enum):
    """RFC 8445 §6.1.2.6."""

    FROZEN = auto()
    WAITING = auto()
    IN_PROGRESS = auto()
    SUCCEEDED = auto()
    FAILED = auto()


def pair_priority(controlling: int, controlled: int) -> int:
    """Return the priority of a pair from those of its candidates (RFC 8445 §6.1.2.3)."""
    return (min(controlling, controlled) << 32) + 2 * max(controlling, controlled) + (controlling > controlled)


@attrs.define(eq=False)
class Pair:
    """One pair and what is known of it.

    `mapped` is where the peer saw our check come from. `checked_by_peer` says that an ordinary check of the peer came,
    `nominated_by_peer` that the controlling peer asked for this pair, perhaps before our own check succeeded.
    `checked_at` is when its first check was sent; `round_trip` is of the last answered check, in seconds.
    """

    local: Candidate
    remote: Candidate
    state: PairState = PairState.FROZEN
    mapped: SocketAddress | None = None
    checked_by_peer: bool = False
    nominated_by_peer: bool = False
    checked_at: float = 0.0
    valid_since: float = 0.0
    round_trip: float = 0.0

    @property
    def is_relayed(self) -> bool:
        """Whether data on this pair goes through a TURN server on either side."""
        return CandidateType.RELAYED in (self.local.type, self.remote.type)

    @property
    def foundation(self) -> tuple[str, str]:
        """Pairs of one foundation are likely to work or fail alike."""
        return self.local.foundation, self.remote.foundation

    @property
    def is_pending(self) -> bool:
        """Whether its check is still to come or under way."""
        return self.state in (PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS)

    def __str__(self) -> str:
        return f"{self.local.type} {self.local.address} -> {self.remote.type} {self.remote.address}"


@attrs.define(eq=False)
class Checklist:
    """All pairs of the one stream and component, and the queue of triggered checks."""

    controlling: bool
    locals: dict[SocketAddress, Candidate] = attrs.Factory(dict)
    remotes: dict[SocketAddress, Candidate] = attrs.Factory(dict)
    _pairs: dict[tuple[SocketAddress, SocketAddress], Pair] = attrs.Factory(dict)
    _triggered: deque[Pair] = attrs.Factory(deque)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def priority(self, pair: Pair) -> int:
        """Return the priority of a pair in the role we have now."""
        local, remote = pair.local.priority, pair.remote.priority
        return pair_priority(local, remote) if self.controlling else pair_priority(remote, local)

    def add_local(self, candidate: Candidate) -> None:
        """Add something to send from and pair it."""
        self.locals[candidate.address] = candidate
        for remote in list(self.remotes.values()):
            self._add_pair(candidate, remote)

    def remove_local(self, base: SocketAddress, *, keep: Pair | None) -> list[Pair]:
        """Forget a base and its pairs, all but one; returns them all."""
        self.locals.pop(base, None)
        gone = [pair for pair in self if pair.local.address == base]
        for pair in gone:
            if pair is not keep:
                del self._pairs[base, pair.remote.address]
        return gone

    def add_remote(self, candidate: Candidate) -> None:
        """Add a candidate of the peer; a signalled one takes the place of one learned from a check."""
        known = self.remotes.get(candidate.address)
        if known is not None:
            if known.type is CandidateType.PEER_REFLEXIVE and candidate.type is not known.type:
                self._replace_remote(candidate)
            return
        if len(self.remotes) >= MAX_REMOTE_CANDIDATES:
            return
        self.remotes[candidate.address] = candidate
        for local in list(self.locals.values()):
            self._add_pair(local, candidate)

    def _replace_remote(self, candidate: Candidate) -> None:
        self.remotes[candidate.address] = candidate
        for pair in self:
            if pair.remote.address == candidate.address:
                pair.remote = candidate

    def _add_pair(self, local: Candidate, remote: Candidate) -> None:
        one, other = local.address, remote.address
        if one.is_ipv6 != other.is_ipv6 or (one, other) in self._pairs or len(self._pairs) >= MAX_PAIRS:
            return
        pair = Pair(local, remote)
        # RFC 8838 §12: of several new pairs of one foundation only the first is checked ahead of its turn.
        pair.state = PairState.WAITING
        for known in self:
            busy = known.state in (PairState.WAITING, PairState.IN_PROGRESS)
            if known.foundation == pair.foundation and busy:
                pair.state = PairState.FROZEN
        self._pairs[one, other] = pair

    def get(self, base: SocketAddress, remote: SocketAddress) -> Pair | None:
        """Return the pair of a base and a remote address."""
        return self._pairs.get((base, remote))

    def trigger(self, pair: Pair) -> None:
        """Check a pair ahead of all others (RFC 8445 §7.3.1.4)."""
        pair.state = PairState.WAITING
        if pair not in self._triggered:
            self._triggered.append(pair)

    def next_to_check(self) -> Pair | None:
        """Take the pair whose turn it is (RFC 8445 §6.1.4.2)."""
        while self._triggered:
            pair = self._triggered.popleft()
            if pair.state is PairState.WAITING:
                return pair
        for state in (PairState.WAITING, PairState.FROZEN):
            ready = [pair for pair in self if pair.state is state]
            if ready:
                return max(ready, key=self.priority)
        return None

    @property
    def has_work(self) -> bool:
        """Whether `next_to_check` would return a pair."""
        return any(pair.state in (PairState.WAITING, PairState.FROZEN) for pair in self)

    def unfreeze(self, foundation: tuple[str, str]) -> None:
        """A pair of this foundation worked: its siblings are worth checking now (RFC 8445 §7.2.5.3.3)."""
        for pair in self:
            if pair.state is PairState.FROZEN and pair.foundation == foundation:
                pair.state = PairState.WAITING

    def best(self, pairs: Iterable[Pair]) -> Pair | None:
        """Return the pair to prefer: direct ones before relayed ones, then by priority."""
        return max(pairs, key=lambda pair: (not pair.is_relayed, self.priority(pair)), default=None)

    def stop(self) -> None:
        """Give up every check that has not succeeded; an inbound check brings a pair back."""
        self._triggered.clear()
        for pair in self:
            if pair.is_pending:
                pair.state = PairState.FAILED

    def revive(self, pairs: Iterable[Pair]) -> None:
        """Check these pairs afresh."""
        for pair in pairs:
            if pair.state in (PairState.FAILED, PairState.SUCCEEDED):
                pair.state = PairState.WAITING
