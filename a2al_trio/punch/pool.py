"""The punch pool: DHT traffic to nodes that plain UDP does not reach, over QUIC connections (spec 06 §16).

The DHT asks for connections; the pool calls the nodes, the most wanted first and a few at a time, and answers their
calls. One connection per node is kept. Each DHT message is a stream of its own; answers come on streams of the other
side, or by UDP.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import attrs
import trio

from a2al_trio.dht import Dht, PeerUnreachable
from a2al_trio.errors import A2alError, DecodeError, RemoteProtocolError
from a2al_trio.identity import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.punch.meeting import Meeting, MeetingPlace, open_outgoing
from a2al_trio.punch.turns import Turn
from a2al_trio.quic import ClientTls, QuicConfig, QuicConnection, QuicStream
from a2al_trio.signaling import NoAgent
from a2al_trio.wire import EndpointPayload

__all__ = ["PunchPool", "PunchedRoute", "pool_place"]

logger = logging.getLogger(__name__)

MAX_MESSAGE: Final = 65_536
"""Bytes of a stream that are read (spec 06 §16.3)."""
MESSAGE_LIMIT: Final = 10.0
"""Seconds a peer has to end a stream that it opened, or to close its half of one of ours."""
CBOR_MAP: Final = 5
"""The major type with which DHT messages begin (RFC 8949 §3.1)."""
QUEUED_MESSAGES: Final = 64
QUEUED_PUNCHES: Final = 64
CONCURRENT_PUNCHES: Final = 4
MAX_CONNECTIONS: Final = 64
PUNCH_LIMIT: Final = 60.0
FIRST_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 1800.0
_DUPLICATE = "superseded by faster candidate"

IsOther = Callable[[QuicStream], Awaitable[bool]]
"""Whether a stream shows that its connection is none of a node's."""


def pool_place(place: MeetingPlace) -> MeetingPlace:
    """The meeting place for DHT connections: never relayed, kept alive every 20 s, idle for 5 min (spec 06 §14)."""
    ice = attrs.evolve(place.ice, use_relays=False)
    quic: QuicConfig = attrs.evolve(place.quic, idle_timeout=300.0, keep_alive=20.0)
    return attrs.evolve(place, ice=ice, quic=quic)


