"""Machines behind real NATs that have never met, and a public one with a hub, STUN and, if wanted, TURN."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.relayed import open_relayed_mux
from a2al_trio.ice import StaticCredentials, TurnServer
from a2al_trio.identity import Address, Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import RecordType
from tests.interop.nat_lab import LabNetwork, NatLab, load_nat_lab, open_lab_mux, open_lab_reference
from tests.interop.reference_node import ReferenceNode

__all__ = ["DELAY_MS", "NatWorld", "OpenNatLab", "open_nat_network", "open_nat_world"]

OpenNatLab = Callable[..., AbstractContextManager[NatLab]]
DELAY_MS = 10
"""Of each machine's link, one way: 40 ms between two of them and back."""
USER, PASSWORD = "lab", "secret"
STUN_PORT = 3478
HELPER = "helper"


@attrs.frozen
class NatWorld:
    """The lab with its public node, and the kind of each machine."""

    lab: NatLab
    public: ReferenceNode
    directory: Path
    kinds: dict[str, str]
    turn: bool
    helper: Host | None = None
    """A second public node, without which nobody finds out what its NAT lets in (spec 05 §5)."""

    def relays(self) -> tuple[TurnServer, ...]:
        """The relays for our hosts: by UDP, and by TCP for those that UDP does not leave."""
        if not self.turn:
            return ()
        credentials = StaticCredentials(USER, PASSWORD)
        urls = [f"turn:{self.public.host}:{STUN_PORT}?transport={transport}" for transport in ("udp", "tcp")]
        return tuple(TurnServer(url, credentials) for url in urls)

    def joins(self, name: str) -> bool:
        """Whether a machine can join at all: where no UDP passes it needs a relay."""
        return self.turn or self.kinds[name] != "udp_blocked"

    @asynccontextmanager
    async def host(self, name: str) -> AsyncIterator[Host]:
        """A host of ours, joined and published if it can be; over a relay where no UDP passes."""
        network = LabNetwork(self.lab, name)
        config = HostConfig(bootstrap=(str(self.public.address),), min_observed_peers=1, turn_servers=self.relays())
        over_relay = self.turn and self.kinds[name] == "udp_blocked"
        # Only the relay by TCP: waiting for the one by UDP to fail shows nothing.
        opened = open_relayed_mux(self.relays()[1:], network) if over_relay else open_lab_mux(self.lab, name)
        async with (
            opened as mux,
            open_host_over(mux, Identity.generate(os.urandom), config, network=network) as host,
        ):
            if self.joins(name):
                await host.dht.bootstrapped()
                if self.helper is not None:
                    await host.run_nat_probe()
                await host.publish()
            yield host

    @asynccontextmanager
    async def hosts(self, *names: str) -> AsyncIterator[list[Host]]:
        """Several at the same time: each waits some seconds for those it cannot reach yet."""
        found: dict[str, Host] = {}
        leave = trio.Event()

        async def run(name: str, *, task_status: trio.TaskStatus[None]) -> None:
            async with self.host(name) as found[name]:
                task_status.started()
                await leave.wait()

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for name in names:
                    starting.start_soon(nursery.start, partial(run, name))
            yield [found[name] for name in names]
            leave.set()

    @asynccontextmanager
    async def reference(self, name: str, release: str) -> AsyncIterator[ReferenceNode]:
        """A reference node, known to the hub: records it publishes earlier would name none (spec 07)."""
        registered = await self._registered()
        async with open_lab_reference(
            self.lab,
            name,
            self.directory,
            release=release,
            bootstrap=(str(self.public.address),),
            stun=f"stun:{self.public.host}:{STUN_PORT}",
            # In so small a network too few peers see it for it to learn where it is.
            settings=[
                f'fallback_host = "{self.lab.public_address(name)}"',
                f'ice_signal_urls = ["{self.public.hub}"]',
                *self._reference_relays(),
            ],
        ) as node:
            while await self._registered() == registered:  # noqa: ASYNC110  # another process's doing
                await trio.sleep(0.02)
            yield node

    async def _registered(self) -> int:
        count: int = (await self.public.get("/debug/stats"))["signal"]["aids_registered"]
        return count

    def _reference_relays(self) -> list[str]:
        lines: list[str] = []
        for relay in self.relays():
            lines += ["[[turn_servers]]", f'url = "{relay.url}"', f'username = "{USER}"', f'credential = "{PASSWORD}"']
        return lines

    @contextmanager
    def listen(self, name: str) -> Iterator[SocketAddress]:
        """A TCP service on a machine that takes connections and never answers: what an agent there is bridged to.

        The newest reference tells a caller of an agent whose service is down that it cannot be reached.
        """
        with self.lab.socket(name, socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            yield SocketAddress(*sock.getsockname())

    async def wait_published(self, aid: str) -> None:
        """The reference stores its records some time after it has said so, and not always with both public nodes."""
        address = Address.parse(aid)
        while True:
            if any(held == address.hex() for held, _ in await self.public.stored_records()):
                return
            if self.helper is not None and self.helper.dht.local_records(address.node_id, RecordType.ENDPOINT):
                return
            await trio.sleep(0.05)

    def let_them_meet(self) -> None:
        """Up to here nothing has passed between the two, so that no NAT is open for the other by chance."""
        self.lab.unblock("a", "b")


def open_nat_world(
    open_nat_lab: OpenNatLab,
    directory: Path,
    a: str,
    b: str,
    *,
    turn: bool = False,
    helper: bool = False,
    loss: float = 0.0,
    delay_ms: float = DELAY_MS,
) -> AbstractAsyncContextManager[NatWorld]:
    """Two machines, `a` and `b`, and what is public."""
    kinds, strangers = {"a": a, "b": b}, [("a", "b")]
    return open_nat_network(
        open_nat_lab, directory, kinds, strangers, turn=turn, helper=helper, loss=loss, delay_ms=delay_ms
    )


@asynccontextmanager
async def open_nat_network(
    open_nat_lab: OpenNatLab,
    directory: Path,
    kinds: Mapping[str, str],
    strangers: Iterable[tuple[str, str]],
    *,
    turn: bool = False,
    helper: bool = False,
    loss: float = 0.0,
    delay_ms: float = DELAY_MS,
) -> AsyncIterator[NatWorld]:
    """Build the lab with machines by name and start what is public in it; nothing passes between `strangers` yet."""
    if turn and shutil.which("turnserver") is None:
        pytest.skip("there is no turnserver; install coturn")
    link = {"delay_ms": delay_ms, "loss": loss}
    public_too = {HELPER: "open"} if helper else {}
    hosts = {name: {"kind": kind, "link": link} for name, kind in {**kinds, **public_too}.items()}
    async with _in_a_thread(partial(open_nat_lab, public="open", **hosts)) as lab:
        for one, other in strangers:
            await trio.to_thread.run_sync(lab.block, one, other)
        server = _start_turn(lab, directory) if turn else _start_stun(lab)
        try:
            if turn:
                await _wait_listening(lab)
            async with open_lab_reference(lab, "public", directory, hub=True) as public:
                world = NatWorld(lab, public, directory, {**kinds, **public_too}, turn)
                async with world.hosts(*public_too) as helpers:
                    yield attrs.evolve(world, helper=helpers[0]) if helpers else world
        finally:
            server.kill()
            server.wait()


@asynccontextmanager
async def _in_a_thread(open_lab: Callable[[], AbstractContextManager[NatLab]]) -> AsyncIterator[NatLab]:
    """Build and end a lab, which takes a while, without keeping what else runs here waiting."""
    lab = await trio.to_thread.run_sync(open_lab)
    try:
        yield lab.__enter__()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lab.__exit__, None, None, None)


async def _wait_listening(lab: NatLab) -> None:
    while True:
        try:
            stream = await LabNetwork(lab, "public").open_stream(lab.address("public"), STUN_PORT, tls=False)
        except OSError:
            await trio.sleep(0.02)
        else:
            await stream.aclose()
            return


def _start_stun(lab: NatLab) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(load_nat_lab().__file__), "stun", str(STUN_PORT)]
    process: subprocess.Popen[bytes] = lab.popen("public", command, stdout=subprocess.DEVNULL)
    return process


def _start_turn(lab: NatLab, directory: Path) -> subprocess.Popen[bytes]:
    host = lab.address("public")
    command = [
        "turnserver", "-n", "--no-cli", "--lt-cred-mech", "--user", f"{USER}:{PASSWORD}", "--realm", "lab",
        "--no-tls", "--no-dtls", "--listening-ip", host, "--relay-ip", host, "--listening-port", str(STUN_PORT),
        "--pidfile", str(directory / "turn.pid"), "--userdb", str(directory / "turn.db"),
        "--log-file", str(directory / "turn.log"), "--simple-log",
    ]  # fmt: skip
    process: subprocess.Popen[bytes] = lab.popen(
        "public", command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return process
