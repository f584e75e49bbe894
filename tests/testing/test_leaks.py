"""The leak finder finds leaks, and cancelling anywhere reaches every instant."""

from __future__ import annotations

import itertools
import socket

import pytest
import trio
import trio.testing

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.mux import open_mux
from a2al_trio.testing import Leak, cancelled_after, no_leaks, open_simnet

Clock = trio.testing.MockClock


async def test_a_task_that_stays_is_found(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(Leak, match="sleep_forever"):
            async with no_leaks():
                nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()


async def test_a_socket_that_stays_is_found() -> None:
    left = []
    with pytest.raises(Leak, match="socket:"):
        async with no_leaks():
            left.append(socket.socket())
    left.pop().close()


async def test_what_ends_in_time_is_no_leak(autojump_clock: Clock) -> None:
    async with no_leaks():
        async with open_simnet() as net, trio.open_nursery() as nursery:
            one, _ = net.socket_pair()
            nursery.start_soon(one.wait_writable)
        with socket.socket():
            pass


async def test_an_error_of_the_block_stays_itself() -> None:
    with pytest.raises(KeyError):
        async with no_leaks():
            raise KeyError


async def test_every_instant_of_a_block_is_reached() -> None:
    counts = []
    for steps in itertools.count(1):
        count = 0
        with cancelled_after(steps) as scope:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                count += 1
        counts.append(count)
        if not scope.cancelled_caught:
            break
    assert counts == sorted(counts)
    assert {0, 1, 2, 3, 4, 5} <= set(counts)


@pytest.mark.usefixtures("no_leaks")
async def test_a_mux_cancelled_at_any_instant_leaves_nothing() -> None:
    for steps in itertools.count(1):
        async with no_leaks():
            with cancelled_after(steps) as scope:
                async with open_mux(SocketAddress("127.0.0.1", 0)) as mux:
                    with trio.move_on_after(0):
                        await mux.dht.receive()
        if not scope.cancelled_caught:
            return
