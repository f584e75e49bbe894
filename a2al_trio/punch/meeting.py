"""Two agents meet at a hub: ICE through its room, and QUIC over the path that comes of it (spec 06 §9, §14).

ICE, its relays, QUIC and the room are one scope. Leaving it says goodbye over QUIC, closes all sockets and gives
relays back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

from a2al_trio.errors import ConnectError
from a2al_trio.ice import IceConfig, IceNetwork, IcePath, IceSession, SystemNetwork, open_ice_session
from a2al_trio.identity import Address
from a2al_trio.punch.turns import Turns
from a2al_trio.quic import ClientTls, QuicConfig, QuicConnection, QuicEndpoint, ServerTls, open_quic
from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling import Dialer, IncomingCall, Room, open_call, open_prepared_dial

__all__ = ["Beside", "Meeting", "MeetingPlace", "open_incoming", "open_outgoing"]

DIAL_LIMIT: Final = 20.0
"""Seconds the listening side waits for a QUIC handshake after ICE has succeeded (spec 06 §14 no. 4)."""

Beside = Callable[[Room], Awaitable[None]]
"""Something to do in the room beside ICE, cancelled when QUIC over the ICE path is up."""

QUEUED: Final = 4
"""Connections of one path that wait to be accepted."""

_Join = Callable[[IceSession], AbstractAsyncContextManager[Room]]


@attrs.frozen(kw_only=True)
class MeetingPlace:
    """What all meetings of a host share: its network, where ICE looks for paths, QUIC and what a listener shows."""

    ice: IceConfig
    quic: QuicConfig
    server: ServerTls
    network: IceNetwork = attrs.field(factory=SystemNetwork)
    turns: Turns = attrs.field(factory=Turns)
    _sessions: set[IceSession] = attrs.field(factory=set)

    def network_changed(self) -> None:
        """Our addresses have changed: all meetings look for new paths, and move to them."""
        for session in tuple(self._sessions):
            session.network_changed()

    async def dial_hub(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        """Connect to a hub."""
        return await self.network.open_stream(host, port, tls=tls)


@attrs.frozen(eq=False)
class Meeting:
    """A QUIC connection over an ICE path. `is_client` says that it is for us to open the first stream."""

    quic: QuicConnection
    path: IcePath
    is_client: bool
    _endpoint: QuicEndpoint
    _session: IceSession
    _connections: list[QuicConnection]

    async def accept(self) -> QuicConnection:
        """Wait for a further connection that the peer dials over the same path (spec 08 §5.4)."""
        return self._add(await self._endpoint.accept())

    async def dial(self, remote: Address, tls: ClientTls) -> QuicConnection:
        """Make a further connection over the same path, to any agent at its other end; raises `ConnectionLost`."""
        return self._add(await _dial(self._endpoint, self.path, remote, tls))

    async def wait_lost(self) -> str:
        """Wait until the path is lost; returns why."""
        return await self._session.wait_lost()

    def _add(self, quic: QuicConnection) -> QuicConnection:
        self._connections[:] = [quic, *(each for each in self._connections if each.close_reason is None)]
        return quic

    @property
    def description(self) -> str:
        """The path in words."""
        return f"{'relayed' if self.path.relayed else 'ICE'} {self.path.description}"


@asynccontextmanager
async def open_outgoing(
    place: MeetingPlace,
    hubs: Sequence[str],
    *,
    local: Address,
    remote: Address,
    tls: ClientTls,
    ready: Callable[[], Awaitable[object]] | None = None,
    on_path: Callable[[], object] = lambda: None,
    beside: Beside | None = None,
) -> AsyncIterator[Meeting]:
    """Call agent `remote` as `local` through the first of `hubs` where it answers, and connect.

    `tls` are the settings for dialling the peer. What needs no peer is begun at once: our candidates are gathered and
    the first hub is connected to; the call itself waits for `ready` to return. `on_path` is called once ICE has found a
    path: a reference peer breaks if it is left before the handshake is complete (spec 06 §14 no. 6). Raises
    `SignalingError`, `IceError`, `ConnectionLost` or `ConnectError`.
    """

    @asynccontextmanager
    async def join(session: IceSession) -> AsyncIterator[Room]:
        async with AsyncExitStack() as stack:
            dial: Dialer = place.dial_hub
            if ready is not None:
                dial = await stack.enter_async_context(open_prepared_dial(hubs[0], place.dial_hub))
                await ready()
            call = open_call(
                hubs,
                local=str(local),
                remote=str(remote),
                credentials=session.credentials,
                trickle=session.trickle,
                dial=dial,
            )
            room = await stack.enter_async_context(call)
            yield room

    async with _open_meeting(
        place, join, remote=remote, tls=tls, controlling=True, on_path=on_path, beside=beside
    ) as meeting:
        yield meeting


@asynccontextmanager
async def open_incoming(
    place: MeetingPlace, call: IncomingCall, *, remote: Address, tls: ClientTls, beside: Beside | None = None
) -> AsyncIterator[Meeting]:
    """Answer a call of agent `remote` on the hub that told of it; otherwise as `open_outgoing`.

    Later calls of the pair supersede this one until the connection stands (spec 06 D5).
    """

    def join(session: IceSession) -> AbstractAsyncContextManager[Room]:
        return call.join(credentials=session.credentials, trickle=session.trickle)

    async with _open_meeting(
        place, join, remote=remote, tls=tls, controlling=False, on_path=lambda: None, beside=beside
    ) as meeting:
        call.release()
        yield meeting


@asynccontextmanager
async def _open_meeting(
    place: MeetingPlace,
    join: _Join,
    *,
    remote: Address,
    tls: ClientTls,
    controlling: bool,
    on_path: Callable[[], object],
    beside: Beside | None,
) -> AsyncIterator[Meeting]:
    async with (
        open_ice_session(controlling=controlling, config=place.ice, network=place.network) as session,
        open_quic(session.path, place.quic, server=place.server, accept_queue=QUEUED) as endpoint,
        open_service_nursery("meeting") as nursery,
    ):
        place._sessions.add(session)
        try:
            # The room stays open until the handshake is done, as peers take its end for the end of the call (Q8).
            async with join(session) as room:
                aside = trio.CancelScope()
                if beside is not None:
                    nursery.start_soon(_run_beside, beside, room, aside)
                path = await session.connect(room)
                on_path()
                # In glare ICE settles who is who, whoever called (spec 06 D2).
                is_client = session.controlling
                shake_hands = partial(_dial, endpoint, path, remote, tls) if is_client else partial(_accept, endpoint)
                quic = await shake_hands()
                aside.cancel()
            connections = [quic]
            nursery.start_soon(_end_with_path, session, connections)
            yield Meeting(quic, path, is_client, endpoint, session, connections)
        finally:
            place._sessions.discard(session)


async def _run_beside(beside: Beside, room: Room, scope: trio.CancelScope) -> None:
    with scope:
        await beside(room)


async def _dial(endpoint: QuicEndpoint, path: IcePath, remote: Address, tls: ClientTls) -> QuicConnection:
    return await endpoint.connect(path.peer_address, tls=tls, server_name=str(remote))


async def _accept(endpoint: QuicEndpoint) -> QuicConnection:
    with trio.move_on_after(DIAL_LIMIT):
        return await endpoint.accept()
    raise ConnectError(f"the peer found a path but did not dial within {DIAL_LIMIT:.0f} s")


async def _end_with_path(session: IceSession, connections: Iterable[QuicConnection]) -> None:
    """Consent withdrawn, or a peer that vanished, ends the connections at once (RFC 7675 §5.1)."""
    reason = await session.wait_lost()
    for quic in connections:
        quic.lose(reason)
