"""A host senses the network around it: through simulated NATs, with real DHT nodes as peers, in virtual time."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.dht import Dht, Observation, open_dht
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import Host, HostConfig
from a2al_trio.host.network import PROBE_INTERVAL, Surroundings
from a2al_trio.identity import Address, NodeId
from a2al_trio.nat.lease import Lease
from a2al_trio.nat.probe import COLD_AFTER
from a2al_trio.nat.sends import MAX_HOSTS, SendLog
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.net.mux import open_mux_over
from a2al_trio.testing import Nat, SimHost, SimNet, open_simnet
from a2al_trio.testing.link import Packet
from a2al_trio.wire import NatType, decode_message
from tests.host.world import SimNetwork, identity, open_sim_host, unix_time
from tests.nat.stun_server import StunServer


@attrs.define
class World:
    net: SimNet
    peers: list[SocketAddress]
    machine: SimHost
    surroundings: Surroundings
    dht: Dht
    changes: list[float]
    fingerprint: int = 0


@asynccontextmanager
async def open_world(
    nat: Nat | None, *, peers: int = 4, config: HostConfig | None = None, ipv6: bool = False
) -> AsyncIterator[World]:
    async with open_simnet(seed=5) as net, contextlib.AsyncExitStack() as stack:
        addresses: list[SocketAddress] = []
        for number in range(peers):
            socket = net.host(f"peer{number}", address=f"2a02:{number + 1}::1" if ipv6 else ()).bind(4121)
            node = open_dht(socket, identity(number + 1), bootstrap=addresses[:1], unix_time=unix_time)
            await stack.enter_async_context(node)
            addresses.append(socket.address)
        behind = net.nat("home", nat) if nat else None
        machine = net.host("us", behind=behind, address="2a02:99::1" if ipv6 else ())
        mux = await stack.enter_async_context(open_mux_over(machine.bind(4121)))
        entropy = random.Random(9).randbytes
        surroundings = Surroundings(
            config or HostConfig(), mux, SimNetwork(machine), identity=identity(99), entropy=entropy
        )
        dht = await stack.enter_async_context(
            open_dht(
                surroundings.dht_socket,
                identity(99),
                bootstrap=addresses,
                on_observed=surroundings.observed_by_dht,
                unix_time=unix_time,
            )
        )
        world = World(net, addresses, machine, surroundings, dht, [])
        surroundings.on_change.append(lambda: world.changes.append(trio.current_time()))
        await stack.enter_async_context(surroundings.open(dht, fingerprint=lambda: world.fingerprint))
        await dht.bootstrapped()
        yield world


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ConfigurationError("this address is gone")])
async def test_a_probe_that_gets_no_socket_is_left_out(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_network: SimNetwork, _host: str) -> DatagramSocket:
        raise error

    async with open_world(Nat.full_cone()) as world:
        monkeypatch.setattr(SimNetwork, "bind", fail)
        await trio.sleep(30)
        assert world.surroundings.sense.reachable(trio.current_time()) is None
        monkeypatch.undo()
        await trio.sleep(PROBE_INTERVAL)
        assert world.surroundings.sense.reachable(trio.current_time()) is True


@pytest.mark.parametrize(
    ("nat", "nat_type"),
    [
        (None, NatType.FULL_CONE),
        (Nat.full_cone(), NatType.FULL_CONE),
        (Nat.restricted(), NatType.RESTRICTED),
        (Nat.port_restricted(), NatType.RESTRICTED),
        (Nat.symmetric(), NatType.SYMMETRIC),
        (Nat.udp_blocked(), NatType.UNKNOWN),
    ],
)
async def test_peers_and_a_probe_tell_where_we_are(
    nat: Nat | None, nat_type: NatType, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(nat) as world:
        await trio.sleep(30)
        assert world.surroundings.nat_type is nat_type
        outside = world.net.nats["home"].address if nat else world.machine.addresses[0]
        candidates = [candidate.url for candidate in world.surroundings.candidates()]
        stable = nat_type not in (NatType.SYMMETRIC, NatType.UNKNOWN)
        assert candidates == ([f"quic://{outside}:4121"] if stable else [])
        assert world.surroundings.main_addresses() == ((SocketAddress(outside, 4121),) if stable else ())
        assert bool(world.surroundings.hint()) == (nat_type is NatType.SYMMETRIC)
        if nat_type is not NatType.UNKNOWN:
            assert world.changes


@pytest.mark.parametrize("nat", [Nat.full_cone(), Nat.port_restricted()])
async def test_the_result_stays_fresh_for_hours(nat: Nat, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(nat) as world:
        for _ in range(4):
            await trio.sleep(PROBE_INTERVAL + 60)
            expected = NatType.FULL_CONE if nat == Nat.full_cone() else NatType.RESTRICTED
            assert world.surroundings.nat_type is expected
            assert len(world.surroundings.main_addresses()) == 1
            assert world.surroundings.sense.reporters(trio.current_time()) == 4


async def test_the_main_mapping_is_probed_with_peers_it_has_not_sent_to_lately(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(Nat.full_cone()) as world:
        await trio.sleep(30)
        sense = world.surroundings.sense
        sense.clear_probe_result()
        cold = SocketAddress("198.51.100.99", 4121)
        assert world.surroundings.dht_socket.is_cold(cold.host)
        assert not world.surroundings.dht_socket.is_cold(world.peers[0].host)
        await world.surroundings.run_nat_probe()
        assert sense.reachable(trio.current_time()) is True


async def test_a_probe_leaves_every_helper_with_our_right_address(autojump_clock: trio.testing.MockClock) -> None:
    """A node takes whoever asks it for a contact, so nobody but us may ask, and the last word is the main socket's."""
    async with open_world(Nat.port_restricted()) as world:
        await trio.sleep(30)
        senders: set[Address] = set()
        last_from: dict[SocketAddress, int] = {}

        def listen(packet: Packet, now: float) -> None:
            if packet.source.host == world.machine.addresses[0]:
                senders.add(decode_message(packet.data).sender)
                last_from[packet.destination] = packet.source.port

        world.net.tap(listen)
        await world.surroundings.run_nat_probe()
        assert senders == {identity(99).address}
        assert last_from == dict.fromkeys(world.peers, 4121)


