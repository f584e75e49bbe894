"""What one caller may take of a host: streams and bytes on all its connections, whatever they carry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError, StreamReset
from a2al_trio.host import AccessList, AgentConnection, Host, HostConfig
from a2al_trio.host.callers import REMEMBERED, CallerLimits, Callers, Visit
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

Clock = trio.testing.MockClock

ALICE, BOB, CAROL = identity(2), identity(3), identity(4)
STREAMS, RATE = 3, 200_000


@attrs.define
class Hall:
    """Serves streams for ten seconds each, or sends as much as it is asked for."""

    inside: int = 0
    most: int = 0

    async def serve(self, connection: AgentConnection) -> None:
        async with trio.open_nursery() as nursery:
            async for stream in connection:
                nursery.start_soon(self.serve_stream, stream)

    async def serve_stream(self, stream: trio.abc.HalfCloseableStream) -> None:
        async with stream:
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                asked = await stream.receive_some(10)
                if asked == b"stay":
                    await trio.sleep(10)
                else:
                    await stream.send_all(bytes(int(asked)))
            finally:
                self.inside -= 1


@asynccontextmanager
async def open_hall(config: HostConfig) -> AsyncIterator[tuple[Host, Host, Hall]]:
    hall = Hall()
    async with (
        open_simnet(seed=5) as net,
        open_sim_host(net.host("alice"), ALICE, config=config) as alice,
        open_sim_host(net.host("caller"), BOB, seeds=(alice,)) as caller,
        trio.open_nursery() as nursery,
    ):
        caller.register_agent(CAROL)
        await nursery.start(alice.serve, hall.serve)
        yield alice, caller, hall
        nursery.cancel_scope.cancel()


async def ask(connection: AgentConnection, what: bytes) -> int:
    async with await connection.open_stream() as stream:
        await stream.send_all(what)
        return len(await stream.receive_all(limit=10_000_000))


async def test_streams_over_the_limit_wait_on_all_connections_of_a_caller(autojump_clock: Clock) -> None:
    async with (
        open_hall(HostConfig(max_streams_per_caller=STREAMS)) as (alice, caller, hall),
        caller.connect(ALICE.address, at=alice.quic_address) as one,
        caller.connect(ALICE.address, at=alice.quic_address) as two,
        caller.connect(ALICE.address, at=alice.quic_address, local=CAROL.address) as other,
    ):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for connection in (one, two) * STREAMS:
                nursery.start_soon(ask, connection, b"stay")
            await trio.sleep(5)
            assert hall.inside == STREAMS
            assert await ask(other, b"7") == 7, "another caller is not held up"
            assert trio.current_time() - began < 6
        assert 20 <= trio.current_time() - began < 22
        assert hall.most == STREAMS + 1


async def test_what_a_lost_connection_held_is_free_again(autojump_clock: Clock) -> None:
    async with open_hall(HostConfig(max_streams_per_caller=STREAMS)) as (alice, caller, _):
        connection = await caller.open_connection(ALICE.address, at=alice.quic_address)
        for _ in range(2 * STREAMS):
            await (await connection.open_stream()).send_all(b"stay")
        await trio.sleep(1)
        connection.close()
        began = trio.current_time()
        async with caller.connect(ALICE.address, at=alice.quic_address) as connection:
            assert await ask(connection, b"7") == 7
        assert trio.current_time() - began < 1


async def test_refused_streams_take_no_place(autojump_clock: Clock) -> None:
    async with (
        open_hall(HostConfig(max_streams_per_caller=STREAMS)) as (alice, caller, _),
        caller.connect(ALICE.address, at=alice.quic_address) as connection,
    ):
        alice.access = AccessList(allow=())
        for _ in range(4 * STREAMS):
            with pytest.raises(StreamReset):
                await ask(connection, b"stay")
        alice.access = AccessList(allow=[BOB.address])
        assert await ask(connection, b"7") == 7


async def test_bytes_over_the_limit_wait_on_all_connections_of_a_caller(autojump_clock: Clock) -> None:
    async with (
        open_hall(HostConfig(max_rate_per_caller=RATE)) as (alice, caller, _),
        caller.connect(ALICE.address, at=alice.quic_address) as one,
        caller.connect(ALICE.address, at=alice.quic_address) as two,
        caller.connect(ALICE.address, at=alice.quic_address, local=CAROL.address) as other,
    ):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for connection in (one, two):
                nursery.start_soon(ask, connection, b"%d" % (3 * RATE))
            await ask(other, b"%d" % (2 * RATE))
            assert trio.current_time() - began < 3, "another caller has a rate of its own"
        assert 4 < trio.current_time() - began < 7, "six seconds' worth of bytes, and what a quiet second allows"


async def test_coming_anew_does_not_clear_the_bill(autojump_clock: Clock) -> None:
    async with open_hall(HostConfig(max_rate_per_caller=RATE)) as (alice, caller, _):
        began = trio.current_time()
        for _ in range(6):
            async with caller.connect(ALICE.address, at=alice.quic_address) as connection:
                await ask(connection, b"%d" % RATE)
        assert trio.current_time() - began > 4


def test_limits_that_cannot_be_are_named() -> None:
    for name in ("max_streams_per_caller", "max_rate_per_caller"):
        with pytest.raises(ConfigurationError, match=f"{name} must be at least 0"):
            HostConfig(**{name: -1})  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["enter", "leave", "admit", "left"]), max_size=60), st.integers(1, 3))
def test_the_count_is_right_after_any_schedule(steps: list[str], names: int) -> None:
    async def run() -> None:
        callers = Callers(CallerLimits(connections=2, streams=3, rate=1000))
        visits: list[tuple[str, Visit, int]] = []
        for number, step in enumerate(steps):
            name = f"caller {number % names}"
            if step == "enter":
                here = sum(1 for other, _, _ in visits if other == name)
                visit = callers.enter(name)
                assert (visit is None) is (here >= 2)
                if visit is not None:
                    visits.append((name, visit, 0))
            elif step == "leave" and visits:
                left, visit, _ = visits.pop(number % len(visits))
                callers.leave(left, visit)
            elif visits:
                place = number % len(visits)
                name, visit, streams = visits[place]
                taken = sum(count for other, _, count in visits if other == name)
                if step == "admit" and taken < 3:
                    with trio.fail_after(0.1):
                        await visit.admit()
                    visits[place] = (name, visit, streams + 1)
                elif step == "left" and streams:
                    visit.left()
                    visits[place] = (name, visit, streams - 1)
            for name, visit, _ in visits:
                assert visit.caller.streams == sum(count for other, _, count in visits if other == name)
        for name, visit, _ in visits:
            callers.leave(name, visit)
            assert callers._known.get(name) is not visit.caller or visit.caller.connections

    trio.run(run)


async def test_callers_that_owe_are_remembered_within_bounds(autojump_clock: Clock) -> None:
    callers = Callers(CallerLimits(connections=1, rate=1))
    for number in range(2 * REMEMBERED):
        visit = callers.enter(str(number))
        assert visit is not None
        visit.charge(1000)
        callers.leave(str(number), visit)
    assert len(callers._known) <= REMEMBERED
