"""Connections shared for repeated dials, on a simulated network and against a dial that is told what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from a2al_trio.errors import ConnectError, NoRoute
from a2al_trio.host import AgentConnection, Host
from a2al_trio.host.pool import FIRST_PAUSE, LONGEST_PAUSE, BackingOff, ConnectionPool
from a2al_trio.identity import Address
from a2al_trio.testing import Link, SimNet, open_simnet
from tests.host.world import identity, open_sim_host

SEED, ALICE, BOB = identity(1), identity(2), identity(3)


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("alice"), ALICE) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(alice,)) as bob,
    ):
        await alice.publish()
        yield alice, bob


async def test_callers_share_one_dial(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, bob):
        found: list[AgentConnection] = []

        async def ask() -> None:
            found.append(await bob.pool.get(ALICE.address))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert len(set(found)) == 1
        assert len(bob.connections) == len(bob.pool) == 1
        assert bob.pool.live(ALICE.address) is found[0]


async def test_a_dead_connection_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (alice, bob):
        first = await bob.pool.get(ALICE.address)
        (await alice.accept()).close(0, "good night")
        await first.wait_closed()
        assert bob.pool.live(ALICE.address) is None
        second = await bob.pool.get(ALICE.address)
        assert second is not first
        bob.pool.drop(ALICE.address)
        assert second.close_reason is not None


async def test_a_retired_connection_is_given_out_no_more(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, bob):
        first = await bob.pool.get(ALICE.address)
        bob.pool.retire(first)
        assert bob.pool.live(ALICE.address) is None
        second = await bob.pool.get(ALICE.address)
        assert second is not first
        assert first.close_reason is None, "whoever uses it goes on"
        bob.pool.retire(first)
        assert await bob.pool.get(ALICE.address) is second, "retiring again changes nothing"
        first.close()


async def test_local_agents_have_connections_of_their_own(autojump_clock: trio.testing.MockClock) -> None:
    other = identity(20)
    async with two_hosts() as (_, bob):
        bob.register_agent(other)
        first, second = await bob.pool.get(ALICE.address), await bob.pool.get(ALICE.address, local=other.address)
        assert (first.local, second.local) == (BOB.address, other.address)
        assert await bob.pool.get(ALICE.address, local=BOB.address) is first


async def test_a_cancelled_caller_does_not_stop_the_dial(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, bob):
        with trio.move_on_after(0.001) as limit:
            await bob.pool.get(ALICE.address)
        assert limit.cancelled_caught
        await trio.sleep(1)
        assert bob.pool.live(ALICE.address) is not None


async def test_failures_are_not_repeated_at_once_and_pauses_double(autojump_clock: trio.testing.MockClock) -> None:
    dials: list[float] = []

    async def fail(peer: Address, *, local: Address | None) -> AgentConnection:
        dials.append(trio.current_time())
        await trio.sleep(1)
        raise NoRoute(f"{peer} has published no endpoint")

    async with trio.open_nursery() as nursery:
        pool = ConnectionPool(fail, nursery, default=BOB.address)
        pause = FIRST_PAUSE
        for _ in range(7):
            with pytest.raises(NoRoute):
                await pool.get(ALICE.address)
            with pytest.raises(BackingOff, match=f"not trying again for {pause:.0f} s: .*no endpoint") as caught:
                await pool.get(ALICE.address)
            assert caught.value.retry_at == trio.current_time() + pause
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        assert len(dials) == 7
        pool.drop(ALICE.address)
        with pytest.raises(NoRoute):
            await pool.get(ALICE.address)
        nursery.cancel_scope.cancel()


async def test_a_dial_ends_even_if_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(peer: Address, *, local: Address | None) -> AgentConnection:
        await trio.sleep_forever()
        raise AssertionError

    async with trio.open_nursery() as nursery:
        pool = ConnectionPool(hang, nursery, default=BOB.address)
        with pytest.raises(ConnectError, match="within 60 s"):
            await pool.get(ALICE.address)


async def test_the_connection_used_longest_ago_makes_room(autojump_clock: trio.testing.MockClock) -> None:
    others = [identity(number) for number in (20, 21)]
    async with two_hosts() as (alice, bob), trio.open_nursery() as nursery:
        for other in others:
            alice.register_agent(other)
        await alice.publish()
        pool = ConnectionPool(bob.open_connection, nursery, default=BOB.address, size=2)
        first, second = await pool.get(ALICE.address), await pool.get(others[0].address)
        await first.open_stream()
        await trio.sleep(1)
        await pool.get(others[1].address)
        assert (first.close_reason, len(pool)) == (None, 2)
        assert second.close_reason is not None, "the idle one goes, though it is younger"
        assert second.close_reason.reason == "pool eviction"


async def test_a_pool_full_of_dials_has_others_wait(autojump_clock: trio.testing.MockClock) -> None:
    others = [identity(number) for number in range(20, 27)]
    dialling = most = 0
    async with two_hosts() as (alice, bob), trio.open_nursery() as nursery:
        for other in others:
            alice.register_agent(other)
        await alice.publish()

        async def dial(peer: Address, *, local: Address | None) -> AgentConnection:
            nonlocal dialling, most
            dialling += 1
            most = max(most, dialling)
            await trio.sleep(1)
            dialling -= 1
            return await bob.open_connection(peer, local=local)

        pool = ConnectionPool(dial, nursery, default=BOB.address, size=2)
        async with trio.open_nursery() as callers:
            for other in others:
                callers.start_soon(pool.get, other.address)
            with trio.move_on_after(0.5):
                await pool.get(ALICE.address)
        assert most == 2
        assert len(bob.connections) == len(pool) == 2, "all others made room"


async def test_d13_a_quiet_connection_is_asked_whether_it_lives(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, bob):
        first = await bob.pool.get(ALICE.address)
        for quiet, is_asked in ((1.0, False), (60.0, True), (3.0, False), (600.0, True)):
            await trio.sleep(quiet)
            asked = trio.current_time()
            assert await bob.pool.get(ALICE.address) is first
            took = trio.current_time() - asked
            assert took < (0.07 if is_asked else 0.001), "a round trip of 40 ms, and an acknowledgement may wait 25"
            assert is_asked is (took > 0)
        assert len(bob.connections) == 1, "nothing was dialled beside"


@asynccontextmanager
async def one_agent_on_two_machines() -> AsyncIterator[tuple[SimNet, Host, ConnectionPool, list[Host]]]:
    """The pool's dials reach the last of the hosts in the list."""
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("old"), ALICE) as old,
        open_sim_host(net.host("new"), ALICE) as new,
        open_sim_host(net.host("bob"), BOB) as bob,
        trio.open_nursery() as nursery,
    ):
        hosts = [new, old]

        async def dial(peer: Address, *, local: Address | None) -> AgentConnection:
            return await bob.open_connection(peer, at=hosts[-1].quic_address, local=local)

        yield net, bob, ConnectionPool(dial, nursery, default=BOB.address), hosts
        nursery.cancel_scope.cancel()


