"""STUN from a given socket: through simulated NATs, over a real mux, and with any bytes coming back."""

from __future__ import annotations

import contextlib
import random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.nat.stun_client import StunFailed, open_stun_client
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.net.mux import open_mux
from a2al_trio.net.socket import open_udp
from a2al_trio.testing import Link, Nat, open_simnet
from tests.nat.stun_server import StunServer

ENTROPY = random.Random(2).randbytes


async def test_the_mapping_of_the_socket_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        server = StunServer(net.host("stun").bind(3478))
        nursery.start_soon(server.run)
        us = net.host("us", behind=net.nat("home", Nat.port_restricted()))
        async with open_stun_client(us.bind(4121), entropy=ENTROPY) as stun:
            answer = await stun.query(SocketAddress(net.hosts["stun"].addresses[0], 3478))
        assert answer.mapped == SocketAddress(net.nats["home"].address, 4121)
        assert answer.other is None
        assert 0 < answer.round_trip < 0.1
        nursery.cancel_scope.cancel()


async def test_requests_are_repeated_and_silence_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        server = StunServer(net.host("stun").bind(3478), deaf=2)
        nursery.start_soon(server.run)
        address = SocketAddress(net.hosts["stun"].addresses[0], 3478)
        async with open_stun_client(net.host("us").bind(), entropy=ENTROPY) as stun:
            assert (await stun.query(address)).round_trip > 1.4
            net.hosts["stun"].link = Link.broken()
            before = trio.current_time()
            with pytest.raises(StunFailed, match="does not answer"):
                await stun.query(address)
            assert trio.current_time() - before == pytest.approx(3.0)
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        nursery.start_soon(StunServer(net.host("stun").bind(3478), refuse=True).run)
        async with open_stun_client(net.host("us").bind(), entropy=ENTROPY) as stun:
            with pytest.raises(StunFailed, match="420 Unknown Attribute"):
                await stun.query(SocketAddress(net.hosts["stun"].addresses[0], 3478))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("nat", "open_to_all"), [(Nat.full_cone(), True), (Nat.restricted(), False)])
async def test_filtering_is_tested_from_the_other_address(
    nat: Nat, open_to_all: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        other = net.host("stun-other").bind(3479)
        server = StunServer(net.host("stun").bind(3478), other, other.address)
        nursery.start_soon(server.run)
        us = net.host("us", behind=net.nat("home", nat))
        address = SocketAddress(net.hosts["stun"].addresses[0], 3478)
        async with open_stun_client(us.bind(), entropy=ENTROPY) as stun:
            assert (await stun.query(address)).other == other.address
            assert await stun.can_be_reached_from_elsewhere(address) is open_to_all
        nursery.cancel_scope.cancel()


async def test_on_the_socket_of_quic(no_leaks: None) -> None:
    loopback = SocketAddress("127.0.0.1", 0)
    async with open_udp(loopback) as socket, open_mux(loopback) as mux, trio.open_nursery() as nursery:
        nursery.start_soon(StunServer(socket).run)
        async with open_stun_client(mux.stun) as stun:
            with trio.fail_after(3):
                answers = [await stun.query(socket.local_address) for _ in range(3)]
        assert {answer.mapped for answer in answers} == {mux.quic.local_address}
        nursery.cancel_scope.cancel()


async def answer_with(datagrams: list[bytes]) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        ours, theirs = net.socket_pair(Link(latency=0.001))

        async def reply() -> None:
            while True:
                for received in await theirs.receive():
                    request = bytes(received.data)
                    for datagram in datagrams:
                        # With the right transaction ID, or nothing would be looked at.
                        data = datagram[:8] + request[8:20] + datagram[20:]
                        theirs.send_nowait(Transmit(data, len(data), received.source))

        nursery.start_soon(reply)
        async with open_stun_client(ours, entropy=ENTROPY) as stun:
            with contextlib.suppress(StunFailed):
                await stun.query(theirs.address)
        nursery.cancel_scope.cancel()


def in_an_answer(attributes: bytes) -> bytes:
    return b"\x01\x01" + len(attributes).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12) + attributes


@given(st.lists(st.binary(min_size=1, max_size=60) | st.binary(max_size=40).map(in_an_answer), max_size=5))
def test_any_answer_is_an_answer_or_a_failure(datagrams: list[bytes]) -> None:
    trio.run(answer_with, datagrams, clock=trio.testing.MockClock(autojump_threshold=0))
