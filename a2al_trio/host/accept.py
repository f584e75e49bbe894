"""From a handshaken QUIC connection to one the application gets (spec 04 §5.3–5.5, spec 08 §4).

Each connection is admitted in a task of its own, so that one which never opens, or never finishes, its control
stream delays nobody (spec 04 §17 D4).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import attrs
import trio

from a2al_trio.dht.addresses import network_of
from a2al_trio.errors import ConnectionLost, DecodeError
from a2al_trio.host.access import AccessRule
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.callers import Callers, Visit
from a2al_trio.host.config import HTTP3
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.control import answer_hint, read_route
from a2al_trio.host.service_streams import admit_service_stream, refuse_stream
from a2al_trio.host.tls import AgentTls
from a2al_trio.host.web import WebConnection
from a2al_trio.identity import Address, InvalidAddress, InvalidCertificate
from a2al_trio.quic import QuicConnection, QuicEndpoint, QuicStream
from a2al_trio.wire import (
    MailDelivery,
    MailDeliveryReader,
    RouteFrame,
    SignedRecord,
    StreamErrorCode,
    StreamKind,
    classify_stream,
)

__all__ = ["Admission", "AdmittedCall", "RecordShelf"]

logger = logging.getLogger(__name__)

CONTROL_LIMIT = 10.0
"""Seconds a dialer has for its route frame (spec 04 §17 D4)."""
ACCEPT_QUEUE = 32
"""Admitted connections that wait for the application."""
PREFIX_WAIT = 0.2
"""Seconds we wait for the first bytes of a stream before serving it anyway.

A dialer of a server-speaks-first protocol sends none until it has been greeted (spec 08 §4).
"""
FAILED = 1
"""Close code with which we send somebody away; the text says why (spec 04 §3.3)."""


class RecordShelf(Protocol):
    """What admission needs of the DHT's local store."""

    def topics_of(self, agent: Address) -> Iterable[SignedRecord]:
        """The topic records of an agent held here."""

    def take_mail(self, delivery: MailDelivery, recipient: Address) -> bool:
        """Check and keep a mailbox record for one of our agents; False if it is not acceptable."""


TakeNode = Callable[[QuicConnection, Address], Awaitable[QuicStream | None]]
"""Keeps the connection of a node to the end and returns None; an agent's control stream is returned at once."""


@attrs.frozen(kw_only=True)
class AdmittedCall:
    """How a connection came that was agreed on at a hub, and who must be at its other end."""

    caller: Address | None = None
    """The AID that was announced: anybody else is sent away as a `peer mismatch` (spec 06 §15.2)."""
    local: Address | None = None
    """Our agent, if it was we who dialled: then the peer's route must name this one."""
    path: Callable[[], str] | None = None
    """How the peer is reached, in words."""
    control: QuicStream | None = None
    """The control stream, if it was accepted already."""
    take_node: TakeNode | None = None
    """Set where it may be a node that called ours."""


