"""Paths through NATs that outlive the connection they were made for (spec 08 §5.4).

Another call to the same host is then one handshake away, with no hub and no ICE. Newer nodes count on it:
while a path of theirs stands, they answer no call of the pair at a hub.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import attrs
import trio

from a2al_trio.punch import Meeting

__all__ = ["KeptPath", "KeptPaths"]

GOODBYE = 0.5
"""Seconds an ended connection stays, so that a peer which missed our goodbye and goes on sending gets it again."""
MAX_IDLE = 64
"""Idle paths of a host; beyond that the one that has been idle longest goes."""


@attrs.define(eq=False)
class KeptPath:
    """A path and how many use it."""

    meeting: Meeting
    rest: float
    """Seconds it stays without use."""
    _idle: deque[KeptPath]
    _users: int = 0
    _is_over: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Somebody has a connection on it."""
        self._users += 1
        self._scope.deadline = math.inf
        if self in self._idle:
            self._idle.remove(self)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and not self._is_over:
                self._scope.deadline = trio.current_time() + self.rest
                self._idle.append(self)
                if len(self._idle) > MAX_IDLE:
                    self._idle.popleft().give_up()

    def give_up(self) -> None:
        """Keep it no longer."""
        self._scope.cancel()

    async def wait_over(self) -> None:
        """Wait until nobody has used it for its rest, or it is lost."""
        try:
            with self._scope:
                await self.meeting.wait_lost()
        finally:
            self._is_over = True
            if self in self._idle:
                self._idle.remove(self)


@attrs.define(eq=False)
class KeptPaths:
    """The paths of one host by whom they lead to; keys are AIDs, and whatever else tells hosts apart."""

    _by_key: dict[Hashable, KeptPath] = attrs.field(factory=dict)
    _idle: deque[KeptPath] = attrs.field(factory=deque)

    def keep(self, meeting: Meeting, rest: float) -> KeptPath:
        """Keep a path, unless it leads over a relay, which costs somebody something."""
        return KeptPath(meeting, GOODBYE if meeting.path.relayed else rest, self._idle)

    def find(self, *keys: Hashable) -> KeptPath | None:
        """A path that leads to one of these."""
        return next((self._by_key[key] for key in keys if key in self._by_key), None)

    @contextmanager
    def offered(self, kept: KeptPath, *keys: Hashable) -> Iterator[None]:
        """Let calls find the path under these keys for the length of a block; a newer one takes the place of others."""
        for key in keys:
            self._by_key[key] = kept
        try:
            yield
        finally:
            for key in keys:
                if self._by_key.get(key) is kept:
                    del self._by_key[key]
