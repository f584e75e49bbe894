"""The simulated internet: delivery, runs, faults, NATs and the port's contract."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import ReceiveBuffer
from a2al_trio.net.datagram import Transmit
from a2al_trio.testing import Link, Nat, SimSocket, open_simnet

Clock = trio.testing.MockClock


async def receive_all(sock: SimSocket, seconds: float = 1.0) -> list[bytes]:
    """What arrives within so many virtual seconds."""
    found: list[bytes] = []
    with trio.move_on_after(seconds):
        while True:
            found.extend(bytes(datagram) for run in await sock.receive() for datagram in run.datagrams())
    return found


async def arrives(source: SimSocket, destination: SocketAddress, target: SimSocket) -> bool:
    source.send_nowait(Transmit(b"ping", 4, destination))
    return bool(await receive_all(target))


async def test_a_run_arrives_as_a_run_after_the_latency_of_both_links(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        alice, bob = net.host("alice").bind(4121), net.host("bob").bind(4121)
        data = bytes(range(250))
        assert alice.send_nowait(Transmit(data, 100, bob.address, ecn=2)) == 250
        began = trio.current_time()
        [run] = await bob.receive()
        assert trio.current_time() - began == pytest.approx(0.02)
        assert (bytes(run.data), run.segment_size, run.ecn) == (data, 100, 2)
        assert (run.source, run.local_host) == (alice.address, bob.address.host)
        assert [len(datagram) for datagram in run.datagrams()] == [100, 100, 50]


async def test_views_are_overwritten_at_the_next_receive(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        alice, bob = net.socket_pair()
        alice.send_nowait(Transmit(b"first", 5, bob.address))
        [kept] = await bob.receive()
        with trio.move_on_after(1):
            await bob.receive()
        assert bytes(kept.data) == b"\xdd" * 5


async def test_reading_into_a_buffer_of_the_caller_packs_from_its_front(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        alice, bob = net.socket_pair()
        buffer = ReceiveBuffer()
        for text in (b"one", b"twoo"):
            alice.send_nowait(Transmit(text, 10, bob.address))
        await bob.wait_readable()
        batch = bob.read_nowait(buffer)
        assert [bytes(run.data) for run in batch] == [b"one", b"twoo"]
        assert bytes(buffer.view[: buffer.used]) == b"onetwoo"


async def test_an_empty_datagram_is_ignored(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        alice, bob = net.socket_pair()
        alice.send_nowait(Transmit(b"", 1, bob.address))
        assert await receive_all(bob) == []


async def test_the_same_seed_gives_the_same_losses(autojump_clock: Clock) -> None:
    async def run(seed: int) -> list[bytes]:
        async with open_simnet(seed, link=Link(loss=0.3, reorder=0.2, duplicate=0.1)) as net:
            alice, bob = net.socket_pair()
            for number in range(200):
                alice.send_nowait(Transmit(struct.pack("!H", number), 2, bob.address))
            return await receive_all(bob)

    first = await run(1)
    assert first == await run(1) != await run(2)
    assert sorted(first) != first
    assert len(set(first)) < len(first) < 200


async def test_a_slow_link_fills_the_socket_and_drains(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(rate=100_000)) as net:
        alice = net.host("alice").bind(send_buffer=20_000)
        bob = net.host("bob").bind()
        data = bytes(60_000)
        began, sent = trio.current_time(), 0
        while sent < len(data):
            taken = alice.send_nowait(Transmit(data[sent:], 1000, bob.address))
            assert taken % 1000 == 0
            sent += taken
            if sent < len(data):
                await alice.wait_writable()
        assert 0.3 < trio.current_time() - began < 0.6
        assert len(await receive_all(bob)) == 60


async def test_a_full_queue_and_a_small_mtu_drop(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(rate=1e6, queue=10_000, mtu=1300)) as net:
        alice, bob = net.socket_pair()
        alice.send_nowait(Transmit(bytes(1300), 1300, bob.address))
        assert await receive_all(bob) == []
        alice.send_nowait(Transmit(bytes(50_000), 1000, bob.address))
        assert len(await receive_all(bob)) == 9


async def test_closing_wakes_the_receiver_and_frees_the_port(autojump_clock: Clock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        host = net.host("alice")
        sock = host.bind(4121)
        with pytest.raises(OSError, match="in use"):
            host.bind(4121)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await sock.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sock.receive()
        sock.close()
        sock.close()
        with pytest.raises(trio.ClosedResourceError):
            sock.send_nowait(Transmit(b"x", 1, sock.local_address))
        host.bind(4121).close()


@pytest.mark.parametrize(
    ("nat", "strangers_port", "strangers_host"),
    [
        (Nat.full_cone(), True, True),
        (Nat.restricted(), True, False),
        (Nat.port_restricted(), False, False),
        (Nat.symmetric(), False, False),
    ],
)
async def test_nats_filter_as_named(
    autojump_clock: Clock, nat: Nat, strangers_port: bool, strangers_host: bool
) -> None:
    async with open_simnet() as net:
        server, stranger = net.host("server"), net.host("stranger").bind()
        known, other_port = server.bind(4121), server.bind(4122)
        inside = net.host("inside", behind=net.nat("nat", nat)).bind(5000)
        inside.send_nowait(Transmit(b"hello", 5, known.address))
        [run] = await known.receive()
        assert run.source.host == net.nats["nat"].address
        assert (run.source.port == 5000) == nat.keeps_ports
        assert await arrives(known, run.source, inside)
        assert await arrives(other_port, run.source, inside) == strangers_port
        assert await arrives(stranger, run.source, inside) == strangers_host
        await trio.sleep(nat.timeout)
        assert not await arrives(known, run.source, inside)


async def test_a_symmetric_nat_shows_every_destination_another_port(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        servers = [net.host(f"server{i}").bind(4121) for i in range(3)]
        inside = net.host("inside", behind=net.nat("nat", Nat.symmetric())).bind(5000)
        seen = set()
        for server in servers:
            inside.send_nowait(Transmit(b"hello", 5, server.address))
            [run] = await server.receive()
            seen.add(run.source.port)
        assert len(seen) == 3


async def test_nested_nats_hairpin_and_local_traffic(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        carrier = net.nat("carrier", Nat(hairpin=True))
        home = net.nat("home", Nat.full_cone(), behind=carrier)
        server = net.host("server").bind(4121)
        deep, neighbour = (net.host(name, behind=home).bind(5000) for name in ("deep", "neighbour"))
        shallow = net.host("shallow", behind=carrier).bind(5000)
        assert await arrives(deep, neighbour.address, neighbour)
        ends = []
        for sock in (deep, shallow):
            sock.send_nowait(Transmit(b"hello", 5, server.address))
            [run] = await server.receive()
            assert run.source.host == carrier.address
            ends.append(run.source)
        shallow.send_nowait(Transmit(b"open", 4, ends[0]))
        assert await arrives(deep, ends[1], shallow)
        carrier.forget_mappings()
        assert not await arrives(server, ends[0], deep)


async def test_blocked_udp_and_outages(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        server_host = net.host("server")
        server = server_host.bind(4121)
        blocked = net.host("blocked", behind=net.nat("nat", Nat.udp_blocked())).bind()
        open_one = net.host("open").bind()
        assert not await arrives(blocked, server.address, server)
        server_host.link = Link.broken()
        assert not await arrives(open_one, server.address, server)
        server_host.link = Link()
        assert await arrives(open_one, server.address, server)


async def test_ipv6_is_filtered_but_not_translated(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        server = net.host("server", ipv6=True)
        sock = server.bind(4121)
        inside = net.host("inside", behind=net.nat("nat", Nat.symmetric()), ipv6=True)
        own = SocketAddress(inside.addresses[1], 5000)
        inner = inside.bind(5000)
        assert not await arrives(sock, own, inner)
        inner.send_nowait(Transmit(b"hello", 5, SocketAddress(server.addresses[1], 4121)))
        [run] = await sock.receive()
        assert run.source == own
        assert await arrives(sock, own, inner)


async def test_a_host_that_moves_is_reached_at_its_new_address_only(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        alice, roaming = net.host("alice").bind(), net.host("roaming")
        sock = roaming.bind(4121)
        old = sock.address
        roaming.move()
        assert not await arrives(alice, old, sock)
        assert await arrives(alice, sock.address, sock)


async def test_traffic_can_be_captured(autojump_clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "net.pcap"
    async with open_simnet() as net:
        alice, bob = net.socket_pair()
        with net.pcap(path):
            alice.send_nowait(Transmit(b"hello", 5, bob.address, ecn=1))
        alice.send_nowait(Transmit(b"later", 5, bob.address))
    data = path.read_bytes()
    assert struct.unpack_from("<I", data)[0] == 0xA1B2C3D4
    assert data[40:42] == bytes([0x45, 1])
    assert data.endswith(b"hello")