async def test_d13_a_fresh_dial_takes_the_place_of_a_dead_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with one_agent_on_two_machines() as (net, _, pool, hosts):
        first = await pool.get(ALICE.address)
        await trio.sleep(10)
        net.hosts["old"].link = Link.broken()
        hosts.pop()
        asked = trio.current_time()
        second = await pool.get(ALICE.address)
        assert second is not first
        assert trio.current_time() - asked < 0.5, "long before the idle timeout"
        assert first.close_reason is not None, "nobody uses it"
        assert await pool.get(ALICE.address) is second


async def test_d13_streams_of_a_slow_connection_outlive_its_replacement(autojump_clock: trio.testing.MockClock) -> None:
    async with one_agent_on_two_machines() as (net, _, pool, hosts):
        old = hosts.pop()
        hosts.append(old)
        first = await pool.get(ALICE.address)
        stream = await first.open_stream()
        await stream.send_all(b"still there?")
        callee = await old.accept()
        await trio.sleep(10)
        net.hosts["old"].link = Link(latency=2)
        hosts.pop()
        second = await pool.get(ALICE.address)
        assert second is not first
        assert first.close_reason is None
        async with await callee.accept_stream() as answer:
            await answer.send_all(b"slow, not gone")
        assert await stream.receive_all(limit=100) == b"slow, not gone"
        pool.drop(ALICE.address)
        assert first.close_reason is not None
        assert second.close_reason is not None


async def test_d13_an_answer_ends_the_dial_beside(autojump_clock: trio.testing.MockClock) -> None:
    async with one_agent_on_two_machines() as (net, bob, pool, _):
        first = await pool.get(ALICE.address)
        await trio.sleep(10)
        net.hosts["old"].link = Link(latency=0.4)  # later than the head start, sooner than a handshake over it
        assert await pool.get(ALICE.address) is first
        await trio.sleep(5)
        assert bob.connections == (first,)


async def test_d13_both_failing_are_both_named(autojump_clock: trio.testing.MockClock) -> None:
    async with one_agent_on_two_machines() as (net, _, pool, _):
        first = await pool.get(ALICE.address)
        await trio.sleep(10)
        net.hosts["old"].link = Link.broken()
        asked = trio.current_time()
        with pytest.raises(ConnectError, match=r"at hand: .* not answered for 20 s; a new connection: "):
            await pool.get(ALICE.address)
        assert trio.current_time() - asked == pytest.approx(20, abs=0.1)
        assert first.close_reason is not None
        with pytest.raises(BackingOff):
            await pool.get(ALICE.address)


async def test_d13_a_dial_takes_no_longer_than_its_limit(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("a2al_trio.host.pool.DIAL_LIMIT", 15.0)
    async with one_agent_on_two_machines() as (net, _, pool, _):
        await pool.get(ALICE.address)
        await trio.sleep(10)
        net.hosts["old"].link = Link.broken()
        asked = trio.current_time()
        with pytest.raises(ConnectError, match="within 15 s"):
            await pool.get(ALICE.address)
        assert trio.current_time() - asked == pytest.approx(15)
        with pytest.raises(BackingOff):
            await pool.get(ALICE.address)


async def test_d13_a_connection_dropped_while_it_is_asked_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with one_agent_on_two_machines() as (net, _, pool, _):
        first = await pool.get(ALICE.address)
        await trio.sleep(10)
        net.hosts["old"].link = Link.broken()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop_soon, pool, first)
            with pytest.raises(ConnectError, match=r"(?s)the connection at hand: .*closed here.*a new connection: "):
                await pool.get(ALICE.address)


async def drop_soon(pool: ConnectionPool, first: AgentConnection) -> None:
    await trio.sleep(1)
    first.close()
