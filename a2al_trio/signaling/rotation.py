"""Which hubs a callee stays registered at: two slots over an ordered list of candidates (spec 06 §7.1). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["SLOTS", "Rotation"]

SLOTS: Final = 2
_FIRST_COOLING: Final = 15.0
_LONGEST_COOLING: Final = 300.0
_FIRST_TRIES: Final = 3
_RECONNECT_TRIES: Final = 3
_FIRST_PAUSE: Final = 5.0
_RECONNECT_PAUSE: Final = 2.0
_SHORT_LIFE: Final = 10.0


@attrs.define(eq=False)
class Rotation:
    """The state the slots share. Times are in seconds on the caller's monotonic clock."""

    candidates: tuple[str, ...] = ()
    active: set[str] = attrs.Factory(set)
    _claimed: set[str] = attrs.Factory(set)
    _cooling: dict[str, float] = attrs.Factory(dict)
    _failures: dict[str, int] = attrs.Factory(dict)
    _rounds: dict[str, int] = attrs.Factory(dict)

    def set_candidates(self, hubs: Sequence[str]) -> None:
        """Replace the list; first-seen order, duplicates removed."""
        self.candidates = tuple(dict.fromkeys(hubs))

    def claim(self, now: float) -> str | None:
        """Take the first hub no slot has and that is not cooling."""
        for hub in self.candidates:
            if hub not in self._claimed and self._cooling.get(hub, 0.0) <= now:
                self._claimed.add(hub)
                self._failures[hub] = 0
                return hub
        return None

    def next_claim_at(self, now: float) -> float:
        """When a cooling hub becomes available again; infinity if none is cooling."""
        waiting = (at for hub, at in self._cooling.items() if hub in self.candidates and hub not in self._claimed)
        return min((at for at in waiting if at > now), default=float("inf"))

    def connected(self, hub: str) -> None:
        """All registrations were sent."""
        self.active.add(hub)

    def lost(self, hub: str, now: float, *, connected_at: float | None) -> float | None:
        """An attempt failed (`connected_at` None) or a connection ended; returns the pause before the next attempt.

        None releases the hub: the slot picks anew, and leaves this one alone for a while, which doubles up to 5 min
        as the hub goes on failing (spec 06 D7). A connection that stood for a while is redialled at once; one that
        ended right after it began counts as a failure, so that a hub which accepts and closes is not hammered.
        """
        if hub not in self.candidates:
            self._release(hub)
            return None
        if connected_at is not None and now - connected_at >= _SHORT_LIFE:
            self._failures[hub] = 0
            self._rounds.pop(hub, None)
            return 0.0
        self._failures[hub] += 1
        tries, pause = _FIRST_TRIES, _FIRST_PAUSE
        if hub in self.active:
            tries, pause = _RECONNECT_TRIES, _RECONNECT_PAUSE * self._failures[hub]
        if self._failures[hub] < tries:
            return pause
        rounds = self._rounds.get(hub, 0)
        self._rounds[hub] = rounds + 1
        self._cooling[hub] = now + min(_LONGEST_COOLING, _FIRST_COOLING * 2.0 ** min(rounds, 8))
        self._release(hub)
        return None

    def _release(self, hub: str) -> None:
        self._claimed.discard(hub)
        self.active.discard(hub)
