"""Starting a host: builds its parts, in the order in which they need one another, and runs them (spec 04 §6.1)."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from a2al_trio.dht import Dht, open_dht
from a2al_trio.errors import ConfigurationError
from a2al_trio.host.accept import Admission
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.callers import CallerLimits, Callers
from a2al_trio.host.clock import SteadyClock
from a2al_trio.host.config import ALPN, HTTP3, HostConfig, parse_endpoint
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.control import ControlReply
from a2al_trio.host.dial import Dialler
from a2al_trio.host.host import Host, HostParts
from a2al_trio.host.hubs import HubRegistrations, ice_config, open_hubs
from a2al_trio.host.mailbox import Mailbox, MailEvents
from a2al_trio.host.meet import Meetings
from a2al_trio.host.network import Surroundings
from a2al_trio.host.outgoing import Outgoing
from a2al_trio.host.pool import ConnectionPool, MailCourier
from a2al_trio.host.publish import Publisher
from a2al_trio.host.reach import Reach
from a2al_trio.host.records import Records
from a2al_trio.host.relayed import open_relayed_mux, udp_passes
from a2al_trio.host.seeds import seed_addresses
from a2al_trio.host.shelf import Shelf
from a2al_trio.host.stamps import RecordStamps
from a2al_trio.host.tls import AgentTls
from a2al_trio.host.topics import Topics
from a2al_trio.host.traces import key_log, traced_quic
from a2al_trio.ice import IceNetwork, SystemNetwork
from a2al_trio.identity import Address, Identity
from a2al_trio.nat.watch import network_fingerprint
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.mux import Mux, open_mux
from a2al_trio.punch import MeetingPlace, PunchPool, PunchSide, pool_place
from a2al_trio.quic import QuicEndpoint, open_quic
from a2al_trio.scopes import open_service_nursery

__all__ = ["open_host", "open_host_over"]

logger = logging.getLogger(__name__)


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
        settings = attrs.evolve(settings, bootstrap=bootstrap)
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
    # ICE watches its paths by itself and may know another when one falls silent (RFC 7675).
    over_ice = attrs.evolve(quic_config, silence_limit=None)
    place = MeetingPlace(ice=ice_config(config), quic=over_ice, server=tls.accepting(), network=network)
    seeds = await seed_addresses(config.bootstrap)
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
        builder = _Builder(config, clock, entropy, agents, tls, surroundings, place, mail, quic, dht, hubs, nursery)
        yield builder.start()


@attrs.frozen
class _Builder:
    """What is there already when the parts of a host are put together."""

    config: HostConfig
    clock: SteadyClock
    entropy: Callable[[int], bytes]
    agents: AgentTable
    tls: AgentTls
    surroundings: Surroundings
    place: MeetingPlace
    mail: MailEvents
    quic: QuicEndpoint
    dht: Dht
    hubs: HubRegistrations
    nursery: trio.Nursery
    connections: weakref.WeakSet[AgentConnection] = attrs.field(factory=weakref.WeakSet)

    def start(self) -> Host:
        """Make the host and start its background tasks."""
        surroundings, hubs, nursery = self.surroundings, self.hubs, self.nursery
        shelf = Shelf(self.dht, self.clock, self.config.clock_tolerance, self.mail.kept)
        admission = self._admission(shelf)
        meetings = self._meetings(shelf, admission)
        publisher = self._publisher()
        surroundings.on_change.append(publisher.reconsider)
        surroundings.on_network_change += [
            lambda: self.quic.network_changed(surroundings.gone_hosts),
            hubs.signaling.network_changed,
            self.place.network_changed,
            meetings.punches.network_changed,
        ]
        surroundings.connected_hosts = lambda: {connection.peer_address.host for connection in self.connections}
        surroundings.has_hub = lambda: bool(hubs.published)
        host = Host(self._parts(admission, meetings, publisher))
        self.mail.mailbox = host.mailbox
        nursery.start_soon(admission.run, self.quic)
        nursery.start_soon(publisher.keep_fresh)
        nursery.start_soon(meetings.punches.run)
        nursery.start_soon(hubs.run, meetings.answer, publisher.reconsider)
        return host

    def _admission(self, shelf: Shelf) -> Admission:
        config = self.config
        limits = CallerLimits(
            connections=config.max_connections_per_caller,
            streams=config.max_streams_per_caller,
            rate=config.max_rate_per_caller,
        )
        made = self.connections.add
        return Admission(self.agents, self.tls, shelf, config.max_connections, Callers(limits), made)

    def _meetings(self, shelf: Shelf, admission: Admission) -> Meetings:
        """How agents are dialled, directly and through hubs."""

        def take_reply(peer: Address, reply: ControlReply, source: SocketAddress) -> None:
            if reply.observed is not None:
                self.surroundings.observed_by_agent(peer.node_id, reply.observed, source)
            shelf.take_reply(peer, reply)

        agents, tls, nursery = self.agents, self.tls, self.nursery
        made = self.connections.add
        dialler = Dialler(self.quic, agents, tls, nursery, shelf.held_sequence, take_reply, made)
        own = agents.default.address
        punches = PunchPool(pool_place(self.place), self.dht, own, partial(tls.dialling, local=own))
        meetings = Meetings(self.place, agents, tls, dialler, admission, punches, nursery, self._punch_side)
        punches.take_call, punches.keep_path = partial(meetings.serve_path, local=own), meetings.keep_node_path
        return meetings

    def _punch_side(self) -> PunchSide:
        """What peers are told for the synchronised punch; nothing if they are to learn none of our addresses."""
        addresses = () if self.config.relay_only else self.surroundings.main_addresses()
        return PunchSide(addresses, int(self.surroundings.nat_type), self.clock.wall)

    def _publisher(self) -> Publisher:
        clock, hubs = self.clock, self.hubs
        return Publisher(
            self.config, self.agents, self.dht, self.surroundings, clock, lambda: hubs.published, clock.trust_wall
        )

    def _parts(self, admission: Admission, meetings: Meetings, publisher: Publisher) -> HostParts:
        agents, dht, nursery = self.agents, self.dht, self.nursery
        reach = Reach(agents, meetings.dialler, meetings, partial(_round_trips, dht))
        outgoing = Outgoing(agents=agents, dht=dht, reach=reach, unix_time=self.clock)
        web = attrs.evolve(outgoing, reach=reach.offering(HTTP3, ALPN))
        pool = ConnectionPool(outgoing.open, nursery, default=agents.default.address)
        stamps = RecordStamps(self.clock)
        return HostParts(
            agents=agents,
            dht=dht,
            hubs=self.hubs,
            admission=admission,
            publisher=publisher,
            connections=self.connections,
            punches=meetings.punches,
            outgoing=outgoing,
            pool=pool,
            http_pool=ConnectionPool(web.open, nursery, default=agents.default.address),
            mailbox=Mailbox(
                dht=dht,
                agents=agents,
                courier=MailCourier(pool),
                background=nursery,
                stamps=stamps,
                entropy=self.entropy,
                tolerance=self.config.clock_tolerance,
            ),
            topics=Topics(dht=dht, agents=agents, stamps=stamps),
            records=Records(dht=dht, agents=agents, stamps=stamps),
        )


def _require_own_key(identity: Identity) -> None:
    if identity.is_delegated:
        raise ConfigurationError(
            f"{identity.address} is a delegated agent; open the host with a node identity of its own "
            "(Identity.generate) and register the agent on it"
        )


def _round_trips(dht: Dht) -> list[float]:
    """Round-trip times to the nodes we know, in seconds."""
    times = (dht.round_trip(contact.node_id) for contact in dht.contacts())
    return [seconds for seconds in times if seconds is not None]
