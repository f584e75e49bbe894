"""Hosts of ours behind real NATs: who can be dialled directly, and what the network is told about them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from tests.interop.beside import run_beside
from tests.interop.nat_lab import PORT, LabNetwork, NatLab, open_lab_mux, open_lab_reference
from tests.interop.reference_node import ReferenceNode

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

OpenNatLab = Callable[..., AbstractContextManager[NatLab]]


@asynccontextmanager
async def lab_host(lab: NatLab, name: str, through: ReferenceNode) -> AsyncIterator[Host]:
    """A host of ours in the lab, joined to the network."""
    config = HostConfig(bootstrap=(str(through.address),), min_observed_peers=1)
    async with (
        open_lab_mux(lab, name) as mux,
        open_host_over(mux, Identity.generate(os.urandom), config, network=LabNetwork(lab, name)) as host,
    ):
        await host.dht.bootstrapped()
        yield host


async def test_from_behind_a_nat_an_open_host_is_dialled(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    async def dial(kind: str) -> None:
        with open_nat_lab(public="open", server="open", inside=kind) as lab:
            async with (
                open_lab_reference(lab, "public", tmp_path / kind, hub=True) as public,
                lab_host(lab, "server", public) as server,
                lab_host(lab, "inside", public) as inside,
            ):
                await server.publish()
                async with inside.connect(server.address) as dialled, await server.accept() as accepted:
                    assert dialled.peer_address == SocketAddress(lab.address("server"), PORT)
                    assert accepted.remote == inside.address
                    assert accepted.peer_address.host == lab.public_address("inside")

    await run_beside({kind: partial(dial, kind) for kind in ("full_cone", "port_restricted", "symmetric")})


async def test_a_full_cone_host_is_published_with_its_outside_address(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    with open_nat_lab(public="open", inside="full_cone") as lab, trio.fail_after(30):
        async with (
            open_lab_reference(lab, "public", tmp_path, hub=True) as public,
            lab_host(lab, "inside", public) as inside,
        ):
            await inside.publish()
            found = await public.post(f"/resolve/{inside.address}")
            assert f"quic://{lab.public_address('inside')}:{PORT}" in found["endpoints"]
            assert not any(lab.address("inside") in endpoint for endpoint in found["endpoints"])
