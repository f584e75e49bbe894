"""Everybody calls everybody: hosts behind each kind of NAT, seven callers and seven callees in one network."""

from __future__ import annotations

import itertools
import shutil
from functools import partial
from pathlib import Path

import pytest
import trio

from a2al_trio.host import AgentConnection, Host
from benchmarks.nat_outcomes import KINDS, can_meet
from tests.interop.beside import run_beside
from tests.interop.nat_world import NatWorld, OpenNatLab, open_nat_network

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

QUESTION = bytes(100_000)


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def test_everybody_meets_and_only_who_must_over_a_relay(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    if shutil.which("turnserver") is None:
        pytest.skip("there is no turnserver; install coturn")
    callers, callees = ({kind: f"{side}{number}" for number, kind in enumerate(KINDS)} for side in "ab")
    kinds = {name: kind for side in (callers, callees) for kind, name in side.items()}
    strangers = list(itertools.product(callers.values(), callees.values()))
    paths: dict[tuple[str, str], str] = {}

    async def meet(world: NatWorld, hosts: dict[str, Host], caller: str, callee: str) -> None:
        await trio.to_thread.run_sync(world.lab.unblock, callers[caller], callees[callee])
        async with hosts[callers[caller]].connect(hosts[callees[callee]].address) as connection:
            paths[caller, callee] = connection.path
            async with await connection.open_stream() as stream:
                await stream.send_all(QUESTION)
                await stream.send_eof()
                assert await stream.receive_all(limit=len(QUESTION)) == QUESTION
        if "udp_blocked" not in (caller, callee):
            assert connection.path.startswith("relayed") is not can_meet(caller, callee), connection.path

    began = trio.current_time()
    async with (
        open_nat_network(open_nat_lab, tmp_path, kinds, strangers, turn=True) as world,
        world.hosts(*kinds) as opened,
        trio.open_nursery() as nursery,
    ):
        hosts = dict(zip(kinds, opened, strict=True))
        print(f"ready after {trio.current_time() - began:.1f} s")
        for name in callees.values():
            await nursery.start(hosts[name].serve, echo)
        cases = {
            f"{caller} calls {callee}": partial(meet, world, hosts, caller, callee)
            for shift in range(len(KINDS))
            for caller, callee in zip(KINDS, KINDS[shift:] + KINDS[:shift], strict=True)
        }
        await run_beside(cases, at_once=len(KINDS))
        print(f"all met after {trio.current_time() - began:.1f} s", *paths.items(), sep="\n")
        nursery.cancel_scope.cancel()
