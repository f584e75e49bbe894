"""The Trio service: over a simulated network, over real sockets, across restarts, and over punched connections."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from a2al_trio.dht import (
    BootstrapFailed,
    Dht,
    DhtConfig,
    Diversity,
    Observation,
    PeerSilent,
    StaleRecord,
    open_dht,
)
from a2al_trio.errors import RecordInvalid, RecordNotFound
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.testing import Link, SimNet, open_simnet
from a2al_trio.wire.errors import MessageTooLarge
from a2al_trio.wire.payloads import EndpointPayload, topic_key
from a2al_trio.wire.records import RecordType, sign_record
from tests.dht.support import NOW, endpoint, forged, identity, topic

CONFIG = DhtConfig(diversity=Diversity(exempt=("198.51.100.0/24", "127.0.0.0/8")))
numbers = itertools.count(1000)


def clock() -> float:
    """Wall time for records: starts at NOW and runs with the virtual clock."""
    return NOW + trio.current_time() % 100_000


async def open_nodes(
    net: SimNet, stack: AsyncExitStack, count: int, **settings: object
) -> list[tuple[Dht, SocketAddress]]:
    nodes: list[tuple[Dht, SocketAddress]] = []
    for _ in range(count):
        socket = net.host(f"node{next(numbers)}").bind(4121)
        seeds = [nodes[0][1]] if nodes else []
        who = Identity.from_seed(next(numbers).to_bytes(32, "big"))
        dht = await stack.enter_async_context(
            open_dht(socket, who, CONFIG, bootstrap=seeds, unix_time=clock, **settings)  # type: ignore[arg-type]
        )
        await dht.bootstrapped()
        nodes.append((dht, socket.address))
    return nodes


@asynccontextmanager
async def network(count: int, seed: int = 1) -> AsyncIterator[list[tuple[Dht, SocketAddress]]]:
    async with open_simnet(seed=seed) as net, AsyncExitStack() as stack:
        yield await open_nodes(net, stack, count)


async def test_publish_and_resolve(autojump_clock: trio.testing.MockClock) -> None:
    agent = identity(1)
    async with network(8) as nodes:
        record = endpoint(agent, timestamp=int(clock()))
        publication = await nodes[2][0].publish(record)
        assert len(publication.replicas) == 7
        assert nodes[2][0].replica_count(publication.key, record) == 7
        for dht, _ in nodes:
            assert await dht.resolve(agent.address) == record
        with pytest.raises(StaleRecord):
            await nodes[2][0].publish(record)
        with pytest.raises(RecordNotFound, match="nodes were asked"):
            await nodes[3][0].resolve(identity(2).address)
        with pytest.raises(RecordInvalid):
            await nodes[3][0].publish(forged(endpoint(identity(2), timestamp=int(clock()))))
        assert nodes[2][0].records_by(agent.address) == [record]
        assert nodes[2][0].withdraw(agent.address, RecordType.PROFILE) == 0
        assert nodes[2][0].withdraw(agent.address, RecordType.ENDPOINT, agent.address.node_id) == 1
        assert nodes[2][0].local_records(agent.address.node_id) == []


async def test_topics_are_found_by_everybody(autojump_clock: trio.testing.MockClock) -> None:
    async with network(6) as nodes:
        records = [topic(identity(n), "ai/test", timestamp=int(clock())) for n in range(5)]
        for number, record in enumerate(records):
            await nodes[number][0].publish(record, topic_key("ai/test"))
        found = await nodes[5][0].find_records(topic_key("ai/test"), RecordType.TOPIC, subscribe=True)
        assert set(found) == set(records)
        assert await nodes[5][0].find_records(identity(9).node_id, RecordType.TOPIC) == []


async def test_a_record_too_large_to_travel_is_refused_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with network(2) as nodes:
        record = sign_record(identity(1), 3, b"x" * 1000, sequence=1, timestamp=int(clock()), ttl=60)
        with pytest.raises(MessageTooLarge, match="shorten its payload"):
            await nodes[0][0].publish(record)


async def test_pings_tell_how_we_look_and_who_is_there(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[Observation] = []
    async with open_simnet(seed=1) as net, AsyncExitStack() as stack:
        nodes = await open_nodes(net, stack, 3, on_observed=seen.append)
        dht, address = nodes[0]
        pong = await dht.ping(nodes[1][1])
        assert pong.contact.node_address == nodes[1][0].address
        assert pong.observed == address
        assert pong.round_trip == pytest.approx(0.04)
        assert dht.round_trip(nodes[1][0].node_id) == pytest.approx(0.04)
        assert {each.address for each in seen} == {each for _, each in nodes}
        with pytest.raises(PeerSilent):
            await dht.ping(SocketAddress("198.51.100.250", 9))


async def test_seeds_that_are_silent_are_named(autojump_clock: trio.testing.MockClock) -> None:
    async with network(2) as nodes:
        nobody = SocketAddress("198.51.100.250", 9)
        with pytest.raises(BootstrapFailed, match=r"198\.51\.100\.250:9"):
            await nodes[0][0].bootstrap([nobody])
        began = trio.current_time()
        assert await nodes[0][0].bootstrap([nodes[1][1]]) == 1
        assert trio.current_time() - began < 1
        assert await nodes[0][0].bootstrap([]) == 0


async def test_a_cancelled_search_charges_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with network(6) as nodes:
        dht = nodes[0][0]
        for delay in (0.0, 0.001, 0.03, 0.05, 0.1):
            with trio.move_on_after(delay):
                await dht.find_node(identity(77).node_id)
        await trio.sleep(20)
        assert dht.statistics().calls_failed == 0
        assert len(dht.contacts()) == 5


async def test_equal_searches_share_one_run(autojump_clock: trio.testing.MockClock) -> None:
    async with network(6) as nodes, trio.open_nursery() as nursery:
        dht = nodes[0][0]
        before = dht.statistics()
        for _ in range(10):
            nursery.start_soon(dht.find_node, identity(5).node_id)
        await trio.sleep(5)
        after = dht.statistics()
        assert after.searches_shared - before.searches_shared == 9


async def test_nat_probes_tell_an_open_port_from_a_closed_one(autojump_clock: trio.testing.MockClock) -> None:
    async with network(3) as nodes:
        (dht, address), (_, helper) = nodes[0], nodes[1]
        assert await dht.nat_probe(helper, address)
        assert not await dht.nat_probe(helper, SocketAddress(address.host, 9))
        with dht.expect_echo(b"12345678") as arrived:
            assert not arrived.is_set()


async def test_what_a_node_knew_survives_a_restart(tmp_path: Path) -> None:
    """On real sockets: files are written by threads, which virtual time does not wait for."""
    agent, who = identity(1), identity(2)
    record = endpoint(agent)

    def now() -> float:
        return NOW

    loopback = SocketAddress("127.0.0.1", 0)
    async with open_udp(loopback) as other_socket, open_dht(other_socket, identity(3), unix_time=now) as other:
        async with (
            open_udp(loopback) as socket,
            open_dht(socket, who, data_dir=tmp_path, unix_time=now, bootstrap=[other_socket.local_address]) as dht,
        ):
            assert await dht.bootstrapped()
            await dht.publish(record)
        assert sorted(os.listdir(tmp_path)) == ["peers.cache", "published.cbor", "seen_peers.dat"]
        other.invalidate(agent.address.node_id)
        async with open_udp(loopback) as socket, open_dht(socket, who, data_dir=tmp_path, unix_time=now) as dht:
            assert await dht.bootstrapped()
            assert [each.node_address for each in dht.contacts()] == [other.address]
            assert await dht.resolve(agent.address) == record
            await other.find_record(agent.address.node_id, RecordType.ENDPOINT)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"null", b'{"peers": ["nonsense"]}', b"a" * 100])
async def test_broken_files_do_not_keep_a_node_from_starting(tmp_path: Path, content: bytes) -> None:
    for name in ("peers.cache", "seen_peers.dat", "published.cbor"):
        path = tmp_path / name
        path.write_bytes(content)
    async with (
        open_udp(SocketAddress("127.0.0.1", 0)) as socket,
        open_dht(socket, identity(1), data_dir=tmp_path) as dht,
    ):
        assert not await dht.bootstrapped()


async def test_real_sockets_of_both_families(no_leaks: None) -> None:
    agent = identity(1)
    for host in ("127.0.0.1", "::1"):
        async with AsyncExitStack() as stack:
            nodes: list[Dht] = []
            for number in range(4):
                socket = await stack.enter_async_context(open_udp(SocketAddress(host, 0)))
                seeds = [nodes[0].local_address] if nodes else []
                nodes.append(await stack.enter_async_context(open_dht(socket, identity(10 + number), bootstrap=seeds)))
                await nodes[-1].bootstrapped()
            payload = EndpointPayload((f"quic://{nodes[0].local_address}",)).encode()
            record = sign_record(agent, 1, payload, sequence=1, timestamp=int(time.time()) - 3, ttl=3600)
            await nodes[1].publish(record)
            assert await nodes[3].resolve(agent.address) == record


class Pipe:
    """A punched connection, as the pool would give it: messages go straight to the other node."""

    def __init__(self, sender: Dht, receiver: Dht, remote: SocketAddress) -> None:
        self.sender, self.receiver, self.remote_address = sender, receiver, remote
        self.carried = 0
        self.open = True

    def send_nowait(self, message: bytes) -> bool:
        if self.open:
            self.carried += 1
            self.receiver.inject(message, self.sender.node_id, self.remote_address)
        return self.open


async def test_messages_take_a_punched_connection_and_fall_back_to_udp(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_simnet(seed=1) as net, AsyncExitStack() as stack:
        (alice, _), (bob, address) = await open_nodes(net, stack, 2)
        there = Pipe(alice, bob, SocketAddress("203.0.113.1", 1))
        back = Pipe(bob, alice, SocketAddress("203.0.113.2", 2))
        alice.add_route(bob.node_id, there)
        bob.add_route(alice.node_id, back)
        await alice.find_node(identity(5).node_id)
        assert there.carried >= 1
        assert back.carried >= 1
        assert [each.address for each in alice.contacts()] == [address], "the connection's end is no UDP address"
        there.open = back.open = False
        carried = there.carried
        assert await alice.find_node(identity(6).node_id)
        assert there.carried == carried


async def test_nodes_that_only_a_connection_joins_know_each_other_by_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_simnet(seed=1) as net, AsyncExitStack() as stack:
        ((alice, _),) = await open_nodes(net, stack, 1)
        (bob, _), (third, _) = await open_nodes(net, stack, 2)
        record = endpoint(identity(1), timestamp=int(clock()))
        await alice.publish(record)
        there = Pipe(alice, bob, SocketAddress("203.0.113.1", 1))
        back = Pipe(bob, alice, SocketAddress("203.0.113.2", 2))
        # Nothing answers at the connection's ends: only the connection leads there.
        alice.add_route(bob.node_id, there)
        bob.add_route(alice.node_id, back)
        await trio.sleep(20)
        assert bob.node_id in {each.node_id for each in alice.contacts()}
        assert third.node_id in {each.node_id for each in alice.contacts()}, "named over the connection"
        assert alice.replica_count(identity(1).node_id, record) >= 1, "what lacked holders has found some"
        alice.remove_route(bob.node_id, there)
        there.open = False
        assert all(each.address != there.remote_address for each in alice.contacts())


async def test_a_silent_holder_with_a_hub_is_reported_for_punching(
    autojump_clock: trio.testing.MockClock,
) -> None:
    who = identity(30)
    async with open_simnet(seed=1) as net, AsyncExitStack() as stack:
        (dht, seed), _ = await open_nodes(net, stack, 2)
        host = net.host("holder")
        holder = await stack.enter_async_context(
            open_dht(host.bind(4121), who, CONFIG, bootstrap=[seed], unix_time=clock)
        )
        await holder.bootstrapped()
        await dht.publish(endpoint(identity(1), timestamp=int(clock())))
        payload = EndpointPayload(("quic://203.0.113.1:1",), signal="ws://hub.example:80").encode()
        record = sign_record(who, 1, payload, sequence=1, timestamp=int(clock()), ttl=7200)
        dht.put_local(record)
        host.link = Link.broken()
        with trio.fail_after(300):
            event = await dht.unreachable.receive()
        assert (event.node_id, event.record) == (who.node_id, record)
