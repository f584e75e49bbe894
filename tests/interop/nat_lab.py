"""Hosts behind real NATs: the lab of network namespaces that lies beside the checkout, where it does.

All our hosts run in the test process: only their sockets are made inside the lab. The reference daemon runs in the
lab as a process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import httpx
import pytest
import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket
from a2al_trio.net.mux import Mux, open_mux_over
from a2al_trio.net.socket import UdpSocket
from tests.interop.private_network import why_not
from tests.interop.reference_node import (
    STUN_NOBODY_ANSWERS,
    Client,
    Json,
    ReferenceNode,
    find_binary,
    open_reference_node,
)

__all__ = ["POOL", "LabNetwork", "NatLab", "load_nat_lab", "open_lab_mux", "open_lab_reference"]

NatLab = Any
"""A `natlab.Lab`."""
VARIABLE = "A2AL_TRIO_NATLAB"
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "natlab" / "natlab.py"
POOL = tuple(f"20.{number}.0.0/24" for number in range(20))
"""Addresses that count as public, for the `pool` setting of a lab: each machine is in a network of its own."""
PORT = 4121


def load_nat_lab() -> ModuleType:
    """The lab as a module; skips the test where there is none, or where it cannot work."""
    if reason := why_not():
        pytest.skip(reason)
    path = Path(os.environ.get(VARIABLE, BESIDE))
    if not path.is_file():
        pytest.skip(f"there is no NAT lab beside this checkout; set {VARIABLE} to its natlab.py")
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"the NAT lab needs {program}")
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@attrs.frozen
class LabNetwork:
    """The network of a lab host as our code sees it: what ICE and signaling open, they open there."""

    lab: NatLab
    host: str

    def hosts(self) -> Sequence[str]:
        """The host's own addresses."""
        return tuple(filter(None, (self.lab.address(self.host), self.lab.address6(self.host))))

    def bind(self, host: str, port: int = 0) -> DatagramSocket:
        """Bind a UDP socket in the lab host."""
        sock: UdpSocket = self.lab.call(self.host, UdpSocket.bind, SocketAddress.of(host, port))
        return sock

    async def resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        """There are no names in the lab."""
        await trio.lowlevel.checkpoint()
        try:
            return [SocketAddress.of(host, port)]
        except ValueError:
            raise OSError(f"the lab has no name {host}") from None

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Connect over TCP from the lab host."""
        assert not tls, "the lab has no certificates"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = trio.socket.from_stdlib_socket(self.lab.socket(self.host, socket.SOCK_STREAM, family))
        try:
            await sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)


@asynccontextmanager
async def open_lab_mux(lab: NatLab, host: str, port: int = PORT) -> AsyncIterator[Mux]:
    """The mux of a lab host, bound to its address: what `open_host_over` takes."""
    sock: UdpSocket = lab.call(host, UdpSocket.bind, SocketAddress(lab.address(host), port))
    try:
        async with open_mux_over(sock) as mux:
            yield mux
    finally:
        sock.close()


@attrs.frozen
class _LabPlace:
    """Runs a daemon in a lab host, and asks it from there."""

    lab: NatLab
    host: str

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        child: subprocess.Popen[bytes] = self.lab.popen(self.host, argv, **options)
        return child

    @asynccontextmanager
    async def client(self, base_url: str) -> AsyncIterator[Client]:
        with httpx.Client(base_url=base_url, trust_env=False, timeout=None, verify=False) as client:
            yield _LabClient(self.lab, self.host, client)


@attrs.frozen
class _LabClient:
    lab: NatLab
    host: str
    client: httpx.Client

    async def request(self, method: str, url: str, *, json: Json | None = None) -> httpx.Response:
        ask = partial(self.client.request, method, url, json=json)
        response: httpx.Response = await trio.to_thread.run_sync(
            partial(self.lab.call, self.host, ask), abandon_on_cancel=True
        )
        return response


def open_lab_reference(
    lab: NatLab,
    host: str,
    directory: Path,
    *,
    release: str = "0.2.0",
    bootstrap: tuple[str, ...] = (),
    hub: bool = False,
    settings: Sequence[str] = (),
    stun: str = STUN_NOBODY_ANSWERS,
) -> AbstractAsyncContextManager[ReferenceNode]:
    """Run the reference daemon in a lab host; see `open_reference_node`."""
    return open_reference_node(
        find_binary(release),
        directory / host,
        lab.address(host),
        api_port=2121,
        bootstrap=bootstrap,
        hub=hub,
        settings=settings,
        stun=stun,
        place=_LabPlace(lab, host),
    )
