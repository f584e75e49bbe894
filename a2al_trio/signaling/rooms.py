"""What a hub knows: who is registered where, and who waits in which room (spec 06 §4, with the remedies of D8). Pure.

The protocol's rooms pair whoever comes. Here a caller is only ever paired with a callee: callers wait by their own
name, a callee that says who it is (`callee` in its URL) meets the caller that asked for it, and one that does not meets
the caller that has waited longest. A newer join of the same kind takes the place of the older.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["CallRate", "HubLimits", "HubStats", "Registry", "Rooms", "Seat"]

S = TypeVar("S")
_ANY: Final = ""


@attrs.frozen(kw_only=True)
class HubLimits:
    """What clients may use of a hub. Times in seconds.

    `agents_per_socket` and `sockets_per_address` keep one client from filling the hub, `sockets` is the whole hub's.
    With `proven_only`, agents must prove that they are who they register as, which the reference's cannot.
    `calls_per_minute` counts the calls from one address to one agent. `register_within` is the longest silence of a
    registration, `partner_within` the longest wait in a room, `write_within` the longest a reader may block others.
    """

    agents_per_socket: int = 256
    sockets_per_address: int = 4096
    sockets: int = 20_000
    calls_per_minute: int = 60
    request_within: float = 10.0
    register_within: float = 60.0
    partner_within: float = 30.0
    write_within: float = 5.0
    relay_write_within: float = 20.0
    ping_interval: float = 30.0
    waiting_bytes: int = 65_536
    proven_only: bool = False


@attrs.define
class HubStats:
    """Counters of a hub (spec 06 §4.4), as shown by the debug statistics under `signal`."""

    callees_connected: int = 0
    aids_registered: int = 0
    sessions_active: int = 0
    sessions_total: int = 0
    noagent_total: int = 0
    refused_total: int = 0


class Registry(Generic[S]):
    """Which socket stands for which agent. AIDs are the raw texts sent.

    The last registration of one wins, but for those the agent has proven to be its own: these give way to proven ones
    alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._proven: set[str] = set()
        self._by_agent: dict[str, S] = {}
        self._by_socket: dict[S, set[str]] = {}

    def register(self, agent: str, socket: S, *, proven: bool = False) -> bool:
        """Point `agent` to `socket`; False if the socket holds too many agents already."""
        before = self._by_agent.get(agent)
        if before is not None and before is not socket and agent in self._proven and not proven:
            return True  # refused, which clients of the protocol cannot be told
        held = self._by_socket.get(socket, set())
        if agent not in held and len(held) >= self._limit:
            return False
        if before is not None and before is not socket:
            self._drop(before, agent)
        self._by_socket.setdefault(socket, held).add(agent)
        self._by_agent[agent] = socket
        if proven:
            self._proven.add(agent)
        return True

    def is_proven(self, agent: str, socket: S) -> bool:
        """Whether `socket` holds the agent and has proven it."""
        return agent in self._proven and self._by_agent.get(agent) is socket

    def _drop(self, socket: S, agent: str) -> None:
        self._proven.discard(agent)
        held = self._by_socket[socket]
        held.discard(agent)
        if not held:
            del self._by_socket[socket]

    def find(self, agent: str) -> S | None:
        """Return the socket an agent is reached at."""
        return self._by_agent.get(agent)

    def forget(self, socket: S) -> None:
        """The socket ended: remove the agents that still point to it."""
        for agent in self._by_socket.pop(socket, ()):
            del self._by_agent[agent]
            self._proven.discard(agent)

    @property
    def agents(self) -> int:
        """How many agents are registered."""
        return len(self._by_agent)

    @property
    def sockets(self) -> int:
        """How many sockets hold at least one agent."""
        return len(self._by_socket)


@attrs.frozen
class Seat:
    """Where a joiner sits: a caller by its own and its target's name, a callee by its name if it gave one."""

    room: str
    caller: str = ""
    target: str = ""
    callee: str = ""

    @property
    def is_caller(self) -> bool:
        """Whether the joiner asked the hub to call somebody."""
        return bool(self.target)


class Rooms(Generic[S]):
    """Who waits. A joiner is either paired with a waiting partner or takes a place and waits."""

    def __init__(self) -> None:
        self._callers: dict[str, dict[str, tuple[Seat, S]]] = {}
        self._callees: dict[str, dict[str, tuple[Seat, S]]] = {}
        self.waiting = 0

    def join(self, seat: Seat, joiner: S) -> tuple[S | None, S | None]:
        """Seat a joiner. Returns its partner, who is then no longer waiting, and whoever it replaced."""
        partners = self._callees if seat.is_caller else self._callers
        for key, (other, partner) in partners.get(seat.room, {}).items():
            if self._suits(seat, other):
                self._remove(partners, seat.room, key)
                return partner, None
        places = self._callers if seat.is_caller else self._callees
        room = places.setdefault(seat.room, {})
        key = seat.caller if seat.is_caller else seat.callee
        replaced = room.pop(key, None)
        room[key] = (seat, joiner)
        if replaced is None:
            self.waiting += 1
            return None, None
        return None, replaced[1]

    @staticmethod
    def _suits(one: Seat, other: Seat) -> bool:
        caller, callee = (one, other) if one.is_caller else (other, one)
        return callee.callee in (_ANY, caller.target)

    def leave(self, seat: Seat, joiner: S) -> None:
        """A waiting joiner gave up or vanished; nothing happens if it was paired or replaced meanwhile."""
        places = self._callers if seat.is_caller else self._callees
        key = seat.caller if seat.is_caller else seat.callee
        entry = places.get(seat.room, {}).get(key)
        if entry is not None and entry[1] is joiner:
            self._remove(places, seat.room, key)

    def _remove(self, places: dict[str, dict[str, tuple[Seat, S]]], room: str, key: str) -> None:
        del places[room][key]
        if not places[room]:
            del places[room]
        self.waiting -= 1


@attrs.define(eq=False)
class CallRate:
    """Counts the calls of each minute by who calls whom, and forgets all of them with the minute."""

    limit: int
    _minute: int = 0
    _counts: Counter[tuple[str, str]] = attrs.Factory(Counter)

    def allow(self, address: str, target: str, now: float) -> bool:
        """Count one call; False if it is one too many."""
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._counts.clear()
        self._counts[address, target] += 1
        return self._counts[address, target] <= self.limit
