"""Connections kept for repeated dials: one per pair of agents, dialled once however many ask (spec 04 §15, §17 D20).

A connection nothing has been heard of for a while may be dead without knowing. Before it is given out again it is asked
for a sign of life, and a fresh dial soon races that (spec 04 §17 D13).
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Protocol

import attrs
import trio

from a2al_trio.errors import A2alError, ConnectError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.identity import Address
from a2al_trio.scopes import Attempt, race
from a2al_trio.wire import MAIL_ACCEPTED, SignedRecord, encode_mail_delivery

__all__ = ["BackingOff", "ConnectionPool", "MailCourier"]

POOL_SIZE = 64
FIRST_PAUSE = 15.0
"""Seconds after a failed dial in which another is not tried; doubles up to `LONGEST_PAUSE` (spec 04 §19)."""
LONGEST_PAUSE = 300.0
DIAL_LIMIT = 60.0
"""Seconds a dial may take, whoever still waits for it (spec 04 §19)."""
FRESH = 5.0
"""Seconds a connection that was heard of is given out again without asking whether it lives."""
SHORTEST_START, LONGEST_START = 0.2, 2.0
"""Bounds in seconds of the time a connection has to answer before another is dialled beside."""
MAIL_LIMIT = 15.0
"""Seconds to reach a recipient's host and have its acknowledgement."""


class BackingOff(ConnectError):
    """The peer could not be reached a moment ago, so it is not tried again before `retry_at` (trio time)."""

    def __init__(self, message: str, retry_at: float) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class Dial(Protocol):
    """How the pool makes a connection."""

    def __call__(self, peer: Address, *, local: Address | None) -> Awaitable[AgentConnection]:
        """Resolve and dial."""


@attrs.define(eq=False)
class _Entry:
    connection: AgentConnection | None = None
    dialling: trio.Event | None = None
    error: A2alError | None = None
    pause: float = 0.0
    retry_at: float = 0.0
    used_at: float = 0.0
    heard_at: float = 0.0
    """When the connection was last looked at and had been heard of since the time before."""
    heard: int = 0
    """How many packets had come by then."""
    former: AgentConnection | None = None
    """A connection that did not answer in time, kept while it has streams: it may be slow and not dead."""

    @property
    def alive(self) -> bool:
        return self.connection is not None and self.connection.close_reason is None

    def is_doubtful(self) -> bool:
        """Whether the connection has not been heard of lately, as far as looking at it now and then can tell."""
        if self.connection is None:
            return True
        now, heard = trio.current_time(), self.connection.stats.packets_received
        doubtful = now - self.heard_at > FRESH
        if heard != self.heard:
            self.heard_at, self.heard = now, heard
        return doubtful

    def take(self, connection: AgentConnection) -> None:
        """Use a connection that has just been heard of."""
        if self.connection is not connection:
            self.close_former()
            self.former, self.connection = self.connection, connection
            if self.former is not None and not self.former.stats.open_streams:
                self.close_former()
        self.heard_at, self.heard = trio.current_time(), connection.stats.packets_received
        self.pause, self.error = 0.0, None

    def close_former(self) -> None:
        if self.former is not None:
            self.former.close(0, "superseded by faster candidate")
            self.former = None

    def close(self, reason: str) -> None:
        self.close_former()
        if self.connection is not None:
            self.connection.close(0, reason)