@attrs.define
class Admission:
    """Routes incoming connections to agents and queues them for the application."""

    agents: AgentTable
    tls: AgentTls
    shelf: RecordShelf
    max_connections: int
    callers: Callers
    made: Callable[[AgentConnection], None]
    """Told of every connection that was admitted."""
    access: AccessRule | None = None
    """Who may open streams to whom; None lets everybody who proved an AID."""
    punching: dict[Address, TakeNode] = attrs.field(factory=dict)
    """Who is punching towards our node, whose connection may then come to our own endpoint."""
    _active: int = 0
    _networks: Counter[bytes] = attrs.field(factory=Counter)
    _ready: tuple[trio.MemorySendChannel[AgentConnection], trio.MemoryReceiveChannel[AgentConnection]] = attrs.field(
        factory=lambda: trio.open_memory_channel[AgentConnection](ACCEPT_QUEUE)
    )

    async def accept(self) -> AgentConnection:
        """Wait for the next admitted connection that still lives; raises ClosedResourceError once `run` has ended."""
        while True:
            connection = await self._ready[1].receive()
            if connection.close_reason is None:
                return connection

    async def run(self, endpoint: QuicEndpoint) -> None:
        """Admit whoever connects, for as long as the endpoint lives."""
        try:
            async with trio.open_nursery() as nursery:
                async for quic in endpoint:
                    nursery.start_soon(self.keep, quic)
        finally:
            self._ready[1].close()
            self.tls.web.close()

    async def keep(self, quic: QuicConnection, call: AdmittedCall | None = None) -> None:
        """Admit one connection and serve it until it ends; `call` says how it came if not to our own endpoint."""
        network = network_of(quic.peer_address.host)
        # AIDs are free to make, so a network may take three quarters of the places at most, however many it comes with.
        if self._active >= self.max_connections or (
            self._networks[network] >= self.max_connections - self.max_connections // 4
        ):
            quic.close(FAILED, "too many connections")
            return
        self._active += 1
        self._networks[network] += 1
        try:
            await self._admit(quic, call or AdmittedCall())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # It is over, or the peer gave up the stream it was to name itself on.
            logger.debug("connection from %s ended: %s", quic.peer_address, quic.close_reason)
        finally:
            self._active -= 1
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
            quic.close(0, "")

    def hand_over(self, connection: AgentConnection) -> bool:
        """Give a connection to the application; False if too many wait for it already, or nobody will come."""
        try:
            self._ready[0].send_nowait(connection)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    def allows(self, local: Address, remote: Address | None, tokens: Sequence[str]) -> bool:
        """Whether a caller may use an agent; None is one without an AID, whom only a rule lets in."""
        return remote is not None if self.access is None else self.access(local, remote, tokens)

    async def _admit(self, quic: QuicConnection, call: AdmittedCall) -> None:
        try:
            remote = self._remote(quic)
        except InvalidCertificate as error:
            # The handshake has judged it already; only a proof that expired in between gets here.
            quic.close(FAILED, str(error))
            return
        if call.caller not in (None, remote):
            quic.close(FAILED, "peer mismatch")
            return
        take_node = self._node_door(quic, call, remote)
        if take_node is not None and remote is not None:
            control = await take_node(quic, remote)
            if control is None:
                return
            call = attrs.evolve(call, control=control)
        caller = remote or quic.peer_address.host
        visit = self.callers.enter(caller)
        if visit is None:
            quic.close(FAILED, "too many connections of one caller")
            return
        try:
            if remote is None or quic.alpn == HTTP3:
                await self._serve_web(quic, call, remote, visit)
            else:
                await self._serve(quic, call, remote, visit)
        finally:
            self.callers.leave(caller, visit)

    def _node_door(self, quic: QuicConnection, call: AdmittedCall, remote: Address | None) -> TakeNode | None:
        """Who takes the connection if a node has dialled ours, whose AID is that of the default agent."""
        wanted = quic.server_name if call.local is None else str(call.local)
        if remote is None or quic.alpn == HTTP3 or not _names(wanted, self.agents.default.address):
            return None
        return call.take_node or self.punching.get(remote)

    def _remote(self, quic: QuicConnection) -> Address | None:
        """Who calls; None for a caller over HTTP/3 that shows no certificate, where the handshake let it."""
        if quic.alpn == HTTP3 and not quic.peer_certificates:
            return None
        return self.tls.address_of(quic.peer_certificates)

    async def _serve_web(self, quic: QuicConnection, call: AdmittedCall, remote: Address | None, visit: Visit) -> None:
        """A caller over HTTP/3: the server name has said whom it wants."""
        quic.meter = visit
        local = self.tls.web.agent_named(quic.server_name)
        path = call.path() if call.path is not None else f"direct {quic.peer_address}"
        if not self.tls.web.hand_over(WebConnection(quic, local, remote, path)):
            quic.close(FAILED, "too many connections")
            return
        if remote is not None:
            streams, incoming = trio.open_memory_channel[QuicStream](0)
            streams.close()  # its streams are requests, which are not handed out
            connection = AgentConnection(quic, local=local, remote=remote, incoming=incoming, path=call.path)
            self.made(connection)
        await quic.wait_closed()

    async def _serve(self, quic: QuicConnection, call: AdmittedCall, remote: Address, visit: Visit) -> None:
        """Find out whom a proven caller wants, and serve it until it leaves."""
        control = call.control
        route: RouteFrame | None = None
        with trio.move_on_after(CONTROL_LIMIT) as limit:
            control = control or await quic.accept_stream()
            route = await read_route(control)
        if limit.cancelled_caught or control is None:
            quic.close(FAILED, "control stream failed")
            return
        local = self._route(route, quic.server_name if call.local is None else str(call.local))
        if local is None:
            quic.close(FAILED, "unknown agent")
            return
        streams, incoming = trio.open_memory_channel[QuicStream](0)
        connection = AgentConnection(quic, local=local, remote=remote, incoming=incoming, path=call.path)
        if not self.hand_over(connection):
            quic.close(FAILED, "too many connections")
            return
        self.made(connection)
        quic.meter = visit
        async with trio.open_nursery() as nursery, streams:
            if route is not None and not route.legacy:
                nursery.start_soon(self._answer, quic, control, local)
            nursery.start_soon(self._sort_streams, quic, connection, streams)
            await quic.wait_closed()
            nursery.cancel_scope.cancel()

    def _route(self, route: RouteFrame | None, server_name: str | None) -> Address | None:
        """Whom the connection is for; None refuses it (spec 04 §5.4, §17 D10).

        The certificate shown was chosen by server name: serving another agent under it would be a lie.
        """
        shown = self.agents.named(server_name)
        if route is None:
            return shown if _names(server_name, shown) else self.agents.default.address
        return shown if route.target == shown else None

    async def _answer(self, quic: QuicConnection, control: QuicStream, local: Address) -> None:
        with trio.move_on_after(CONTROL_LIMIT):
            await answer_hint(control, quic.peer_address, self.shelf.topics_of(local))

    async def _sort_streams(
        self, quic: QuicConnection, connection: AgentConnection, streams: trio.MemorySendChannel[QuicStream]
    ) -> None:
        # The peer's stream limit bounds the tasks; a stream keeps its place in it until it is done.
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await quic.accept_stream()
                except (ConnectionLost, trio.ClosedResourceError):
                    return
                nursery.start_soon(self._sort_stream, stream, connection, streams.send)

    async def _sort_stream(
        self, stream: QuicStream, connection: AgentConnection, hand_over: Callable[[QuicStream], Awaitable[None]]
    ) -> None:
        def allowed(tokens: Sequence[str]) -> bool:
            return self.allows(connection.local, connection.remote, tokens)

        kind = await _kind_of(stream)
        if kind is StreamKind.MAIL:
            await self._take_mail(stream, connection.local)
            return
        if kind is StreamKind.SERVICE:
            is_admitted = await admit_service_stream(stream, allowed)
        else:
            is_admitted = kind is StreamKind.RAW and allowed(())
            if not is_admitted:
                refuse_stream(stream, StreamErrorCode.ACCESS_DENIED if kind is StreamKind.RAW else 0)
        if is_admitted:
            await hand_over(stream)
        else:
            await stream.aclose()

    async def _take_mail(self, stream: QuicStream, local: Address) -> None:
        """Mail delivered directly: `a2mb`, answered by one byte 01, or by nothing if it is bad (spec 08 §4)."""
        reader = MailDeliveryReader()
        delivery: MailDelivery | None = None
        try:
            with trio.move_on_after(CONTROL_LIMIT):
                await stream.receive_some(len(StreamKind.MAIL.value))
                while delivery is None and (chunk := await stream.receive_some()):
                    delivery = reader.feed(chunk)
                if delivery is not None and self.shelf.take_mail(delivery, local):
                    await stream.send_all(b"\x01")
            await stream.aclose()
        except (DecodeError, trio.BrokenResourceError, trio.ClosedResourceError):
            stream.reset(0)
            stream.stop(0)


async def _kind_of(stream: QuicStream) -> StreamKind:
    """Decide by the first bytes; those that do not come in time leave the stream to the service."""
    kind: StreamKind | None = None
    size = 0
    with trio.move_on_after(PREFIX_WAIT):
        try:
            while kind is None:
                start = await stream.peek(size + 1)
                kind = classify_stream(start, finished=len(start) <= size)
                size = len(start)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the application learns of it when it reads
    return kind or StreamKind.RAW


def _names(server_name: str | None, agent: Address) -> bool:
    try:
        return Address.parse(server_name or "") == agent
    except InvalidAddress:
        return False
