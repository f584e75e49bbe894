"""Hosts where no UDP passes at all: `open_host` notices, and goes by way of a TURN server reached over TCP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.interop.nat_world import PASSWORD, STUN_PORT, USER, NatWorld, OpenNatLab, open_nat_world

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

ROOT = Path(__file__).resolve().parents[2]


class LoneHost:
    """A host that runs by itself in a machine of the lab."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin = trio.lowlevel.FdStream(os.dup(process.stdin.fileno()))
        self.stdout = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
        self.buffer = b""

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            chunk = await self.stdout.receive_some()
            assert chunk, "the host has ended"
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        facts: dict[str, Any] = json.loads(line)
        return facts

    async def call(self, aid: str) -> dict[str, Any]:
        await self.stdin.send_all(aid.encode() + b"\n")
        return await self.hear()


@asynccontextmanager
async def lone_host(world: NatWorld, name: str) -> AsyncIterator[LoneHost]:
    urls = [f"turn:{USER}:{PASSWORD}@{world.public.host}:{STUN_PORT}?transport={kind}" for kind in ("udp", "tcp")]
    settings = json.dumps([str(world.public.address), urls])
    command = [sys.executable, "-m", "tests.interop.lone_host", settings]
    process = world.lab.popen(name, command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    host = LoneHost(process)
    try:
        yield host
    finally:
        process.kill()
        process.wait()
        for stream in (host.stdin, host.stdout):
            await trio.aclose_forcefully(stream)
        process.stdin.close()
        process.stdout.close()


async def test_a_host_without_udp_publishes_resolves_dials_and_is_dialled(
    open_nat_lab: OpenNatLab, tmp_path: Path
) -> None:
    with trio.fail_after(60):
        async with open_nat_world(open_nat_lab, tmp_path, "udp_blocked", "port_restricted", turn=True) as world:
            world.let_them_meet()
            async with lone_host(world, "a") as blocked, lone_host(world, "b") as other:
                began = trio.current_time()
                there = await other.hear()
                here = await blocked.hear()
                print(f"up after {trio.current_time() - began:.1f} s: {here['endpoints']}")
                assert all(f"quic://{world.public.host}:" in endpoint for endpoint in here["endpoints"])
                assert not any(world.public.host in endpoint for endpoint in there["endpoints"])
                for caller, callee in ((other, here), (blocked, there)):
                    began = trio.current_time()
                    answer = await caller.call(callee["aid"])
                    print(f"called within {trio.current_time() - began:.1f} s: {answer['path']}")
                    assert answer["echoed"]
