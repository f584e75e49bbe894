"""Agents behind real NATs meet through a hub: ours with ours, and with the reference in both roles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from a2al_trio.errors import ConnectError
from a2al_trio.host import AgentConnection, Host, HostConfig, open_host_over
from a2al_trio.identity import Address, Identity
from tests.interop.nat_lab import LabNetwork, NatLab, load_nat_lab, open_lab_mux, open_lab_reference
from tests.interop.reference_node import ReferenceNode

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

OpenNatLab = Callable[..., AbstractContextManager[NatLab]]
DELAY = {"delay_ms": 10}


@attrs.frozen
class NatWorld:
    """A public node with a hub and a STUN server, and two machines behind NATs that have never met."""

    lab: NatLab
    public: ReferenceNode
    directory: Path

    @asynccontextmanager
    async def host(self, name: str) -> AsyncIterator[Host]:
        """A host of ours, joined and published."""
        config = HostConfig(bootstrap=(str(self.public.address),), min_observed_peers=1)
        async with (
            open_lab_mux(self.lab, name) as mux,
            open_host_over(mux, Identity.generate(os.urandom), config, network=LabNetwork(self.lab, name)) as host,
        ):
            await host.dht.bootstrapped()
            await host.publish()
            yield host

    @asynccontextmanager
    async def reference(self, name: str, release: str) -> AsyncIterator[ReferenceNode]:
        """A reference node."""
        async with open_lab_reference(
            self.lab,
            name,
            self.directory,
            release=release,
            bootstrap=(str(self.public.address),),
            stun=f"stun:{self.public.host}:3478",
            # In so small a network too few peers see it for it to learn where it is.
            settings=[
                f'fallback_host = "{self.lab.public_address(name)}"',
                f'ice_signal_urls = ["{self.public.hub}"]',
            ],
        ) as node:
            yield node

    async def wait_published(self, aid: str) -> None:
        """The reference stores its records some time after it has said so."""
        address = Address.parse(aid).hex()
        while True:
            if any(held == address for held, _ in await self.public.stored_records()):
                return
            await trio.sleep(0.05)

    def let_them_meet(self) -> None:
        """Up to here nothing has passed between the two, so that no NAT is open for the other by chance."""
        self.lab.unblock("a", "b")


@asynccontextmanager
async def open_nat_world(open_nat_lab: OpenNatLab, directory: Path, a: str, b: str) -> AsyncIterator[NatWorld]:
    kinds = {name: {"kind": kind, "link": DELAY} for name, kind in (("a", a), ("b", b))}
    with open_nat_lab(public="open", **kinds) as lab:
        lab.block("a", "b")
        stun = lab.popen("public", [sys.executable, load_nat_lab().__file__, "stun", "3478"], stdout=subprocess.DEVNULL)
        try:
            async with open_lab_reference(lab, "public", directory, hub=True) as public:
                yield NatWorld(lab, public, directory)
        finally:
            stun.kill()
            stun.wait()


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
