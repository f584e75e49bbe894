"""What we know of how peers answer us (spec 03 §5): failures, back-off, round trip. Bounded, oldest forgotten first."""

from __future__ import annotations

import enum
from collections import OrderedDict

import attrs

__all__ = ["HealthBook", "HealthState", "PeerHealth"]

BACKOFF_BASE = 30.0
BACKOFF_MAX_SHIFT = 10
BAD_AFTER = 2


class HealthState(enum.Enum):
    """How a peer does."""

    GOOD = "good"
    UNKNOWN = "unknown"
    BAD = "bad"


@attrs.define(eq=False)
class PeerHealth:
    """One peer's history; `failures` counts those in a row."""

    failures: int = 0
    attempts: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    next_retry: float | None = None
    round_trip: float | None = None

    @property
    def state(self) -> HealthState:
        """Bad after two failures in a row, good after a success."""
        if self.failures >= BAD_AFTER:
            return HealthState.BAD
        return HealthState.UNKNOWN if self.last_success is None else HealthState.GOOD


class HealthBook:
    """The health of at most `limit` peers, by node id number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._peers: OrderedDict[int, PeerHealth] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, key: int) -> PeerHealth | None:
        """The history of a peer, if there is one."""
        return self._peers.get(key)

    def state(self, key: int) -> HealthState:
        """The peer's state."""
        peer = self._peers.get(key)
        return HealthState.UNKNOWN if peer is None else peer.state

    def _touch(self, key: int) -> PeerHealth:
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = PeerHealth()
            if len(self._peers) > self._limit:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(key)
        peer.attempts += 1
        return peer

    def success(self, key: int, now: float, round_trip: float) -> None:
        """The peer answered one of our requests, signed by itself."""
        peer = self._touch(key)
        peer.failures = 0
        peer.last_success = now
        peer.next_retry = None
        peer.round_trip = round_trip

    def failure(self, key: int, now: float) -> PeerHealth:
        """A request to the peer really went unanswered; the back-off doubles from 30 s."""
        peer = self._touch(key)
        peer.failures += 1
        peer.last_failure = now
        peer.next_retry = now + BACKOFF_BASE * 2.0 ** min(peer.failures - 1, BACKOFF_MAX_SHIFT)
        return peer

    def condemn(self, key: int) -> None:
        """Count a known peer as bad: it is unreachable by punching, too (spec 03 §15.3)."""
        peer = self._peers.get(key)
        if peer is not None:
            peer.failures = max(peer.failures, BAD_AFTER)

    def may_contact(self, key: int, now: float) -> bool:
        """Whether the peer's back-off is over."""
        peer = self._peers.get(key)
        return peer is None or peer.next_retry is None or peer.next_retry <= now