class ConnectionPool:
    """Shares outgoing connections of a host: `host.pool`. The one used longest ago makes room for a new one."""

    def __init__(self, dial: Dial, background: trio.Nursery, *, default: Address, size: int = POOL_SIZE) -> None:
        self._dial = dial
        self._background = background
        self._default = default
        self._size = size
        self._entries: dict[tuple[Address, Address], _Entry] = {}
        self._room = trio.Event()

    def __len__(self) -> int:
        return sum(entry.alive for entry in self._entries.values())

    async def get(self, peer: Address, *, local: Address | None = None) -> AgentConnection:
        """A live connection to an agent, made if there is none; it belongs to the pool, so do not close it.

        One that was silent for some seconds is asked whether it lives, which takes a round trip; if it does not answer
        soon a new one is dialled beside, and whichever answers first is returned.

        Callers that ask at the same time share one dial, which goes on if they are cancelled. Where the pool is full
        of dials, it waits for one to be over. Raises what the dial raises, and BackingOff for 15 seconds after a
        failure, longer if it fails again; ClosedResourceError once the host was closed.
        """
        while True:
            entry = await self._entry(local or self._default, peer)
            entry.used_at = trio.current_time()
            if entry.alive and not entry.is_doubtful():
                await trio.lowlevel.checkpoint()
                assert entry.connection is not None, "an entry that lives has a connection"
                return entry.connection
            if entry.dialling is None:
                entry.dialling = self._start_dial(entry, peer, local)
            await entry.dialling.wait()
            if entry.error is not None:
                raise entry.error.with_traceback(None)

    def _start_dial(self, entry: _Entry, peer: Address, local: Address | None) -> trio.Event:
        now = trio.current_time()
        if entry.error is not None and now < entry.retry_at:
            left = entry.retry_at - now
            raise BackingOff(
                f"{peer} could not be reached, not trying again for {left:.0f} s: {entry.error}", entry.retry_at
            ) from entry.error
        if self._background.cancel_scope.cancel_called:
            raise trio.ClosedResourceError("this host was closed")
        self._background.start_soon(self._connect, entry, peer, local)
        return trio.Event()

    def live(self, peer: Address, *, local: Address | None = None) -> AgentConnection | None:
        """The connection to an agent if there is one already."""
        entry = self._entries.get((local or self._default, peer))
        return entry.connection if entry is not None and entry.alive else None

    def drop(self, peer: Address, *, local: Address | None = None) -> None:
        """Close the connection to an agent, because it proved dead, and forget past failures."""
        entry = self._entries.get((local or self._default, peer))
        if entry is not None:
            entry.close("")
            entry.pause, entry.error = 0.0, None
            if entry.dialling is None:
                del self._entries[local or self._default, peer]

    def retire(self, connection: AgentConnection) -> None:
        """Give a connection out no more, because its agent takes nothing new on it; whoever uses it ends it."""
        entry = self._entries.get((connection.local, connection.remote))
        if entry is not None and entry.connection is connection:
            entry.connection = None

    async def _connect(self, entry: _Entry, peer: Address, local: Address | None) -> None:
        assert entry.dialling is not None, "only an entry that is being dialled gets here"
        entry.error = None
        try:
            with trio.move_on_after(DIAL_LIMIT) as limit:
                entry.take(await self._revive(entry.connection, peer, local))
            if limit.cancelled_caught:
                entry.error = ConnectError(f"{peer} could not be reached within {DIAL_LIMIT:.0f} s")
        except A2alError as error:
            entry.error = error
        finally:
            if entry.error is not None:
                entry.pause = min(max(2 * entry.pause, FIRST_PAUSE), LONGEST_PAUSE)
                entry.retry_at = trio.current_time() + entry.pause
            entry.dialling.set()
            entry.dialling = None
            self._room.set()
            self._room = trio.Event()

    async def _revive(self, old: AgentConnection | None, peer: Address, local: Address | None) -> AgentConnection:
        """The connection at hand if it answers, else a new one."""
        if old is None or old.close_reason is not None:
            return await self._dial(peer, local=local)

        async def prove() -> AgentConnection:
            try:
                await old.ping()
            except trio.ClosedResourceError:
                raise ConnectError("it was closed here") from None
            return old

        def discard(connection: AgentConnection) -> None:
            if connection is not old:
                connection.close(0, "superseded by faster candidate")

        attempts = [
            Attempt("the connection at hand", prove),
            Attempt("a new connection", partial(self._dial, peer, local=local)),
        ]
        start = min(max(SHORTEST_START, 3 * old.stats.smoothed_rtt), LONGEST_START)
        return await race(attempts, stagger=start, discard=discard, goal=f"reach {peer}")

    async def _entry(self, local: Address, peer: Address) -> _Entry:
        while (entry := self._entries.get((local, peer))) is None:
            if len(self._entries) < self._size or self._evict():
                entry = self._entries[local, peer] = _Entry()
                break
            await self._room.wait()
        return entry

    def _evict(self) -> bool:
        """Drop a dead entry, else the one used longest ago, those without open streams first; False if all dial."""

        def keep_for(key: tuple[Address, Address]) -> tuple[bool, bool, float]:
            entry = self._entries[key]
            busy = entry.alive and entry.connection is not None and entry.connection.stats.open_streams > 0
            return (entry.alive, busy, entry.used_at)

        idle = [key for key, entry in self._entries.items() if entry.dialling is None]
        if idle:
            self._entries.pop(min(idle, key=keep_for)).close("pool eviction")
        return bool(idle)


@attrs.define
class MailCourier:
    """Hands mail over by pooled connections, to hosts whose control stream says that they know it (spec 08 §4).

    Hosts of v0.2.0 would take the note for the beginning of a service stream.
    """

    pool: ConnectionPool

    async def deliver(self, recipient: Address, record: SignedRecord, *, local: Address) -> bool:
        """Whether the recipient's host has acknowledged the note; any trouble on the way is a plain no."""
        with trio.move_on_after(MAIL_LIMIT):
            try:
                connection = await self.pool.get(recipient, local=local)
                if not await connection.wait_service_streams():
                    return False
                async with await connection.open_stream() as stream:
                    await stream.send_all(encode_mail_delivery(record))
                    await stream.send_eof()
                    return bytes(await stream.receive_some(1)) == MAIL_ACCEPTED
            except (A2alError, trio.ClosedResourceError):
                return False
        return False
