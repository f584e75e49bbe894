"""The host: one process-level runtime with a DHT node, a QUIC endpoint and any number of agents (spec 04)."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from a2al_trio.dht import Dht, Publication, open_dht
from a2al_trio.dht.report import Json
from a2al_trio.errors import (
    A2alError,
    ConfigurationError,
    ConnectionLost,
    RecordInvalid,
    RecordNotFound,
    StreamReset,
    StreamStopped,
)
from a2al_trio.host.accept import Admission
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.clock import SteadyClock
from a2al_trio.host.config import ALPN, HTTP3, HostConfig, parse_endpoint
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.control import ControlReply
from a2al_trio.host.dial import Dialler
from a2al_trio.host.hubs import HubRegistrations, ice_config, open_hubs
from a2al_trio.host.mailbox import Mailbox, MailEvents
from a2al_trio.host.meet import Meetings
from a2al_trio.host.network import Surroundings
from a2al_trio.host.pool import ConnectionPool, MailCourier
from a2al_trio.host.publish import Publisher
from a2al_trio.host.reach import Reach
from a2al_trio.host.records import Records
from a2al_trio.host.relayed import open_relayed_mux, udp_passes
from a2al_trio.host.report import debug_data
from a2al_trio.host.service_streams import AccessRule
from a2al_trio.host.shelf import Shelf
from a2al_trio.host.stamps import RecordStamps
from a2al_trio.host.tls import AgentTls
from a2al_trio.host.topics import Topics
from a2al_trio.host.traces import key_log, traced_quic
from a2al_trio.host.web import WebAgent, WebConnection
from a2al_trio.ice import IceNetwork, SystemNetwork
from a2al_trio.identity import Address, Identity
from a2al_trio.nat.sense import NatSense
from a2al_trio.nat.watch import network_fingerprint
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.mux import Mux, open_mux
from a2al_trio.punch import MeetingPlace, PunchPool, PunchSide, pool_place
from a2al_trio.quic import open_quic
from a2al_trio.scopes import open_service_nursery
from a2al_trio.wire import EndpointPayload, NatType, SignedRecord, WireDecodeError

__all__ = ["EndpointRecord", "Host", "open_host", "open_host_over"]

logger = logging.getLogger(__name__)

C = TypeVar("C")


@attrs.frozen
class EndpointRecord:
    """A resolved agent: the signed record and what it says."""

    record: SignedRecord
    payload: EndpointPayload

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs at which the agent says it can be reached."""
        return tuple(self.payload.endpoints or ())

    def check(self, peer: Address, *, now: float) -> None:
        """Raise RecordInvalid unless this is a record of `peer` and not expired at `now` (Unix seconds)."""
        if self.record.address != peer:
            raise RecordInvalid(f"the record given is of {self.record.address}, not of {peer}")
        if now > self.record.expires_at:
            ago = now - self.record.expires_at
            raise RecordInvalid(f"the endpoint record of {peer} expired {ago:.0f} s ago; resolve the AID again")


