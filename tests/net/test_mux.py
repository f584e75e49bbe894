"""The mux: planes get their own datagrams, bounded, without waiting for each other, and QUIC without copies."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.net.mux import MAX_QUEUED, Mux, MuxPlane, open_mux, open_mux_over
from a2al_trio.net.socket import UdpSocket, open_udp
from a2al_trio.testing import Link, SimSocket, open_simnet

Clock = trio.testing.MockClock
LOOPBACK = SocketAddress("127.0.0.1", 0)
QUIC, DHT, PROBE = b"\x40quic", b"\xa1dht", b"\x00\xecprobe"
STUN = bytes.fromhex("000100002112a442") + bytes(12)


def texts(batch: list[Received]) -> list[bytes]:
    return [bytes(datagram) for run in batch for datagram in run.datagrams()]


async def gather(plane: MuxPlane, seconds: float = 1.0) -> list[bytes]:
    found: list[bytes] = []
    with trio.move_on_after(seconds):
        while True:
            found += texts(await plane.receive())
    return found


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("split_layout", [False, True])
async def test_each_plane_gets_its_own(split_layout: bool) -> None:
    quic_bind = LOOPBACK if split_layout else None
    async with open_mux(LOOPBACK, quic_bind=quic_bind) as mux, open_udp(LOOPBACK) as peer:
        assert (mux.quic.local_address == mux.dht.local_address) != split_layout
        assert mux.stun.local_address == mux.quic.local_address
        for plane, text in ((mux.quic, QUIC), (mux.dht, DHT), (mux.stun, STUN)):
            peer.send_nowait(Transmit(PROBE, 100, plane.local_address))
            peer.send_nowait(Transmit(text, 100, plane.local_address))
            [run] = await plane.receive()
            assert (bytes(run.data), run.source) == (text, peer.local_address)
            plane.send_nowait(Transmit(b"answer", 100, run.source))
            [answer] = await peer.receive()
            assert (bytes(answer.data), answer.source) == (b"answer", plane.local_address)


async def test_in_the_split_layout_strays_are_dropped(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        host, peer = net.host("host"), net.host("peer").bind()
        dht, quic = host.bind(1), host.bind(2)
        async with open_mux_over(dht, quic) as mux:
            for sock in (dht, quic):
                for text in (QUIC, DHT, STUN):
                    peer.send_nowait(Transmit(text, 100, sock.address))
            assert await gather(mux.quic) == [QUIC]
            assert await gather(mux.dht) == [DHT]
            assert await gather(mux.stun) == [STUN]


async def test_a_plane_that_is_not_read_costs_only_itself(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(latency=0)) as net:
        sock, peer = net.socket_pair()
        async with open_mux_over(sock) as mux:
            for _ in range(40):
                peer.send_nowait(Transmit((QUIC + bytes(1195)) * 64, 1200, sock.address))
                peer.send_nowait(Transmit(DHT, 100, sock.address))
                await trio.testing.wait_all_tasks_blocked()
                assert texts(await mux.dht.receive()) == [DHT]
            kept = await mux.quic.receive()
            held = texts(kept)
            assert 0 < len(held) < 40 * 64
            assert len(held) + mux.quic.dropped == 40 * 64
            assert set(held) == {QUIC + bytes(1195)}
            for _ in range(MAX_QUEUED + 5):
                peer.send_nowait(Transmit(DHT, 100, sock.address))
                await trio.lowlevel.checkpoint()
            peer.send_nowait(Transmit(QUIC, 100, sock.address))
            assert texts(await mux.quic.receive()) == [QUIC]
            kept_by_dht = len(await gather(mux.dht))
            assert kept_by_dht <= MAX_QUEUED
            assert kept_by_dht + mux.dht.dropped == MAX_QUEUED + 5


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), clock=st.builds(Clock, autojump_threshold=st.just(0)))
async def test_what_a_plane_handed_out_stays_intact_until_it_is_asked_again(seed: int, clock: Clock) -> None:
    draw = random.Random(seed)
    async with open_simnet(seed, link=Link(latency=0)) as net:
        sock, peer = net.socket_pair()
        async with open_mux_over(sock) as mux:
            sent, got = 0, []
            for _ in range(draw.randrange(1, 15)):
                for _ in range(draw.randrange(1, 40)):
                    sent += 1
                    text = QUIC + sent.to_bytes(4, "big") * draw.randrange(1, 300)
                    peer.send_nowait(Transmit(text, len(text), sock.address))
                    if draw.random() < 0.1:
                        peer.send_nowait(Transmit(DHT * 10, 100, sock.address))
                await trio.testing.wait_all_tasks_blocked()
                if draw.random() < 0.7:
                    batch = await mux.quic.receive()
                    before = texts(batch)
                    for _ in range(draw.randrange(5)):
                        await trio.testing.wait_all_tasks_blocked()
                    assert texts(batch) == before
                    got += before
            with trio.move_on_after(0.1):
                got += texts(await mux.quic.receive())
    numbers = [int.from_bytes(text[5:9], "big") for text in got]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + mux.quic.dropped == sent
    for text in got:
        assert text == QUIC + text[5:9] * ((len(text) - 5) // 4)


async def flood(mux: Mux, peer: UdpSocket, rounds: int) -> int:
    """Keep both real sockets busy; returns the QUIC datagrams received, each checked."""
    received = 0
    for number in range(rounds):
        stamp = number.to_bytes(4, "big")
        peer.send_nowait(Transmit((QUIC + stamp).ljust(1200, b"q") * 40, 1200, mux.quic.local_address))
        peer.send_nowait(Transmit((DHT + stamp).ljust(1200, b"d") * 5, 1200, mux.dht.local_address))
        for text in texts(await mux.quic.receive()):
            assert text == (QUIC + stamp).ljust(1200, b"q")
            received += 1
        assert texts(await mux.dht.receive()) == [(DHT + stamp).ljust(1200, b"d")] * 5
    return received


@pytest.mark.usefixtures("no_leaks")
async def test_mixed_runs_coalesced_by_the_kernel_are_sorted_out() -> None:
    async with open_mux() as mux, open_udp(LOOPBACK) as peer:
        to = SocketAddress("127.0.0.1", mux.quic.local_address.port)
        mixed = b"".join(text.ljust(500, b"x") for text in (QUIC, DHT, QUIC, PROBE, QUIC))
        peer.send_nowait(Transmit(mixed, 500, to))
        found = texts(await mux.quic.receive())
        while len(found) < 3:
            found += texts(await mux.quic.receive())
        assert found == [QUIC.ljust(500, b"x")] * 3
        assert texts(await mux.dht.receive()) == [DHT.ljust(500, b"x")]


@pytest.mark.usefixtures("no_leaks")
async def test_both_planes_stay_whole_under_load() -> None:
    async with open_mux(LOOPBACK) as mux, open_udp(LOOPBACK) as peer:
        assert await flood(mux, peer, 30) == 30 * 40
        assert mux.quic.dropped == mux.dht.dropped == 0


async def test_receiving_is_cancel_safe(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(latency=0)) as net:
        sock, peer = net.socket_pair()
        async with open_mux_over(sock) as mux:
            got: list[bytes] = []
            for number in range(20):
                peer.send_nowait(Transmit(QUIC + bytes([number]), 100, sock.address))
                for _ in range(number % 7):  # cancelled before, while and after the mux hands over
                    await trio.lowlevel.checkpoint()
                with trio.move_on_after(0):
                    got += texts(await mux.quic.receive())
            got += await gather(mux.quic)
            assert got == [QUIC + bytes([number]) for number in range(20)]


async def expect_closed(plane: MuxPlane) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await plane.receive()


async def test_leaving_the_block_closes_the_planes(autojump_clock: Clock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        sock: SimSocket = net.host("host").bind()
        async with open_mux_over(sock) as mux:
            nursery.start_soon(expect_closed, mux.dht)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await mux.dht.receive()
        for plane in (mux.quic, mux.dht, mux.stun):
            await expect_closed(plane)
            with pytest.raises(trio.ClosedResourceError):
                plane.send_nowait(Transmit(b"x", 1, sock.address))
            with pytest.raises(trio.ClosedResourceError):
                await plane.wait_writable()


async def test_a_socket_closed_underneath_closes_the_planes(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        sock = net.host("host").bind()
        async with open_mux_over(sock) as mux, trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, mux.quic)
            await trio.testing.wait_all_tasks_blocked()
            sock.close()
