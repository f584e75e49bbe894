"""Agents behind real NATs meet through a hub: ours with ours, and with the reference in both roles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from a2al_trio.dht import PeerUnreachable
from a2al_trio.errors import ConnectError
from a2al_trio.host import AgentConnection
from a2al_trio.identity import Address, Identity
from tests.interop.nat_world import OpenNatLab, open_nat_world

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def ask(connection: AgentConnection, question: bytes) -> bytes:
    async with await connection.open_stream() as stream:
        await stream.send_all(question)
        await stream.send_eof()
        return bytes(await stream.receive_all(limit=10_000_000))


PAIRS = [
    ("open", "port_restricted"),
    ("port_restricted", "port_restricted"),
    ("restricted", "symmetric"),
    ("symmetric", "restricted"),
    ("symmetric", "symmetric"),
]


@pytest.mark.parametrize(("caller", "callee"), PAIRS)
async def test_ours_meet_ours(open_nat_lab: OpenNatLab, tmp_path: Path, caller: str, callee: str) -> None:
    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, caller, callee) as world,
            world.host("a") as a,
            world.host("b") as b,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(b.serve, echo)
            world.let_them_meet()
            began = trio.current_time()
            if caller == callee == "symmetric":
                with pytest.raises(ConnectError):
                    await a.open_connection(b.address)
                print(f"failed after {trio.current_time() - began:.3f} s")
                assert trio.current_time() - began < 12
            else:
                async with a.connect(b.address) as connection:
                    print(f"{trio.current_time() - began:.3f} s {connection.path}")
                    assert await ask(connection, b"hello") == b"hello"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("caller", "callee"),
    [("symmetric", "symmetric"), ("udp_blocked", "port_restricted"), ("open", "udp_blocked"), ("udp_blocked",) * 2],
)
async def test_with_a_relay_everybody_meets(open_nat_lab: OpenNatLab, tmp_path: Path, caller: str, callee: str) -> None:
    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, caller, callee, turn=True) as world,
            world.host("a") as a,
            world.host("b") as b,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(b.serve, echo)
            world.let_them_meet()
            began = trio.current_time()
            async with a.connect(b.address) as connection:
                print(f"{trio.current_time() - began:.3f} s {connection.path}")
                assert await ask(connection, bytes(300_000)) == bytes(300_000)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("release", ["0.2.0", "newest"])
@pytest.mark.parametrize(("caller", "callee"), PAIRS[:4])
async def test_ours_meet_the_reference(
    open_nat_lab: OpenNatLab, tmp_path: Path, caller: str, callee: str, release: str
) -> None:
    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, caller, callee) as world,
            world.host("a") as a,
            world.reference("b", release) as b,
        ):
            agent = await b.add_agent()
            await world.wait_published(agent.aid)
            world.let_them_meet()
            began = trio.current_time()
            async with a.connect(Address.parse(agent.aid)) as connection:
                print(f"{trio.current_time() - began:.3f} s {connection.path}")
                await trio.sleep(0.1)
                assert connection.close_reason is None


@pytest.mark.parametrize("release", ["0.2.0", "newest"])
@pytest.mark.parametrize(("caller", "callee"), PAIRS[:4])
async def test_the_reference_meets_ours(
    open_nat_lab: OpenNatLab, tmp_path: Path, caller: str, callee: str, release: str
) -> None:
    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, caller, callee) as world,
            world.host("b") as b,
            world.reference("a", release) as a,
        ):
            caller_agent = await a.add_agent()
            agent = Identity.generate(os.urandom)
            b.register_agent(agent)
            await b.publish()
            world.let_them_meet()
            began = trio.current_time()
            await a.connect(str(agent.address), local=caller_agent.aid)
            accepted = await b.accept()
            print(f"{trio.current_time() - began:.3f} s {accepted.path}")
            assert str(accepted.remote) == caller_agent.aid
            assert accepted.local == agent.address
            accepted.close()


@pytest.mark.parametrize("release", ["0.2.0", "newest"])
async def test_dht_messages_pass_to_a_reference_node_over_a_punched_connection(
    open_nat_lab: OpenNatLab, tmp_path: Path, release: str
) -> None:
    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, "restricted", "symmetric") as world,
            world.host("a") as a,
            world.reference("b", release) as b,
        ):
            node = Address.parse(b.aid)
            await world.wait_published(b.aid)
            found = await a.resolve(node)
            world.let_them_meet()
            began = trio.current_time()
            a.punches.punch(PeerUnreachable(node.node_id, found.record, 2))
            while True:
                if a.dht.round_trip(node.node_id) is not None:
                    break
                await trio.sleep(0.02)
            print(f"{trio.current_time() - began:.3f} s")
            assert a.punches.has_conn(node.node_id)