class PunchedRoute:
    """A connection to one node, as the DHT uses it."""

    def __init__(self, quic: QuicConnection, *, dialled_here: bool) -> None:
        self.quic = quic
        self.dialled_here = dialled_here
        self.used_at = trio.current_time()
        self.dropped = 0
        self._send, self._queue = trio.open_memory_channel[bytes](QUEUED_MESSAGES)

    @property
    def remote_address(self) -> SocketAddress:
        """Where the connection ends."""
        return self.quic.peer_address

    def send_nowait(self, message: bytes) -> bool:
        """Queue a message; False if the connection has ended. What finds no room is lost, as on a full socket."""
        if self.quic.close_reason is not None:
            return False
        self.used_at = trio.current_time()
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            self.dropped += 1
        return True

    async def run(
        self, take: Callable[[bytes], None], first: QuicStream | None, is_other: IsOther | None
    ) -> QuicStream | None:
        """Carry messages both ways until the connection ends, or its first stream is something else: see `adopt`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_messages, nursery)
                if first is not None:
                    nursery.start_soon(self._receive_message, first, take)
                async for stream in self.quic:
                    if first is None and is_other is not None and await is_other(stream):
                        nursery.cancel_scope.cancel()
                        return stream
                    first = stream
                    # The peer's stream limit bounds the tasks.
                    nursery.start_soon(self._receive_message, stream, take)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError) as ended:
            logger.debug("punched connection with %s ended: %s", self.remote_address, ended.exceptions[0])
        finally:
            self._queue.close()
        return None

    async def _send_messages(self, nursery: trio.Nursery) -> None:
        async for message in self._queue:
            stream = await self.quic.open_stream()
            nursery.start_soon(self._send_message, stream, message)

    async def _send_message(self, stream: QuicStream, message: bytes) -> None:
        try:
            with trio.move_on_after(MESSAGE_LIMIT):
                await stream.send_all(message)
                await stream.send_eof()
                # The peer closes its half unused; until it has, the stream counts against our limit.
                await stream.receive_some(1)
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _receive_message(self, stream: QuicStream, take: Callable[[bytes], None]) -> None:
        """Read to the end and close our half unused, so that the peer has its credit back (spec 06 §16.3)."""
        try:
            message = b""
            with trio.move_on_after(MESSAGE_LIMIT):
                message = await stream.receive_all(limit=MAX_MESSAGE)
                if message and message[0] >> 5 != CBOR_MAP:
                    stream.reset()  # whoever asks something else is not to take silence for the answer
                await stream.send_eof()
            stream.stop()
            await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        except RemoteProtocolError:
            stream.stop()
            stream.reset()
            return
        if message:
            take(message)


@attrs.define
class _Peer:
    failures: int = 0
    not_before: float = 0.0
    punching: bool = False


@attrs.define(eq=False)
class PunchPool:
    """Keeps the punched connections of one node; `dialling` gives the TLS settings for calling a node."""

    place: MeetingPlace
    dht: Dht
    node: Address
    dialling: Callable[[Address], ClientTls]
    take_call: Callable[[Meeting, Address], Awaitable[None]] | None = None
    """Keeps the connection of a peer that called us at the same moment, perhaps on behalf of an agent."""
    keep_path: Callable[[Meeting, Callable[[], Awaitable[object]]], Awaitable[None]] | None = None
    """Keeps a connection by what it is given, and takes what the peer's agents then dial on the same path."""
    _routes: dict[NodeId, PunchedRoute] = attrs.field(factory=dict)
    _peers: dict[NodeId, _Peer] = attrs.field(factory=dict)
    _wanted: list[tuple[int, float, NodeId, PeerUnreachable]] = attrs.field(factory=list)
    _arrived: trio.Event = attrs.field(factory=trio.Event)

    @property
    def conn_count(self) -> int:
        """How many nodes are connected."""
        return len(self._routes)

    def has_conn(self, node_id: NodeId) -> bool:
        """Whether a node is connected."""
        return node_id in self._routes

    def send_to(self, node_id: NodeId, message: bytes) -> bool:
        """Send a message to a connected node; False if it is not connected."""
        route = self._routes.get(node_id)
        return route is not None and route.send_nowait(message)

    async def run(self) -> None:
        """Punch towards whoever the DHT asks for; the connections live in this task's children."""
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENT_PUNCHES):
                nursery.start_soon(self._work, nursery)
            async for wanted in self.dht.unreachable:
                self.punch(wanted)

    def punch(self, wanted: PeerUnreachable) -> None:
        """Ask for a connection; the most wanted come first. Nothing happens if there is one, or too soon."""
        peer = self._peers.setdefault(wanted.node_id, _Peer())
        now = trio.current_time()
        queued = any(entry[2] == wanted.node_id for entry in self._wanted)
        if peer.punching or queued or self.has_conn(wanted.node_id) or now < peer.not_before:
            return
        heapq.heappush(self._wanted, (-wanted.priority, now, wanted.node_id, wanted))
        if len(self._wanted) > QUEUED_PUNCHES:
            self._wanted.remove(max(self._wanted))
            heapq.heapify(self._wanted)
        self._arrived.set()

    def network_changed(self) -> None:
        """What has failed so far was perhaps the fault of the network we were in."""
        for peer in self._peers.values():
            peer.failures, peer.not_before = 0, 0.0

    async def adopt(
        self, quic: QuicConnection, caller: Address, first: QuicStream | None = None, *, is_other: IsOther | None = None
    ) -> QuicStream | None:
        """Keep a connection a node has opened to us, `first` being a stream already accepted, until it ends.

        `caller` is the AID its certificate proves. Without `first` the connection may turn out to be no node's: if
        `is_other` says so of the first stream, that is returned, and the connection is the caller's again.
        """
        return await self._keep(caller, PunchedRoute(quic, dialled_here=False), first, is_other)

    async def _work(self, nursery: trio.Nursery) -> None:
        while True:
            while not self._wanted:
                self._arrived = trio.Event()
                await self._arrived.wait()
            *_, wanted = heapq.heappop(self._wanted)
            if self.has_conn(wanted.node_id):
                continue
            peer = self._peers.setdefault(wanted.node_id, _Peer())
            peer.punching, over = True, trio.Event()
            # The connection outlives the punch, so it is a task of its own.
            nursery.start_soon(self._call, wanted, over)
            await over.wait()
            peer.punching = False
            self._forget_old_peers()

    async def _call(self, wanted: PeerUnreachable, over: trio.Event) -> None:
        address = wanted.record.address
        turn: Turn | None = None
        try:
            payload = EndpointPayload.decode(wanted.record.payload)
            hubs = payload.signals or (payload.signal,)
            with trio.CancelScope(deadline=trio.current_time() + PUNCH_LIMIT) as limit:
                turn = await self.place.turns.take(self.node, address, gives_way=limit)
                tls = self.dialling(address)
                async with open_outgoing(
                    self.place,
                    hubs,
                    local=self.node,
                    remote=address,
                    tls=tls,
                    on_path=turn.insist,
                ) as meeting:
                    limit.deadline = math.inf
                    turn.end()
                    over.set()
                    if meeting.is_client or self.take_call is None:
                        keep = partial(self._keep, address, PunchedRoute(meeting.quic, dialled_here=True))
                        if self.keep_path is None:
                            await keep()
                        else:
                            await self.keep_path(meeting, keep)
                    else:
                        await self.take_call(meeting, address)
            if trio.current_time() >= limit.deadline:
                self._failed(wanted.node_id)
        except (A2alError, OSError) as error:
            logger.debug("no connection to node %s: %s", address, error)
            if not over.is_set():
                self._failed(wanted.node_id, no_agent=isinstance(error, NoAgent))
        finally:
            if turn is not None:
                turn.end()
            over.set()

    def _failed(self, node_id: NodeId, *, no_agent: bool = False) -> None:
        peer = self._peers.setdefault(node_id, _Peer())
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**peer.failures) * random.uniform(0.8, 1.2)
        peer.failures += 1
        peer.not_before = trio.current_time() + pause
        self.dht.punch_failed(node_id, no_agent=no_agent)

    async def _keep(
        self, address: Address, route: PunchedRoute, first: QuicStream | None = None, is_other: IsOther | None = None
    ) -> QuicStream | None:
        node_id = address.node_id
        older = self._routes.get(node_id)
        if older is not None and older.quic.close_reason is None:
            loser = self._loser(node_id, older, route)
            loser.quic.close(0, _DUPLICATE)
            if loser is route:
                return None
        self._make_room()
        self._routes[node_id] = route
        self._peers.pop(node_id, None)
        self.dht.add_route(node_id, route)

        def take(message: bytes) -> None:
            route.used_at = trio.current_time()
            try:
                self.dht.inject(message, node_id, route.remote_address)
            except DecodeError as error:
                logger.debug("node %s sent what is no message: %s", address, error)

        other: QuicStream | None = None
        try:
            other = await route.run(take, first, is_other)
        finally:
            if other is None:
                route.quic.close(0, "pool closed")
            self.dht.remove_route(node_id, route)
            if self._routes.get(node_id) is route:
                del self._routes[node_id]
        return other

    def _loser(self, node_id: NodeId, older: PunchedRoute, newer: PunchedRoute) -> PunchedRoute:
        """Both nodes called each other: both keep the connection the smaller NodeID dialled (spec 06 D4)."""
        if older.dialled_here == newer.dialled_here:
            return older
        ours_stays = self.node.node_id < node_id
        return newer if newer.dialled_here != ours_stays else older

    def _make_room(self) -> None:
        if len(self._routes) >= MAX_CONNECTIONS:
            idle = min(self._routes.values(), key=lambda route: route.used_at)
            idle.quic.close(0, "pool eviction")

    def _forget_old_peers(self) -> None:
        now = trio.current_time()
        for node_id in [key for key, peer in self._peers.items() if not peer.punching and peer.not_before < now]:
            if len(self._peers) > 2 * QUEUED_PUNCHES:
                del self._peers[node_id]
