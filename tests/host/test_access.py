"""How many connections one caller may have, and who may open streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from a2al_trio.errors import ConfigurationError, StreamReset
from a2al_trio.host import AccessByAgent, AccessList, AgentConnection, Host, HostConfig
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

ALICE, BOB, CAROL = identity(2), identity(3), identity(4)
LIMIT = 3


async def answer(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            await stream.receive_all(limit=100)
            await stream.send_all(b"come in")


@asynccontextmanager
async def alice_and_caller() -> AsyncIterator[tuple[Host, Host]]:
    async with (
        open_simnet(seed=5) as net,
        open_sim_host(net.host("alice"), ALICE, config=HostConfig(max_connections_per_caller=LIMIT)) as alice,
        open_sim_host(net.host("caller"), BOB, seeds=(alice,)) as caller,
        trio.open_nursery() as nursery,
    ):
        caller.register_agent(CAROL)
        await nursery.start(alice.serve, answer)
        yield alice, caller
        nursery.cancel_scope.cancel()


async def test_one_caller_cannot_take_every_place(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_caller() as (alice, caller):
        held = [await caller.open_connection(ALICE.address, at=alice.quic_address) for _ in range(LIMIT)]
        async with caller.connect(ALICE.address, at=alice.quic_address) as connection:
            reason = await connection.wait_closed()
            assert (reason.code, reason.reason) == (1, "too many connections of one caller")
        async with caller.connect(ALICE.address, at=alice.quic_address, local=CAROL.address) as connection:
            assert await ask(connection) == b"come in"
        held.pop().close()
        await trio.sleep(1)
        async with caller.connect(ALICE.address, at=alice.quic_address) as connection:
            assert await ask(connection) == b"come in"


async def ask(connection: AgentConnection) -> bytes:
    stream = await connection.open_stream()
    await stream.send_all(b"may I?")
    await stream.send_eof()
    return bytes(await stream.receive_all(limit=100))


async def test_a_list_says_who_may_open_streams(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_caller() as (alice, caller):
        alice.access = AccessList(allow=[BOB.address])
        async with caller.connect(ALICE.address, at=alice.quic_address) as connection:
            assert await ask(connection) == b"come in"
        async with caller.connect(ALICE.address, at=alice.quic_address, local=CAROL.address) as connection:
            with pytest.raises(StreamReset) as caught:
                await ask(connection)
            assert caught.value.code == 0x41


def test_the_limit_must_let_somebody_in() -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        HostConfig(max_connections_per_caller=0)


async def test_each_agent_has_a_rule_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    private = identity(20)
    async with alice_and_caller() as (alice, caller):
        alice.register_agent(private)
        alice.access = AccessByAgent({private.address: AccessList(allow=[CAROL.address])})
        for local, callee, is_let_in in (
            (BOB, ALICE, True),
            (CAROL, ALICE, True),
            (BOB, private, False),
            (CAROL, private, True),
        ):
            async with caller.connect(callee.address, at=alice.quic_address, local=local.address) as connection:
                if is_let_in:
                    assert await ask(connection) == b"come in"
                else:
                    with pytest.raises(StreamReset):
                        await ask(connection)


def test_strangers_to_whom_no_rule_applies_are_kept_out_or_in() -> None:
    rule = AccessByAgent({}, otherwise=AccessList(allow=()))
    assert not rule(ALICE.address, BOB.address, ())
    assert AccessByAgent({})(ALICE.address, BOB.address, ())
    assert not AccessByAgent({})(ALICE.address, None, ())
    assert AccessByAgent({ALICE.address: AccessList(anonymous=True)})(ALICE.address, None, ())


async def test_one_network_cannot_take_every_place_by_many_names(autojump_clock: trio.testing.MockClock) -> None:
    config = HostConfig(max_connections=8)
    async with (
        open_simnet(seed=5) as net,
        open_sim_host(net.host("alice"), ALICE, config=config) as alice,
        open_sim_host(net.host("crowd"), BOB) as crowd,
        open_sim_host(net.host("carol"), CAROL) as carol,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(alice.serve, answer)
        refused = 0
        for number in range(100, 110):
            name = identity(number)
            crowd.register_agent(name)
            connection = await crowd.open_connection(ALICE.address, at=alice.quic_address, local=name.address)
            await trio.sleep(1)
            refused += connection.close_reason is not None
        assert refused == 10 - 6
        async with carol.connect(ALICE.address, at=alice.quic_address) as connection:
            assert await ask(connection) == b"come in"
        nursery.cancel_scope.cancel()
