"""Connections kept for repeated dials: one per pair of agents, dialled once however many ask (spec 04 §15, §17 D20)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import attrs
import trio

from a2al_trio.errors import A2alError, ConnectError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.identity import Address
from a2al_trio.wire import MAIL_ACCEPTED, SignedRecord, encode_mail_delivery

__all__ = ["BackingOff", "ConnectionPool", "MailCourier"]

POOL_SIZE = 64
FIRST_PAUSE = 15.0
"""Seconds after a failed dial in which another is not tried; doubles up to `LONGEST_PAUSE` (spec 04 §19)."""
LONGEST_PAUSE = 300.0
DIAL_LIMIT = 60.0
"""Seconds a dial may take, whoever still waits for it (spec 04 §19)."""
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

    @property
    def alive(self) -> bool:
        return self.connection is not None and self.connection.close_reason is None


class ConnectionPool:
    """Shares outgoing connections of a host: `host.pool`. The one used longest ago makes room for a new one."""

    def __init__(self, dial: Dial, background: trio.Nursery, *, default: Address, size: int = POOL_SIZE) -> None:
        self._dial = dial
        self._background = background
        self._default = default
        self._size = size
        self._entries: dict[tuple[Address, Address], _Entry] = {}

    def __len__(self) -> int:
        return sum(entry.alive for entry in self._entries.values())

    async def get(self, peer: Address, *, local: Address | None = None) -> AgentConnection:
        """A live connection to an agent, made if there is none; it belongs to the pool, so do not close it.

        Callers that ask at the same time share one dial, which goes on if they are cancelled. Raises what the dial
        raises, and BackingOff for 15 seconds after a failure, longer if it fails again.
        """
        entry = self._entry(local or self._default, peer)
        entry.used_at = trio.current_time()
        while not entry.alive:
            if entry.dialling is None:
                if entry.error is not None and trio.current_time() < entry.retry_at:
                    left = entry.retry_at - trio.current_time()
                    raise BackingOff(
                        f"{peer} could not be reached, not trying again for {left:.0f} s: {entry.error}", entry.retry_at
                    ) from entry.error
                entry.dialling = trio.Event()
                self._background.start_soon(self._connect, entry, peer, local)
            await entry.dialling.wait()
            if entry.error is not None:
                raise entry.error.with_traceback(None)
        await trio.lowlevel.checkpoint()
        assert entry.connection is not None, "an entry that lives has a connection"
        return entry.connection

    def live(self, peer: Address, *, local: Address | None = None) -> AgentConnection | None:
        """The connection to an agent if there is one already."""
        entry = self._entries.get((local or self._default, peer))
        return entry.connection if entry is not None and entry.alive else None

    def drop(self, peer: Address, *, local: Address | None = None) -> None:
        """Close the connection to an agent, because it proved dead, and forget past failures."""
        entry = self._entries.pop((local or self._default, peer), None)
        if entry is not None and entry.connection is not None:
            entry.connection.close(0, "")

    async def _connect(self, entry: _Entry, peer: Address, local: Address | None) -> None:
        assert entry.dialling is not None, "only an entry that is being dialled gets here"
        entry.error = None
        try:
            with trio.move_on_after(DIAL_LIMIT) as limit:
                entry.connection = await self._dial(peer, local=local)
                entry.pause = 0.0
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

    def _entry(self, local: Address, peer: Address) -> _Entry:
        entry = self._entries.get((local, peer))
        if entry is None:
            if len(self._entries) >= self._size:
                self._evict()
            entry = self._entries[local, peer] = _Entry()
        return entry

    def _evict(self) -> None:
        """Drop a dead entry, else the one used longest ago, those without open streams first."""

        def keep_for(key: tuple[Address, Address]) -> tuple[bool, bool, bool, float]:
            entry = self._entries[key]
            busy = entry.alive and entry.connection is not None and entry.connection.stats.open_streams > 0
            return (entry.dialling is not None, entry.alive, busy, entry.used_at)

        entry = self._entries.pop(min(self._entries, key=keep_for))
        if entry.connection is not None:
            entry.connection.close(0, "pool eviction")


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
