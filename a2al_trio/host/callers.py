"""What each caller may take of a host: connections, streams and bytes (`HostConfig.max_*_per_caller`).

A caller is an AID, or the IP address of somebody who has proven none. The limits hold for all connections of a caller
together and for every protocol on them, since they are held where streams come in.
"""

from __future__ import annotations

import math

import attrs
import trio

from a2al_trio.identity import Address

__all__ = ["Caller", "CallerLimits", "Callers", "Visit"]

BURST = 1.0
"""Seconds for which a caller that was quiet may exceed its rate: it then gets twice as much."""
REMEMBERED = 4096
"""Callers remembered: those without connections until their bill is settled, for coming anew shall not clear it."""


@attrs.frozen(kw_only=True)
class CallerLimits:
    """Bounds for one caller; 0 means none, but for `connections`."""

    connections: int
    streams: int = 0
    """Incoming streams that may be open at a time; more wait."""
    rate: int = 0
    """Bytes a second that may pass on them, both directions together; more wait."""


@attrs.define(eq=False)
class Caller:
    """What one caller takes at present."""

    limits: CallerLimits
    connections: int = 0
    streams: int = 0
    paid_at: float = -math.inf
    """When all bytes that have passed are paid for at the caller's rate, in trio time."""
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def is_settled(self) -> bool:
        """Whether it makes no difference if the caller is forgotten."""
        return not self.connections and self.paid_at + BURST <= trio.current_time()

    async def admit(self) -> None:
        """Wait until there may be one more stream, and count it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.limits.streams and self.streams >= self.limits.streams:
            await self._room.park()
        self.streams += 1

    def left(self, streams: int = 1) -> None:
        """So many streams that were counted are over."""
        self.streams -= streams
        self._room.unpark(count=streams)

    async def wait(self) -> None:
        """Wait until the caller has paid for what it has had."""
        if self.paid_at > trio.current_time():
            await trio.sleep_until(self.paid_at)

    def charge(self, size: int) -> None:
        """Put bytes on the bill."""
        if self.limits.rate:
            self.paid_at = max(self.paid_at, trio.current_time() - BURST) + size / self.limits.rate


@attrs.define(eq=False)
class Visit:
    """One connection of a caller; its meter (`QuicConnection.meter`)."""

    caller: Caller
    _streams: int = 0

    async def admit(self) -> None:
        """See `Caller.admit`."""
        await self.caller.admit()
        self._streams += 1

    def left(self) -> None:
        """See `Caller.left`."""
        if self._streams:
            self._streams -= 1
            self.caller.left()

    async def wait(self) -> None:
        """See `Caller.wait`."""
        await self.caller.wait()

    def charge(self, size: int) -> None:
        """See `Caller.charge`."""
        self.caller.charge(size)

    def end(self) -> None:
        """The connection is over, and with it its streams, whoever still holds them."""
        streams, self._streams = self._streams, 0
        self.caller.left(streams)


@attrs.define(eq=False)
class Callers:
    """All callers of a host."""

    limits: CallerLimits
    _known: dict[Address | str, Caller] = attrs.field(factory=dict)

    def enter(self, name: Address | str) -> Visit | None:
        """Count one more connection of a caller; None if it has too many. `leave` must follow."""
        caller = self._known.get(name)
        if caller is None:
            self._make_room()
            caller = self._known[name] = Caller(self.limits)
        if caller.connections >= self.limits.connections:
            return None
        caller.connections += 1
        return Visit(caller)

    def leave(self, name: Address | str, visit: Visit) -> None:
        """The connection is over."""
        visit.end()
        visit.caller.connections -= 1
        if visit.caller.is_settled:
            del self._known[name]

    def _make_room(self) -> None:
        """Forget those who have settled their bills; if all owe, half of those that are gone."""
        if len(self._known) < REMEMBERED:
            return
        gone = [name for name, caller in self._known.items() if not caller.connections]
        settled = [name for name in gone if self._known[name].is_settled]
        for name in settled or gone[: REMEMBERED // 2]:
            del self._known[name]
