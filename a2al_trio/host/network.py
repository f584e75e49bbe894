"""What a host knows of the network around it, and how it keeps that true (spec 05 §8).

Peers tell our address as a by-product of talking to them. On top of that the named servers are asked, the NAT is
probed, a port of the router is mapped if wanted, and when the machine moves to another network all of it is done
anew.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

import trio

from a2al_trio.dht import Dht, Observation, PeerSilent
from a2al_trio.errors import ConfigurationError
from a2al_trio.host.candidates import Candidate, Candidates, is_publishable
from a2al_trio.host.config import HostConfig
from a2al_trio.identity import Identity, NodeId
from a2al_trio.nat.external import ExternalAddress
from a2al_trio.nat.portmap import PortMapper, default_ipv6_mappers, default_mappers, open_port_mapper
from a2al_trio.nat.probe import ProbeFindings, Prober, probe_claimed, probe_fresh
from a2al_trio.nat.sends import SendLog
from a2al_trio.nat.sense import NatSense, News, reachability_hint
from a2al_trio.nat.stun_client import StunAnswer, open_stun_client
from a2al_trio.nat.watch import open_network_watch
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket
from a2al_trio.net.mux import Mux
from a2al_trio.scopes import open_service_nursery, open_tasks
from a2al_trio.wire import NatType, is_public

__all__ = ["LocalNetwork", "Surroundings"]

logger = logging.getLogger(__name__)

PROBE_INTERVAL = 20 * 60.0
"""Seconds between active probes; keeps the result younger than its 30 minutes."""
PROBE_LIMIT = 30.0
SETTLE = 10.0
"""Seconds our address must rest before it is probed again (spec 05 §14 N13)."""
ASK_INTERVAL = 10 * 60.0
"""Seconds after which servers and nodes are asked again where they see us; their votes last 15 minutes."""
KEEP_ALIVE = 25.0
"""Seconds of silence after which a NAT may forget us (RFC 4787 §4.3 asks for 120, many give 30)."""
DOUBT_INTERVAL = 30.0
"""Seconds between rounds of asking nodes because one of them has changed its mind."""
PREPARE_LIMIT = 10.0
OBSERVE_LIMIT = 10.0
OBSERVE_PEERS = 8
HELPERS = 15
"""Nodes a probe chooses from (spec 05 §5.1)."""
PROBE_NODES = 4 * HELPERS
"""Nodes looked at for some of the wanted address family."""
OUTSIDE = ("observed", "external", "mapped")
"""Sources of candidates that may be the address of a NAT before us."""


class LocalNetwork(Protocol):
    """The machine's network as far as it is needed here, real or simulated; ICE's ports have it too."""

    def hosts(self) -> Sequence[str]:
        """Our own IP addresses, the preferred first."""

    def bind(self, host: str) -> DatagramSocket:
        """Bind a UDP socket to a free port of an address; raises `A2alError` or OSError."""


class Surroundings:
    """Senses the network for one host; constructed before its services, then run by `open`.

    The sockets that `network` makes must be in the same network as those of `mux`, or probes would tell lies.
    """

    def __init__(
        self,
        config: HostConfig,
        mux: Mux,
        network: LocalNetwork,
        *,
        identity: Identity,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._config = config
        self._mux = mux
        self._network = network
        self._identity = identity
        self._entropy = entropy
        shared = mux.quic.local_address == mux.dht.local_address
        self.sense = NatSense(config.min_observed_peers)
        """What is known of the socket of QUIC."""
        self.dht_sense = self.sense if shared else NatSense(config.min_observed_peers)
        """What is known of the socket of the DHT: the same one in the shared layout."""
        self.dht_socket = SendLog(mux.dht)
        """The socket for the DHT to use."""
        self.on_change: list[Callable[[], None]] = []
        """Called when what we publish may have changed."""
        self.on_network_change: list[Callable[[], None]] = []
        """Called when the machine is on another network and that has settled."""
        self.gone_hosts: frozenset[str] = frozenset()
        """The addresses of our own that the last such change took away."""
        self.connected_hosts: Callable[[], Iterable[str]] = tuple
        """To whom QUIC talks, on the same socket as the DHT in the shared layout."""
        self.has_hub: Callable[[], bool] = bool
        """Whether our records name a hub."""
        self._dht: Dht | None = None
        self._external: ExternalAddress | None = None
        self._mappers: list[PortMapper] = []
        self._concluded: dict[int, tuple[SocketAddress | None, SocketAddress | None, NatType]] = {}
        self._probing: trio.Event | None = None
        self._moved = trio.Event()
        self._doubted = trio.Event()
        self._address_changed = trio.Event()
        self._candidates = Candidates(
            quic_address=mux.quic.local_address,
            sense=self.sense,
            dht_sense=self.dht_sense,
            external_host=lambda: None if self._external is None else self._external.host,
            mapped=self._mapped,
            local_hosts=network.hosts,
            fallback_host=config.fallback_host,
        )
        self._look_at_interfaces()
        self._hosts = self.sense.local_hosts

    def _mapped(self) -> Sequence[SocketAddress]:
        return [mapper.mapped for mapper in self._mappers if mapper.mapped is not None]

    # -- what is known -----------------------------------------------------------------------------------------

    @property
    def quic_address(self) -> SocketAddress:
        """The local address of the socket of QUIC."""
        return self._mux.quic.local_address

    def candidates(self) -> tuple[Candidate, ...]:
        """Where we can be reached, best first (spec 04 §8.1).

        IPv6 addresses behind a firewall are left out if we can be called at a hub instead: they would only cost every
        dialer time.
        """
        found = self._candidates.collect(trio.current_time())
        if self.ipv6_reachable is False and self.has_hub():
            return tuple(candidate for candidate in found if not candidate.is_ipv6 or candidate.source == "mapped")
        return found

    @property
    def ipv6_reachable(self) -> bool | None:
        """Whether strangers reach our IPv6 address; None if that is not known, or there is none (spec 05 §9)."""
        return self.dht_sense.reachable(trio.current_time(), ipv6=True)

    def main_addresses(self) -> tuple[SocketAddress, ...]:
        """The stable public addresses of the socket of QUIC; none of a family whose NAT is symmetric."""
        symmetric = self.nat_type is NatType.SYMMETRIC
        return tuple(
            SocketAddress(candidate.host, candidate.port)
            for candidate in self._candidates.collect(trio.current_time())
            if candidate.source != "fallback" and (candidate.is_ipv6 or not symmetric or candidate.source == "mapped")
        )

    @property
    def nat_type(self) -> NatType:
        """The kind of NAT before the socket of QUIC, and so what we publish (spec 05 §6)."""
        now = trio.current_time()
        seen = self.sense.trusted(now) or self.dht_sense.trusted(now)
        if any(not mapped.is_ipv6 and (seen is None or seen.host == mapped.host) for mapped in self._mapped()):
            # Whatever the NAT does otherwise, it forwards this port; seen elsewhere, there is another NAT behind it.
            return NatType.FULL_CONE
        found = self.sense.nat_type(now)
        return found if found is not NatType.UNKNOWN else self.dht_sense.nat_type(now)

    def hint(self) -> str:
        """What a user should know about being reached; empty if there is nothing to say (spec 05 §10)."""
        return reachability_hint(self.nat_type, ipv6_reachable=self.ipv6_reachable)

    # -- what we are told --------------------------------------------------------------------------------------

    def observed_by_dht(self, observation: Observation) -> None:
        """A node of the DHT says where it sees the DHT's socket."""
        self._observe(self.dht_sense, observation.reporter, observation.address, observation.reporter_address)

    def observed_by_agent(self, reporter: NodeId, address: SocketAddress, source: SocketAddress | None = None) -> None:
        """An agent that we dialled directly, at `source`, says where it sees the socket of QUIC."""
        self._observe(self.sense, reporter, address, source)

    def _observe(self, sense: NatSense, reporter: NodeId, address: SocketAddress, source: SocketAddress | None) -> None:
        news = sense.observe(reporter, address, trio.current_time(), source=source)
        if news is News.NONE:
            return
        if self._dht is not None:
            sense.known_peers = len(self._dht.contacts())
        self._compare(sense)
        if news is News.CHANGED:
            self._doubted.set()

    def _observed_by_server(self, server: SocketAddress, answer: StunAnswer) -> None:
        self.sense.observe_server(server, answer.mapped, trio.current_time())
        self._compare(self.sense)

    def _compare(self, sense: NatSense) -> None:
        """Tell if the conclusions are others than last time; they are not drawn where nothing is new."""
        now = trio.current_time()
        before = self._concluded.get(id(sense))
        found = sense.trusted(now), sense.trusted(now, ipv6=True), sense.nat_type(now)
        if found == before:
            return
        self._concluded[id(sense)] = found
        if found[0] is not None and (before is None or found[0] != before[0]):
            self._address_changed.set()
        self._tell_change()

    def _tell_change(self) -> None:
        if self._dht is not None:
            # Nodes at the address of our NAT are behind it too, and it seldom lets us out and in again.
            outside = {found.host for found in self.candidates() if found.source in OUTSIDE}
            if self._mux.relayed:
                outside.clear()  # what is seen is the relay, which others may share
            self._dht.set_external_hosts(outside - set(self._network.hosts()))
        for tell in self.on_change:
            tell()

    # -- what we find out --------------------------------------------------------------------------------------

    async def observe_from_peers(self, addresses: Sequence[SocketAddress]) -> None:
        """Ask nodes at these addresses where they see us, all at once; those that are silent are left out."""
        with trio.move_on_after(OBSERVE_LIMIT):
            async with open_tasks() as nursery:
                for address in dict.fromkeys(addresses):
                    nursery.start_soon(self._ping, address)

    async def _ping(self, address: SocketAddress) -> bool:
        try:
            await self._attached.ping(address)
        except PeerSilent as error:
            logger.debug("%s", error)
            return False
        return True

    async def observe_from_routing(self, count: int = OBSERVE_PEERS) -> int:
        """The same with up to `count` nodes that we know (0 or less: 8); returns how many were asked."""
        addresses = self._attached.bootstrap_candidates(count if count > 0 else OBSERVE_PEERS)
        await self.observe_from_peers(addresses)
        return len(addresses)

    async def run_nat_probe(self) -> None:
        """Find out whether strangers can reach us (spec 05 §5, §14 N1); at most one probe runs at a time.

        A second caller waits for the end of the first one's. Nothing is recorded where nothing could be found out.
        Over a relay there is nothing to probe: it lets in only those we have sent to (RFC 8656 §9).
        """
        if self._probing is not None:
            await self._probing.wait()
        elif not self._mux.relayed:
            self._probing = trio.Event()
            try:
                await self._probe()
            finally:
                self._probing.set()
                self._probing = None

    async def _probe(self) -> None:
        if self._mux.relayed:
            return  # sockets of our own would tell of the NAT that the relay spares us
        before = self.nat_type, self.ipv6_reachable
        self._look_at_interfaces()
        async with open_tasks() as nursery:
            for ipv6 in (False, True)[: 1 + self._mux.dht.local_address.is_ipv6]:
                nursery.start_soon(self._try_family, ipv6)
        if (self.nat_type, self.ipv6_reachable) != before:
            self._tell_change()

    async def _try_family(self, ipv6: bool) -> None:
        try:
            await self._probe_family(ipv6)
        except (ConfigurationError, OSError) as error:
            # No file is left to open, or the address has just gone: the next probe may do better.
            logger.warning("no socket to probe our network with: %s", error)

    async def _probe_family(self, ipv6: bool) -> None:
        """Probe the NAT of our IPv4 traffic, or the firewall of our IPv6 traffic."""
        sense = self.dht_sense
        helpers = [node for node in self._attached.bootstrap_candidates(PROBE_NODES) if node.is_ipv6 == ipv6]
        helpers = [node for node in helpers if is_public(node.host)][:HELPERS]
        claimed = sense.trusted(trio.current_time(), ipv6=ipv6)
        warm = set(self.connected_hosts())
        cold = [node for node in helpers if node.host not in warm and self.dht_socket.is_cold(node.host)]
        # Without a NAT, only from the same address: a host has several of IPv6 (RFC 8981).
        source = claimed.host if ipv6 and claimed is not None else "::" if ipv6 else "0.0.0.0"
        if source not in ("0.0.0.0", "::", *self._network.hosts()):
            return
        prober = Prober(
            bind=partial(self._network.bind, source),
            identity=self._identity,
            ping_from_main=self._ping,
            entropy=self._entropy,
        )
        findings = ProbeFindings()
        if claimed is not None and cold:
            expect_echo = self._attached.expect_echo
            findings = await probe_claimed(prober, claimed, cold, expect_echo=expect_echo)
        if findings.reachable is None and helpers:
            findings = self._as_told(await probe_fresh(prober, helpers), claimed)
        if findings.claimed is not None:
            sense.set_probe_result(
                findings.claimed, findings.reachable, trio.current_time(), symmetric=findings.symmetric
            )
            logger.info("probe of our %s: %s", "IPv6 firewall" if ipv6 else "NAT", findings)

    def _as_told(self, findings: ProbeFindings, claimed: SocketAddress | None) -> ProbeFindings:
        """What a probe of fresh sockets says about the main one."""
        if claimed is None or findings.claimed is None:
            return findings
        if findings.claimed.host != claimed.host:
            return ProbeFindings()
        reachable = findings.reachable
        without_nat = claimed.is_ipv6 or self.dht_sense.is_directly_public(trio.current_time())
        if reachable is False and without_nat:
            # A firewall that is closed for any port may be open for ours.
            reachable = None
        return ProbeFindings(claimed, reachable, findings.symmetric)

    def _look_at_interfaces(self) -> None:
        hosts = frozenset(self._network.hosts())
        for sense, plane in ((self.sense, self._mux.quic), (self.dht_sense, self._mux.dht)):
            bound = plane.local_address
            sense.local_hosts = hosts
            sense.bind_public = not bound.is_ipv6 and is_publishable(bound.host)

    def invalidate_network_caches(self) -> None:
        """Forget what is known of our address: the network has changed. A port mapping stays (spec 04 §20)."""
        for sense in (self.sense, self.dht_sense):
            sense.clear_votes()
            sense.clear_probe_result()
        if self._external is not None:
            self._external.invalidate()

    def network_changed(self) -> None:
        """The machine is on another network: forget, find out again, tell who wants to know (spec 05 §8)."""
        self._moved.set()

    async def prepare(self) -> None:
        """Before publishing: let the named servers answer and the router map our port, at most 10 s."""
        with trio.move_on_after(PREPARE_LIMIT):
            async with trio.open_nursery() as nursery:
                if self._external is not None:
                    nursery.start_soon(self._external.refresh)
                for mapper in self._mappers:
                    nursery.start_soon(mapper.settled)

    # -- keeping it true ---------------------------------------------------------------------------------------

    @property
    def _attached(self) -> Dht:
        assert self._dht is not None, "open() comes first"
        return self._dht

    @asynccontextmanager
    async def open(self, dht: Dht, *, fingerprint: Callable[[], Hashable] | None) -> AsyncIterator[None]:
        """Keep sensing until the block ends. `fingerprint` is what tells networks apart; None watches nothing."""
        self._dht = dht
        async with AsyncExitStack() as stack:
            if self._config.stun_servers or self._config.ip_echo_urls:
                stun = await stack.enter_async_context(open_stun_client(self._mux.stun, entropy=self._entropy))
                servers, urls = self._config.stun_servers, self._config.ip_echo_urls
                self._external = ExternalAddress(stun, servers, urls, self._observed_by_server)
            if self._config.port_mapping and not self._mux.relayed:
                for mappers in (default_mappers, default_ipv6_mappers)[: 1 + self.quic_address.is_ipv6]:
                    mapping = open_port_mapper(self.quic_address.port, on_change=self._tell_change, mappers=mappers)
                    self._mappers.append(await stack.enter_async_context(mapping))
            if fingerprint is not None:
                await stack.enter_async_context(open_network_watch(self.network_changed, sample=fingerprint))
            nursery = await stack.enter_async_context(open_service_nursery("network sensing"))
            nursery.start_soon(self._keep_asking)
            nursery.start_soon(self._keep_probing)
            nursery.start_soon(self._follow_moves)
            nursery.start_soon(self._keep_mapping)
            nursery.start_soon(self._settle_doubts)
            yield

    async def _keep_asking(self) -> None:
        while self._external is not None:
            host = self._external.host
            await self._external.refresh()
            if self._external.host != host:
                self._tell_change()
            await trio.sleep(ASK_INTERVAL)

    async def _keep_probing(self) -> None:
        """Probe once we are in the network, when our address changes, and every 20 minutes.

        Nodes are asked where they see us more often, lest their votes lapse in a quiet network; after the probe,
        since a node that was just sent to is no test of the NAT.
        """
        await self._attached.bootstrapped()
        probe_at = trio.current_time()
        while True:
            self._address_changed = trio.Event()
            if trio.current_time() >= probe_at:
                probe_at = trio.current_time() + PROBE_INTERVAL
                with trio.move_on_after(PROBE_LIMIT):
                    await self.run_nat_probe()
            await self.observe_from_routing()
            with trio.move_on_after(ASK_INTERVAL):
                await self._address_changed.wait()
                await trio.sleep(SETTLE)
                probe_at = trio.current_time()

    async def _keep_mapping(self) -> None:
        """Send something now and then: the address that we tell is worth nothing once the NAT has forgotten it.

        Always to the same node while it answers, since those we have not sent to are needed for probes.
        """
        turn = 0
        while True:
            now = trio.current_time()
            due = self.dht_socket.last_sent_at + KEEP_ALIVE
            if due > now or self.dht_sense.is_directly_public(now):
                await trio.sleep(max(due - now, KEEP_ALIVE / 2))
                continue
            nodes = self._attached.bootstrap_candidates(HELPERS)
            if not nodes:
                await trio.sleep(KEEP_ALIVE)
                continue
            if not await self._ping(nodes[turn % len(nodes)]):
                turn += 1

    async def _settle_doubts(self) -> None:
        """When a node sees us elsewhere than before, ask the others: perhaps the router has restarted."""
        while True:
            await self._doubted.wait()
            if self.nat_type is not NatType.SYMMETRIC:
                await self.observe_from_routing()
            await trio.sleep(DOUBT_INTERVAL)
            self._doubted = trio.Event()

    async def _follow_moves(self) -> None:
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            logger.info("the network has changed")
            self.invalidate_network_caches()
            self._look_at_interfaces()
            self.gone_hosts, self._hosts = self._hosts - self.sense.local_hosts, self.sense.local_hosts
            for tell in self.on_network_change:
                tell()
            self._attached.network_changed()
            for mapper in self._mappers:
                mapper.refresh()
            self._tell_change()
            await self.observe_from_routing()
            await self.prepare()
            with trio.move_on_after(PROBE_LIMIT):
                await self.run_nat_probe()
            self._tell_change()
