"""Sockets that tasks take turns in reading: whoever reads can be told to stop, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, InterruptibleSocket, Received, Transmit
from a2al_trio.net.mux import open_mux_over
from a2al_trio.net.socket import open_udp
from a2al_trio.testing import open_simnet

LOOPBACK = SocketAddress("127.0.0.1", 0)
SHORT_HEADER = b"\x40" + bytes(40)
"""Looks like QUIC to the mux."""

Pair = tuple[InterruptibleSocket, DatagramSocket, SocketAddress]


@asynccontextmanager
async def real() -> AsyncIterator[Pair]:
    async with open_udp(LOOPBACK) as near, open_udp(LOOPBACK) as far:
        yield near, far, near.local_address


@asynccontextmanager
async def simulated() -> AsyncIterator[Pair]:
    async with open_simnet(seed=1) as net:
        near, far = net.socket_pair()
        yield near, far, near.address


@asynccontextmanager
async def muxed() -> AsyncIterator[Pair]:
    async with open_udp(LOOPBACK) as near, open_udp(LOOPBACK) as far, open_mux_over(near) as mux:
        yield mux.quic, far, near.local_address


@pytest.mark.parametrize("pair", [real, simulated, muxed])
async def test_an_interrupted_reader_returns_with_nothing_and_can_read_again(
    pair: Callable[[], AbstractAsyncContextManager[Pair]],
) -> None:
    async with pair() as (near, far, address):
        assert isinstance(near, InterruptibleSocket)
        found: list[list[Received]] = []

        async def receive() -> None:
            found.append(await near.receive())

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                near.interrupt()
            assert found.pop() == []
        near.interrupt()  # nobody reads: nothing happens
        far.send_nowait(Transmit(SHORT_HEADER, len(SHORT_HEADER), address))
        [received] = await near.receive()
        assert bytes(received.data) == SHORT_HEADER
        near.close()
        with pytest.raises(trio.ClosedResourceError):
            await near.receive()


async def test_one_read_is_enough_for_those_who_expect_one_datagram() -> None:
    async with real() as (near, far, address):
        for text in (b"one", b"two"):
            far.send_nowait(Transmit(text, 3, address))
        for text in (b"one", b"two"):
            [received] = await near.receive_first()
            assert bytes(received.data) == text
        with trio.move_on_after(0) as scope:
            await near.receive_first()
        assert scope.cancelled_caught, "and then it waits"


async def test_who_expects_one_datagram_is_content_with_it() -> None:
    async with real() as (near, far, address):
        for text in (b"one", b"two"):
            far.send_nowait(Transmit(text, len(text), address))
        found = [bytes(batch.data) for _ in range(2) for batch in await near.receive_first()]
        assert found == [b"one", b"two"]
        with trio.move_on_after(0) as scope:
            await near.receive_first()
        assert scope.cancelled_caught

        async def receive() -> None:
            assert await near.receive_first() == []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            near.interrupt()
        near.close()
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_first()
