"""Whole hosts, cancelled at any instant of a busy life: nothing is left, and it ends within its grace."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.host import AgentConnection, Host
from a2al_trio.testing import SimNet, cancelled_after, no_leaks, open_simnet
from tests.host.world import identity, open_sim_host

INSTANTS = 200
CHUNK = 10_000
GRACE = 2.0  # virtual seconds for three hosts to say goodbye


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def call(host: Host, peer: Host) -> None:
    async with host.connect(peer.address) as connection, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(exchange, connection)


async def exchange(connection: AgentConnection) -> None:
    async with await connection.open_stream() as stream:
        await stream.send_all(bytes(CHUNK))
        await stream.send_eof()
        assert len(await stream.receive_all(limit=2 * CHUNK)) == CHUNK


async def busy_life(net: SimNet) -> None:
    """Three hosts that join, publish, search, dial each other at once, and leave."""
    async with (
        open_sim_host(net.host("seed"), identity(1)) as seed,
        open_sim_host(net.host("alice"), identity(2), seeds=(seed,)) as alice,
        open_sim_host(net.host("bob"), identity(3), seeds=(seed,)) as bob,
        trio.open_nursery() as servers,
    ):
        for host in (alice, bob):
            await servers.start(host.serve, echo)
            await host.publish()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, alice, bob)
            nursery.start_soon(call, bob, alice)
            nursery.start_soon(alice.resolve, bob.address)
            nursery.start_soon(seed.find_records, alice.address)
        servers.cancel_scope.cancel()


@attrs.frozen
class Life:
    """How a life cut short after so many task steps went."""

    was_cut: bool
    took_to_end: float


async def live_for(steps: int) -> Life:
    async with open_simnet(seed=1) as net, no_leaks():
        with cancelled_after(steps) as scope:
            await busy_life(net)
        return Life(scope.cancelled_caught, trio.current_time() - scope.deadline)


def live(steps: int) -> Life:
    return trio.run(live_for, steps, clock=trio.testing.MockClock(autojump_threshold=0))


def whole_length() -> int:
    """How many task steps an undisturbed life has, to within a few per cent."""
    steps = 256
    while live(steps).was_cut:
        steps *= 2
    low = steps // 2
    while steps - low > steps // 30:
        middle = (low + steps) // 2
        if live(middle).was_cut:
            low = middle
        else:
            steps = middle
    return steps


@pytest.mark.usefixtures("no_leaks")
def test_hosts_cancelled_at_any_instant_leave_nothing() -> None:
    draw = random.Random(1)
    length = whole_length()
    cut = 0
    for steps in sorted(draw.randrange(1, length) for _ in range(INSTANTS)):
        life = live(steps)
        cut += life.was_cut
        assert life.took_to_end < GRACE, f"cancelled after {steps} steps, it took {life.took_to_end:.2f} s to end"
    assert cut > INSTANTS * 0.9