@pytest.mark.parametrize(("firewall", "reachable"), [(None, True), (Nat.port_restricted(), False)])
async def test_a_firewall_before_our_ipv6_address_is_noticed(
    firewall: Nat | None, reachable: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The answer is that of nodes we have not sent to for minutes, so it takes a while (spec 05 §9, §14 N1)."""
    async with open_world(firewall, ipv6=True) as world:
        surroundings = world.surroundings
        ours = [f"quic://[{world.machine.addresses[0]}]:4121"]
        await trio.sleep(2 * PROBE_INTERVAL + 60)
        assert surroundings.ipv6_reachable is reachable
        assert surroundings.nat_type is NatType.UNKNOWN
        assert ("IPv6" in surroundings.hint()) is not reachable
        assert [found.url for found in surroundings.candidates()] == ours
        surroundings.has_hub = lambda: True
        assert [found.url for found in surroundings.candidates()] == (ours if reachable else [])
        assert [str(address) for address in surroundings.main_addresses()] == ["[2a02:99::1]:4121"]


async def test_only_one_probe_runs_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(Nat.port_restricted()) as world:
        await trio.sleep(30)
        before = trio.current_time()
        bound: list[DatagramSocket] = []
        bind = world.machine.bind

        def count_and_bind(**_: object) -> DatagramSocket:
            bound.append(bind())
            return bound[-1]

        monkeypatch.setattr(world.machine, "bind", count_and_bind)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.surroundings.run_nat_probe)
        assert trio.current_time() > before
        assert len(bound) == 2, "the sockets of one probe"


async def test_moving_to_another_network(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(None) as world:
        await trio.sleep(30)
        (before,) = world.surroundings.main_addresses()
        told: list[float] = []
        world.surroundings.on_network_change.append(lambda: told.append(trio.current_time()))
        world.machine.move()
        world.fingerprint += 1
        world.surroundings.network_changed()  # what the watch does once the change has settled
        await trio.sleep(30)
        (after,) = world.surroundings.main_addresses()
        assert after != before
        assert after.host == world.machine.addresses[0]
        assert len(told) == 1
        assert world.surroundings.nat_type is NatType.FULL_CONE


async def test_a_router_that_restarts_gives_another_port(autojump_clock: trio.testing.MockClock) -> None:
    nat = attrs.evolve(Nat.port_restricted(), keeps_ports=False)
    async with open_world(nat) as world:
        await trio.sleep(30)
        (before,) = world.surroundings.main_addresses()
        world.net.nats["home"].forget_mappings()
        await trio.sleep(45)
        (after,) = world.surroundings.main_addresses()
        assert (after.host, after.port != before.port) == (before.host, True)
        assert world.surroundings.nat_type is NatType.RESTRICTED


async def test_asking_peers(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(Nat.port_restricted()) as world:
        world.surroundings.invalidate_network_caches()
        assert world.surroundings.candidates() == ()
        started = trio.current_time()
        silent = SocketAddress("198.51.100.250", 4121)
        await world.surroundings.observe_from_peers([*world.peers, silent])
        assert trio.current_time() - started <= 10
        assert world.surroundings.candidates()
        assert await world.surroundings.observe_from_routing(2) == 2
        assert await world.surroundings.observe_from_routing(0) == 4


async def test_a_named_server_is_enough(autojump_clock: trio.testing.MockClock) -> None:
    config = HostConfig(stun_servers=("stun:203.0.113.77:3478",))
    async with open_world(Nat.port_restricted(), peers=0, config=config) as world, trio.open_nursery() as nursery:
        server = StunServer(world.net.host("stun", address="203.0.113.77").bind(3478))
        nursery.start_soon(server.run)
        await world.surroundings.prepare()
        outside = SocketAddress(world.net.nats["home"].address, 4121)
        assert world.surroundings.main_addresses() == (outside,)
        asked = server.asked
        await trio.sleep(3600)
        assert world.surroundings.main_addresses() == (outside,)
        assert server.asked > asked
        nursery.cancel_scope.cancel()


async def test_a_mapped_port_is_advertised(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Router:
        name = "router"

        async def map(self, port: int) -> Lease:
            await trio.sleep(1)
            return Lease(SocketAddress("203.0.113.9", port), 3600)

        async def unmap(self) -> None:
            pass

    monkeypatch.setattr("a2al_trio.host.network.default_mappers", lambda: [Router()])
    async with open_world(Nat.symmetric(), config=HostConfig(port_mapping=True)) as world:
        await world.surroundings.prepare()
        assert [candidate.url for candidate in world.surroundings.candidates()] == ["quic://203.0.113.9:4121"]
        assert world.surroundings.nat_type is NatType.FULL_CONE
        assert world.surroundings.main_addresses() == (SocketAddress("203.0.113.9", 4121),)
        server = SocketAddress("198.51.100.9", 3478)
        world.surroundings.sense.observe_server(server, SocketAddress("6.6.6.6", 4121), trio.current_time())
        assert world.surroundings.nat_type.name == "SYMMETRIC", "there is another NAT behind the router's"


async def test_a_liar_moves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(Nat.port_restricted()) as world:
        await trio.sleep(30)
        before = world.surroundings.candidates()
        changes = len(world.changes)
        for number in range(50):
            liar = SocketAddress("45.1.2.3", number + 1)
            world.surroundings.observed_by_agent(
                NodeId(number.to_bytes(32, "big")), SocketAddress("6.6.6.6", 666), liar
            )
        assert world.surroundings.candidates() == before
        assert len(world.changes) == changes


async def test_the_log_of_sends_forgets_nothing_that_matters(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net:
        log = SendLog(net.host("us").bind(4121))

        def send(number: int) -> str:
            host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            log.send_nowait(Transmit(b"x", 1, SocketAddress(host, 1)))
            return host

        first = send(0)
        assert not log.is_cold(first)
        assert log.is_cold("10.9.9.9")
        for number in range(1, MAX_HOSTS + 1):
            send(number)
        assert not log.is_cold(first), "forgotten, but not cold"
        await trio.sleep(COLD_AFTER)
        assert log.is_cold(first)
        log.close()


@asynccontextmanager
async def open_neighbourhood(nat: Nat) -> AsyncIterator[tuple[SimNet, Host, Host]]:
    """Whole hosts: four public ones, of which the last is given, and one behind a NAT."""
    async with open_simnet(seed=6) as net, contextlib.AsyncExitStack() as stack:
        hosts: list[Host] = []
        for number in range(4):
            machine = net.host(f"peer{number}")
            hosts.append(
                await stack.enter_async_context(open_sim_host(machine, identity(number + 1), seeds=tuple(hosts[:1])))
            )
        machine = net.host("us", behind=net.nat("home", nat))
        us = await stack.enter_async_context(open_sim_host(machine, identity(99), seeds=tuple(hosts)))
        yield net, us, hosts[-1]


async def test_records_follow_a_router_that_restarts(autojump_clock: trio.testing.MockClock) -> None:
    async with open_neighbourhood(attrs.evolve(Nat.full_cone(), keeps_ports=False)) as (net, us, other):
        await us.publish()
        before = (await other.resolve(us.address)).endpoints
        await trio.sleep(30)
        net.nats["home"].forget_mappings()
        await trio.sleep(60)
        found = await other.resolve(us.address)
        assert found.endpoints != before
        assert found.payload.nat_type == us.nat_type == NatType.FULL_CONE
        async with other.connect(us.address), await us.accept():
            pass


async def test_the_host_tells_what_it_senses(autojump_clock: trio.testing.MockClock) -> None:
    async with open_neighbourhood(Nat.symmetric()) as (_, us, other):
        await us.run_nat_probe()
        assert us.nat_type.name == "SYMMETRIC"
        assert "symmetric" in us.nat_hint()
        await other.run_nat_probe()
        assert other.nat_type is NatType.FULL_CONE
        assert other.nat_hint() == ""
        assert await us.observe_from_routing(3) == 3
        await us.observe_from_peers([other.dht_address])
        us.invalidate_network_caches()
        assert us.sense.reporters(trio.current_time()) == 0
        assert us.nat_type.name == "UNKNOWN"


async def test_over_a_relay_nothing_is_probed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_mux_over(net.host("us").bind(1)) as mux:
        relayed = attrs.evolve(mux, relayed=True)
        network = SimNetwork(net.hosts["us"])
        surroundings = Surroundings(
            HostConfig(), relayed, network, identity=identity(9), entropy=random.Random(1).randbytes
        )
        await surroundings.run_nat_probe()
        assert surroundings.nat_type is NatType.UNKNOWN


async def test_in_the_split_layout_each_socket_is_sensed_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_mux_over(net.host("us").bind(1), net.hosts["us"].bind(2)) as mux:
        network = SimNetwork(net.hosts["us"])
        surroundings = Surroundings(
            HostConfig(min_observed_peers=1), mux, network, identity=identity(9), entropy=random.Random(1).randbytes
        )
        reporter = NodeId(bytes(32))
        seen = SocketAddress("203.0.113.5", 1)
        surroundings.observed_by_dht(Observation(reporter, SocketAddress("198.51.100.9", 1), seen))
        assert surroundings.dht_sense.trusted(0) == seen
        assert surroundings.sense.trusted(0) is None
        assert "quic://203.0.113.5:2" in [found.url for found in surroundings.candidates()]
        surroundings.observed_by_agent(reporter, SocketAddress("203.0.113.5", 77))
        assert "quic://203.0.113.5:77" in [found.url for found in surroundings.candidates()]
