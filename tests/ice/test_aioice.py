"""An independent ICE agent as the peer, in both roles, over kernel sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from a2al_trio.ice import IceConfig, SystemNetwork, open_ice_session
from a2al_trio.signaling import Frame
from tests.ice.world import receive, send

PEER = Path(__file__).with_name("aioice_peer.py")
LOOPBACK = SystemNetwork(only_hosts=("127.0.0.1",))


@attrs.define(eq=False)
class PipeRoom:
    """A room made of a process's standard streams."""

    process: trio.Process
    _buffer: bytes = b""

    async def tell(self, **fields: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(fields).encode() + b"\n")

    async def send_credentials(self, ufrag: str, pwd: str) -> None:
        await self.tell(type="cred", ufrag=ufrag, pwd=pwd)

    async def send_candidate(self, line: str) -> None:
        await self.tell(type="cand", candidate=line)

    async def send_end_of_candidates(self) -> None:
        await self.tell(type="eoc")

    async def receive(self) -> Frame:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self.process.stdout.receive_some()
            if not data:
                await trio.sleep_forever()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return Frame(**json.loads(line))


@pytest.mark.parametrize("controlling", [True, False])
async def test_aioice_and_we_find_a_path(controlling: bool, no_leaks: None) -> None:
    role = "controlled" if controlling else "controlling"
    command = [sys.executable, "-W", "ignore", str(PEER), role, "20"]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run)
        room = PipeRoom(process)
        with trio.fail_after(30):
            async with open_ice_session(controlling=controlling, config=IceConfig(), network=LOOPBACK) as session:
                await room.send_credentials(*session.credentials)
                path = await session.connect(room)
                assert path.peer_address.host == "127.0.0.1"
                assert session.controlling is controlling
                await trio.sleep(0.05)
                for number in range(20):
                    await send(path, b"%d" % number)
                    assert await receive(path) == b"echo %d" % number
                await room.tell(type="bye")
        nursery.cancel_scope.cancel()