class Host:
    """A running host; made by `open_host` only."""

    def __init__(
        self,
        *,
        agents: AgentTable,
        dht: Dht,
        reach: Reach,
        hubs: HubRegistrations,
        admission: Admission,
        publisher: Publisher,
        connections: weakref.WeakSet[AgentConnection],
        background: trio.Nursery,
        entropy: Callable[[int], bytes],
        tolerance: int,
    ) -> None:
        self._agents = agents
        self._reach = reach
        self._hubs = hubs
        self._admission = admission
        self._publisher = publisher
        self._surroundings = publisher.surroundings
        self._connections = connections
        stamps = RecordStamps(publisher.unix_time)
        self.dht = dht
        """The DHT node."""
        self.punches = reach.meetings.punches
        """Connections to DHT nodes that plain UDP does not reach; it keeps them by itself."""
        self.pool = ConnectionPool(self.open_connection, background, default=agents.default.address)
        """Connections shared by those who dial the same agent again and again."""
        self._web_reach = reach.offering(HTTP3, ALPN)
        self.http_pool = ConnectionPool(self.open_http_connection, background, default=agents.default.address)
        """Connections for HTTP, shared likewise; see `open_http_connection`."""
        self.mailbox = Mailbox(
            dht=dht,
            agents=agents,
            courier=MailCourier(self.pool),
            background=background,
            stamps=stamps,
            entropy=entropy,
            tolerance=tolerance,
        )
        """Encrypted notes to agents and from them."""
        self.topics = Topics(dht=dht, agents=agents, stamps=stamps)
        """Announcing agents under topics, and finding them."""
        self.records = Records(dht=dht, agents=agents, stamps=stamps)
        """Profiles and other records under an agent's AID."""
        self.signal_stats: Callable[[], Mapping[str, Json]] | None = None
        """What `/debug/stats` shows as `signal`."""
        self.beacon_stats: Callable[[], Mapping[str, Json]] | None = None
        """What `/debug/stats` shows beside the DHT's counts."""

    @property
    def address(self) -> Address:
        """The AID of the default agent, which is also the node's."""
        return self._agents.default.address

    @property
    def agents(self) -> frozenset[Address]:
        """The AIDs of all agents of this host."""
        return self._agents.addresses

    @property
    def dht_address(self) -> SocketAddress:
        """The local address of the DHT's socket."""
        return self.dht.local_address

    @property
    def quic_address(self) -> SocketAddress:
        """The local address of QUIC's socket; the same one in the shared layout (spec 04 §2.1)."""
        return self._surroundings.quic_address

    @property
    def sense(self) -> NatSense:
        """What peers say our public address is."""
        return self._surroundings.sense

    @property
    def signal_urls(self) -> tuple[str, ...]:
        """The hubs we want to be called at, best first: those configured, else those of the bootstrap nodes."""
        return self._hubs.candidates

    @property
    def active_signal_urls(self) -> tuple[str, ...]:
        """Those of them at which we are registered now; endpoint records name these."""
        return self._hubs.published

    @property
    def connections(self) -> tuple[AgentConnection, ...]:
        """The live agent connections, incoming and outgoing, in no order."""
        return tuple(connection for connection in self._connections if connection.close_reason is None)

    @property
    def access(self) -> AccessRule | None:
        """Who may open streams to which of our agents: a function of local AID, remote AID and tokens.

        None, the default, lets every caller in; a stream that is refused is reset with code 0x41 (spec 08 §4).
        """
        return self._admission.access

    @access.setter
    def access(self, rule: AccessRule | None) -> None:
        self._admission.access = rule

    def debug(self, section: str) -> Json:
        """The data of a `/debug` page: identity, routing, store, stats, host or connections (spec 04 §14)."""
        return debug_data(self, section)

    @property
    def nat_type(self) -> NatType:
        """The kind of NAT before this host, as far as it is known; it is published."""
        return self._surroundings.nat_type

    def nat_hint(self) -> str:
        """What a user should know about being reached; empty if there is nothing to say (spec 05 §10)."""
        return self._surroundings.hint()

    async def run_nat_probe(self) -> None:
        """Have other nodes test whether strangers reach us; `nat_type` has the result (spec 05 §5).

        The host does this by itself from time to time; while it does, this waits for the result.
        """
        await self._surroundings.run_nat_probe()

    async def observe_from_peers(self, addresses: Sequence[SocketAddress]) -> None:
        """Ask the nodes at these addresses where they see us; those that are silent are left out."""
        await self._surroundings.observe_from_peers(addresses)

    async def observe_from_routing(self, count: int = 8) -> int:
        """Ask up to `count` nodes that we know where they see us; returns how many were asked."""
        return await self._surroundings.observe_from_routing(count)

    def invalidate_network_caches(self) -> None:
        """Forget what is known of our address and of the NAT; port mappings stay (spec 04 §20)."""
        self._surroundings.invalidate_network_caches()

    def register_agent(self, identity: Identity) -> None:
        """Add an agent; call `publish` afterwards to make it resolvable.

        Raises ConfigurationError if it is registered already, or if its key or delegation proof does not fit.
        """
        self._agents.register(identity)
        self._hubs.agents_changed()

    def unregister_agent(self, address: Address) -> None:
        """Remove an agent and stop keeping its record alive; the default agent and unknown ones stay as they are."""
        if address != self.address:
            self._publisher.forget(address)
            self._agents.unregister(address)
            self._hubs.agents_changed()
            self.mailbox.forget(address)

    def build_endpoint_payload(self) -> EndpointPayload:
        """What this host would publish now; raises NoRoute if it knows no address of its own."""
        return self._publisher.build_payload()

    async def publish(self) -> tuple[Publication, ...]:
        """Publish the endpoint records of all agents and keep them fresh while the host lives.

        Each record is in the DHT when this returns, at as many nodes as took it. Raises NoRoute if no address
        is known at which others could reach this host.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hubs.wait_tried)
            nursery.start_soon(self._surroundings.prepare)
        return await self._publisher.publish_all()

    async def publish_endpoint(
        self,
        *,
        agent: Address | None = None,
        payload: EndpointPayload | None = None,
        sequence: int | None = None,
        ttl: int | None = None,
    ) -> Publication:
        """Publish one agent's endpoint record once, with what is given in place of what we would choose.

        `ttl` is in seconds. Raises StaleRecord if `sequence` is not above the one published before.
        """
        return await self._publisher.publish(agent, payload=payload, sequence=sequence, ttl=ttl)

    async def publish_record(self, record: SignedRecord) -> Publication:
        """Publish a signed record of a sovereign type, 0x01 to 0x0F; raises ConfigurationError for others."""
        if not 1 <= record.record_type <= 0x0F:
            raise ConfigurationError(f"record type {record.record_type:#x} is not sovereign; use 0x01 to 0x0F")
        return await self.dht.publish(record)

    async def resolve(self, peer: Address) -> EndpointRecord:
        """Look up the endpoint record of an agent.

        Raises RecordNotFound if nobody holds one, RecordInvalid if what they hold cannot be used.
        """
        try:
            record = await self.dht.resolve(peer)
        except RecordNotFound as error:
            raise RecordNotFound(f"{peer} has published nothing that could be found: {error}") from error
        try:
            return EndpointRecord(record, EndpointPayload.decode(record.payload))
        except WireDecodeError as error:
            raise RecordInvalid(f"the endpoint record of {peer} is malformed: {error}") from error

    async def find_records(self, peer: Address, record_type: int = 0) -> list[SignedRecord]:
        """All records published under an agent's AID, of one type or (0) of all."""
        return await self.records.find(peer, record_type)

    async def open_connection(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AgentConnection:
        """Connect to an agent and hand the connection over to the caller, who must close it.

        Resolves the AID unless given a `record`, or one address with `at`. `local` picks the agent we dial as.
        Raises ResolveError (RecordInvalid also for a given record that is expired or another agent's), or ConnectError
        naming every attempt with its reason; IdentityMismatch if somebody else answers.
        """
        return await self._open_connection(self._reach, peer, at=at, record=record, local=local)

    async def open_http_connection(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AgentConnection:
        """Connect to an agent for HTTP; arguments and errors are those of `open_connection`.

        The connection's `alpn` is "h3" if the agent serves HTTP/3, and else that of agent connections, on whose
        streams HTTP/1.1 is spoken.
        """
        return await self._open_connection(self._web_reach, peer, at=at, record=record, local=local)

    async def _open_connection(
        self,
        reach: Reach,
        peer: Address,
        *,
        at: SocketAddress | None,
        record: EndpointRecord | None,
        local: Address | None,
    ) -> AgentConnection:
        self._agents.get(local)
        if at is not None:
            return await reach.dialler.dial(peer, at, local=local)
        if record is not None:
            record.check(peer, now=self._publisher.unix_time())
        found = record or await self.resolve(peer)
        try:
            return await reach.connect(peer, found.payload, local=local)
        except A2alError:
            if record is None:
                # The record has led nowhere: the next resolve asks the network (spec 04 §17 D16).
                self.dht.invalidate(peer.node_id, found.record.record_type)
            raise

    @asynccontextmanager
    async def connect(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AsyncIterator[AgentConnection]:
        """Connect to an agent for the length of a block, then close with code 0; see `open_connection`."""
        async with await self.open_connection(peer, at=at, record=record, local=local) as connection:
            yield connection

    async def accept(self) -> AgentConnection:
        """Wait for the next incoming connection, its peer proven and its agent known; the caller must close it."""
        return await self._admission.accept()

    async def serve(
        self,
        handler: Callable[[AgentConnection], Awaitable[object]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run `handler` in a task for every incoming connection until cancelled; returning closes the connection.

        A handler whose own connection or stream the peer ends is over quietly, and so is one whose tasks end so; any
        other error propagates.
        """
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection = await self.accept()
                nursery.start_soon(_handle, handler, connection, connection)

    async def serve_http3(
        self,
        handler: Callable[[WebConnection], Awaitable[object]],
        *,
        web: Iterable[WebAgent] = (),
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Offer HTTP/3 until cancelled, and run `handler` for every caller that takes it; returning says goodbye.

        `web` lets agents be reached by HTTP/3 clients that are no agents; without, every caller proves its AID.
        The handler asks `allows` before it answers a request. Its errors are treated as by `serve`. Raises
        ConfigurationError for what cannot be in `web`.
        """
        with self._admission.tls.web.open(web) as connections:
            async with trio.open_nursery() as nursery:
                task_status.started()
                async for connection in connections:
                    nursery.start_soon(_handle, handler, connection, connection.quic)

    def allows(self, local: Address, remote: Address | None, tokens: Sequence[str] = ()) -> bool:
        """Whether `access` lets a caller use an agent of ours; `remote` is None for an anonymous one."""
        return self._admission.allows(local, remote, tokens)


async def _handle(handler: Callable[[C], Awaitable[object]], connection: C, resource: trio.abc.AsyncResource) -> None:
    async with resource:
        try:
            await handler(connection)
        except* (ConnectionLost, StreamReset, StreamStopped) as ended:
            # In a group, when the handler runs a task per stream.
            logger.debug("%r ended: %s", connection, ended.exceptions)


@asynccontextmanager
async def open_host(
    identity: Identity, config: HostConfig | None = None, *, bootstrap: Sequence[str] | None = None
) -> AsyncIterator[Host]:
    """Run a host for the length of a block, on UDP sockets of its own.

    `identity` is the node and the default agent; `bootstrap` is short for the setting of that name. Leaving the
    block says goodbye to all peers and ends everything. Raises ConfigurationError with the fix for a setting that
    cannot be, such as a port in use.
    """
    settings = config or HostConfig()
    if bootstrap is not None:
        settings = attrs.evolve(settings, bootstrap=tuple(bootstrap))
    network = SystemNetwork()
    async with (
        _open_own_mux(settings, network, identity) as mux,
        open_host_over(mux, identity, settings, network=network, fingerprint=network_fingerprint) as host,
    ):
        yield host


@asynccontextmanager
async def _open_own_mux(config: HostConfig, network: IceNetwork, identity: Identity) -> AsyncIterator[Mux]:
    bind = parse_endpoint(config.listen, setting="listen")
    quic_bind = parse_endpoint(config.quic_listen, setting="quic_listen")
    if config.turn_servers and not await udp_passes(ice_config(config), network, identity, config.bootstrap):
        logger.warning("no UDP passes here: running over a TURN relay")
        async with open_relayed_mux(config.turn_servers, network) as mux:
            yield mux
    else:
        async with open_mux(bind, quic_bind=quic_bind) as mux:
            yield mux


@asynccontextmanager
async def open_host_over(
    mux: Mux,
    identity: Identity,
    config: HostConfig,
    *,
    network: IceNetwork,
    fingerprint: Callable[[], Hashable] | None = None,
    unix_time: Callable[[], float] = time.time,
    entropy: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[Host]:
    """Run a host over a mux that the caller owns, such as one on a simulated socket; see `open_host`.

    `network` is where ICE and NAT probes find their sockets, and hubs and relays are dialled. It must be the one that
    the sockets of `mux` are in: `SystemNetwork()` for this machine's. `fingerprint` tells one network from another,
    so that a move is noticed; without it none is.
    `unix_time` is wall time in seconds, which records and certificates carry.
    """
    _require_own_key(identity)
    clock = SteadyClock(unix_time)
    agents = AgentTable(identity, unix_time=clock, tolerance=config.clock_tolerance)
    tls = AgentTls(agents, unix_time=clock, tolerance=config.clock_tolerance, keylog=key_log(config))
    quic_config = traced_quic(config)
    surroundings = Surroundings(config, mux, network, identity=identity, entropy=entropy)
    place = MeetingPlace(ice=ice_config(config), quic=quic_config, server=tls.accepting(), network=network)
    seeds = await _seed_addresses(config.bootstrap)
    mail = MailEvents()
    async with (
        open_quic(mux.quic, quic_config, server=tls.accepting()) as quic,
        open_dht(
            surroundings.dht_socket,
            identity,
            config.dht,
            bootstrap=seeds,
            data_dir=config.data_dir,
            on_observed=surroundings.observed_by_dht,
            on_push=mail.pushed,
            on_waiting_mail=mail.waiting,
            unix_time=clock,
            entropy=entropy,
        ) as dht,
        surroundings.open(dht, fingerprint=fingerprint),
        open_hubs(config, agents, network) as hubs,
        open_service_nursery("host") as nursery,
    ):
        shelf = Shelf(dht, clock, config.clock_tolerance, mail.kept)
        connections: weakref.WeakSet[AgentConnection] = weakref.WeakSet()

        def take_reply(peer: Address, reply: ControlReply, source: SocketAddress) -> None:
            if reply.observed is not None:
                surroundings.observed_by_agent(peer.node_id, reply.observed, source)
            shelf.take_reply(peer, reply)

        dialler = Dialler(quic, agents, tls, nursery, shelf.held_sequence, take_reply, connections.add)
        admission = Admission(
            agents, tls, shelf, config.max_connections, config.max_connections_per_caller, connections.add
        )
        punches = PunchPool(pool_place(place), dht, identity.address, partial(tls.dialling, local=identity.address))
        own_side = partial(_punch_side, config, surroundings, unix_time)
        meetings = Meetings(place, agents, tls, dialler, admission, punches, nursery, own_side)
        publisher = Publisher(config, agents, dht, surroundings, clock, lambda: hubs.published, clock.trust_wall)
        surroundings.on_change.append(publisher.reconsider)
        surroundings.on_network_change += [hubs.signaling.network_changed, place.network_changed]
        surroundings.connected_hosts = lambda: {connection.peer_address.host for connection in connections}
        host = Host(
            agents=agents,
            dht=dht,
            reach=Reach(agents, dialler, meetings, partial(_round_trips, dht)),
            hubs=hubs,
            admission=admission,
            publisher=publisher,
            connections=connections,
            background=nursery,
            entropy=entropy,
            tolerance=config.clock_tolerance,
        )
        mail.mailbox = host.mailbox
        nursery.start_soon(admission.run, quic)
        nursery.start_soon(publisher.keep_fresh)
        nursery.start_soon(punches.run)
        nursery.start_soon(hubs.run, meetings.answer, publisher.reconsider)
        yield host


def _require_own_key(identity: Identity) -> None:
    if identity.is_delegated:
        raise ConfigurationError(
            f"{identity.address} is a delegated agent; open the host with a node identity of its own "
            "(Identity.generate) and register the agent on it"
        )


def _punch_side(config: HostConfig, surroundings: Surroundings, unix_time: Callable[[], float]) -> PunchSide:
    """What peers are told for the synchronised punch; nothing if they are to learn none of our addresses."""
    addresses = () if config.relay_only else surroundings.main_addresses()
    return PunchSide(addresses, int(surroundings.nat_type), unix_time)


def _round_trips(dht: Dht) -> list[float]:
    """Round-trip times to the nodes we know, in seconds."""
    times = (dht.round_trip(contact.node_id) for contact in dht.contacts())
    return [seconds for seconds in times if seconds is not None]


async def _seed_addresses(seeds: Sequence[str]) -> list[SocketAddress]:
    """Resolve bootstrap names; a name that does not resolve now is left out and said in the log."""
    found: list[SocketAddress] = []
    for seed in seeds:
        host, _, port = seed.rpartition(":")
        try:
            answers = await trio.socket.getaddrinfo(host.strip("[]"), int(port), type=trio.socket.SOCK_DGRAM)
        except OSError as error:
            logger.warning("bootstrap node %s does not resolve: %s", seed, error)
            continue
        found += [SocketAddress.of(str(sockaddr[0]), int(port)) for *_, sockaddr in answers]
    return list(dict.fromkeys(found))
