"""Agents behind real NATs meet through a hub: ours with ours, and with the reference in both roles."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from a2al_trio.dht import PeerUnreachable
from a2al_trio.errors import ConnectError
from a2al_trio.host import Host
from a2al_trio.identity import Address, Identity
from tests.host.nat_world import ask, echo
from tests.interop.beside import run_beside
from tests.interop.nat_world import NatWorld, OpenNatLab, open_nat_world
from tests.interop.reference_node import find_binary

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


PAIRS = [
    ("open", "port_restricted"),
    ("port_restricted", "port_restricted"),
    ("restricted", "symmetric"),
    ("symmetric", "restricted"),
]
Case = Callable[[NatWorld], Awaitable[None]]


async def in_a_world(open_nat_lab: OpenNatLab, directory: Path, caller: str, callee: str, case: Case) -> None:
    async with open_nat_world(open_nat_lab, directory, caller, callee) as world:
        await case(world)


async def test_ours_meet_ours(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    async def meet(world: NatWorld) -> None:
        async with world.host("a") as a, world.host("b") as b, trio.open_nursery() as nursery:
            await nursery.start(b.serve, echo)
            world.let_them_meet()
            began = trio.current_time()
            async with a.connect(b.address) as connection:
                print(f"{world.kinds}: {trio.current_time() - began:.3f} s {connection.path}")
                assert await ask(connection, b"hello") == b"hello"
            nursery.cancel_scope.cancel()

    async def meet_both(world: NatWorld) -> None:
        """They call each other at once, at a hub that pairs any two."""

        async def call(caller: Host, callee: Host) -> None:
            began = trio.current_time()
            async with caller.connect(callee.address) as connection:
                print(f"{world.kinds}, both at once: {trio.current_time() - began:.3f} s {connection.path}")
                assert await ask(connection, b"hello") == b"hello"
                assert trio.current_time() - began < 5
                await trio.sleep(2)

        async with world.host("a") as a, world.host("b") as b, trio.open_nursery() as nursery:
            for host in (a, b):
                await nursery.start(host.serve, echo)
            world.let_them_meet()
            async with trio.open_nursery() as calls:
                calls.start_soon(call, a, b)
                calls.start_soon(call, b, a)
            nursery.cancel_scope.cancel()

    async def fail_to_meet(world: NatWorld) -> None:
        async with world.host("a") as a, world.host("b") as b, trio.open_nursery() as nursery:
            await nursery.start(b.serve, echo)
            world.let_them_meet()
            began = trio.current_time()
            with pytest.raises(ConnectError, match="none of 2 candidate pairs worked"):
                await a.open_connection(b.address)
            print(f"{world.kinds}: failed after {trio.current_time() - began:.3f} s")
            assert trio.current_time() - began < 10
            nursery.cancel_scope.cancel()

    cases = {f"{caller} calls {callee}": (caller, callee, meet) for caller, callee in PAIRS}
    cases["symmetric calls symmetric"] = "symmetric", "symmetric", fail_to_meet
    cases["both call"] = "port_restricted", "port_restricted", meet_both
    await run_beside(
        {
            name: partial(in_a_world, open_nat_lab, tmp_path / str(number), *world)
            for number, (name, world) in enumerate(cases.items())
        }
    )


@pytest.mark.parametrize("release", ["0.2.0", "newest"])
async def test_ours_and_the_reference_meet(open_nat_lab: OpenNatLab, tmp_path: Path, release: str) -> None:
    find_binary(release)

    async def ours_calls(world: NatWorld) -> None:
        async with world.host("a") as a, world.reference("b", release) as b:
            agent = await b.add_agent()
            await world.wait_published(agent.aid)
            world.let_them_meet()
            began = trio.current_time()
            async with a.connect(Address.parse(agent.aid)) as connection:
                print(f"{world.kinds}: {trio.current_time() - began:.3f} s {connection.path}")
                await trio.sleep(0.1)
                assert connection.close_reason is None

    async def ours_is_called(world: NatWorld) -> None:
        async with world.host("b") as b, world.reference("a", release) as a:
            caller_agent = await a.add_agent()
            agent = Identity.generate(os.urandom)
            b.register_agent(agent)
            await b.publish()
            world.let_them_meet()
            began = trio.current_time()
            await a.connect(str(agent.address), local=caller_agent.aid)
            accepted = await b.accept()
            print(f"{world.kinds}: {trio.current_time() - began:.3f} s {accepted.path}")
            assert str(accepted.remote) == caller_agent.aid
            assert accepted.local == agent.address
            accepted.close()

    async def both_call(world: NatWorld) -> None:
        async with world.host("a") as a, world.reference("b", release) as b, trio.open_nursery() as nursery:
            theirs = await b.add_agent()
            await world.wait_published(theirs.aid)
            ours = Identity.generate(os.urandom)
            a.register_agent(ours)
            await a.publish()
            record = await a.resolve(Address.parse(theirs.aid))
            world.let_them_meet()
            began = trio.current_time()
            nursery.start_soon(partial(b.connect, str(ours.address), local=theirs.aid))
            async with a.connect(record.record.address, record=record, local=ours.address) as connection:
                print(f"{world.kinds}, both at once: {trio.current_time() - began:.3f} s {connection.path}")
                assert trio.current_time() - began < 5
                accepted = await a.accept()
                print(f"{world.kinds}, both at once: {trio.current_time() - began:.3f} s {accepted.path}")
                assert str(accepted.remote) == theirs.aid
                await trio.sleep(0.5)
                assert connection.close_reason is None

    async def dht_messages_pass_over_a_punched_connection(world: NatWorld) -> None:
        async with world.host("a") as a, world.reference("b", release) as b:
            node = Address.parse(b.aid)
            await world.wait_published(b.aid)
            found = await a.resolve(node)
            world.let_them_meet()
            began = trio.current_time()
            a.punches.punch(PeerUnreachable(node.node_id, found.record, 2))
            while a.dht.round_trip(node.node_id) is None:  # noqa: ASYNC110  # another process's doing
                await trio.sleep(0.02)
            print(f"{world.kinds}: {trio.current_time() - began:.3f} s")
            assert a.punches.has_conn(node.node_id)

    worlds: dict[str, tuple[str, str, Case]] = {}
    for caller, callee in PAIRS:
        worlds[f"ours, {caller}, calls the reference, {callee}"] = caller, callee, ours_calls
        worlds[f"the reference, {caller}, calls ours, {callee}"] = caller, callee, ours_is_called
    worlds["both call"] = "port_restricted", "port_restricted", both_call
    worlds["DHT messages"] = "restricted", "symmetric", dht_messages_pass_over_a_punched_connection
    await run_beside(
        {
            name: partial(in_a_world, open_nat_lab, tmp_path / str(number), *world)
            for number, (name, world) in enumerate(worlds.items())
        }
    )
