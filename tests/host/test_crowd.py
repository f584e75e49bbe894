"""Many agents behind one socket, many callers at once; and a busy host cancelled at any instant."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio

from a2al_trio.errors import A2alError
from a2al_trio.host import AgentConnection, Host
from a2al_trio.identity import Address, Identity
from a2al_trio.testing import Link, SimHost, open_simnet
from a2al_trio.testing.leaks import no_leaks
from a2al_trio.wire import TopicPayload
from tests.host.world import identity, open_sim_host

AGENTS, DIALLERS, ROUNDS = 10, 10, 10
HUB, ALICE, BOB = identity(1), identity(2), identity(3)


async def name_yourself(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            await stream.send_all(connection.local + connection.remote)


async def test_a_thousand_connections_reach_the_right_agents(autojump_clock: trio.testing.MockClock) -> None:
    agents = [identity(number) for number in range(100, 100 + AGENTS)]
    met: Counter[tuple[Address, Address]] = Counter()

    async def dial(host: Host, agent: Identity, callee: Host) -> None:
        async with host.connect(agent.address, at=callee.quic_address) as connection:
            async with await connection.open_stream() as stream:
                await stream.send_eof()
                answer = await stream.receive_all(limit=100)
            assert answer == agent.address + host.address
            met[agent.address, host.address] += 1

    async def dial_all(host: Host, callee: Host) -> None:
        for _ in range(ROUNDS):
            async with trio.open_nursery() as nursery:
                for agent in agents:
                    nursery.start_soon(dial, host, agent, callee)

    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(open_simnet(seed=1, link=Link(latency=0.02, jitter=0.02)))
        callee = await stack.enter_async_context(open_sim_host(net.host("callee"), HUB))
        for agent in agents:
            callee.register_agent(agent)
        diallers = [
            await stack.enter_async_context(open_sim_host(net.host(f"dialler {number}"), identity(200 + number)))
            for number in range(DIALLERS)
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        await nursery.start(callee.serve, name_yourself)
        async with trio.open_nursery() as dialling:
            for host in diallers:
                dialling.start_soon(dial_all, host, callee)
        nursery.cancel_scope.cancel()
    assert sum(met.values()) == AGENTS * DIALLERS * ROUNDS == 1000
    assert set(met.values()) == {ROUNDS}
    assert len(met) == AGENTS * DIALLERS


async def keep_busy(host: Host, peer: Address) -> None:
    """Everything a host can do, again and again; that some of it fails is part of it."""

    async def again(what: str) -> None:
        while True:
            try:
                match what:
                    case "publish":
                        await host.publish()
                    case "mail":
                        await host.mailbox.send(peer, b"hello")
                    case "read":
                        async for _ in host.mailbox.messages():
                            pass
                    case "announce":
                        async with host.topics.register(["one", "two"], TopicPayload(topic="")):
                            await trio.sleep(0.3)
                    case "search":
                        await host.topics.search_all(["one", "two"])
                    case "dial":
                        async with host.connect(peer) as connection, await connection.open_service_stream() as stream:
                            await stream.send_eof()
                            await stream.receive_all(limit=100)
                    case "pool":
                        (await host.pool.get(peer)).close(0, "dropped")
            except (A2alError, trio.ClosedResourceError):
                pass
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        await nursery.start(host.serve, name_yourself)
        for what in ("publish", "mail", "read", "announce", "search", "dial", "pool"):
            nursery.start_soon(again, what)


@pytest.mark.parametrize("part", range(4))
async def test_a_busy_host_can_be_cancelled_at_any_instant(autojump_clock: trio.testing.MockClock, part: int) -> None:
    """50 drawn instants: nothing is left behind, no error comes out, and the end comes within a second."""
    draw = random.Random(part)
    for number in range(50):
        instant = draw.uniform(0, 0.5)
        async with no_leaks(), open_simnet(seed=number) as net, open_sim_host(net.host("bob"), BOB) as bob:
            late = await cancelled_in_the_middle(net.host("alice"), bob, instant)
        assert late < 1, f"cancelled after {instant:.4f} s of part {part}, it took {late:.3f} s more"


async def cancelled_in_the_middle(machine: SimHost, bob: Host, instant: float) -> float:
    """Run a busy host that long; returns how many seconds more it took to end."""
    async with trio.open_nursery() as nursery:
        await nursery.start(bob.serve, name_yourself)
        await bob.publish()
        with trio.move_on_after(instant) as scope:
            async with open_sim_host(machine, ALICE, seeds=(bob,)) as host:
                await keep_busy(host, bob.address)
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()
        return trio.current_time() - scope.deadline
