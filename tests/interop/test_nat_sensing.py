"""What a host finds out about the real NAT before it, with nodes of ours as peers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

import pytest
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.network import Surroundings
from a2al_trio.identity import Identity
from a2al_trio.wire import NatType
from tests.interop.nat_lab import LabNetwork, NatLab, open_lab_mux

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

OpenNatLab = Callable[..., AbstractContextManager[NatLab]]


@asynccontextmanager
async def lab_host(lab: NatLab, name: str, *through: Host) -> AsyncIterator[Host]:
    config = HostConfig(bootstrap=tuple(str(host.dht_address) for host in through))
    async with (
        open_lab_mux(lab, name) as mux,
        open_host_over(mux, Identity.generate(os.urandom), config, network=LabNetwork(lab, name)) as host,
    ):
        yield host


async def _leave_it_to_the_test(_: Surroundings) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("kind", "nat_type"),
    [
        ("open", NatType.FULL_CONE),
        ("full_cone", NatType.FULL_CONE),
        ("restricted", NatType.RESTRICTED),
        ("port_restricted", NatType.RESTRICTED),
        ("symmetric", NatType.SYMMETRIC),
    ],
)
async def test_the_kind_of_nat_is_found_out(
    open_nat_lab: OpenNatLab, kind: str, nat_type: NatType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Surroundings, "_keep_probing", _leave_it_to_the_test)
    with open_nat_lab(one="open", two="open", three="open", inside=kind) as lab, trio.fail_after(40):
        async with contextlib.AsyncExitStack() as stack:
            peers: list[Host] = []
            for name in ("one", "two", "three"):
                peers.append(await stack.enter_async_context(lab_host(lab, name, *peers)))
            inside = await stack.enter_async_context(lab_host(lab, "inside", *peers))
            await inside.dht.bootstrapped()
            await inside.run_nat_probe()
            assert inside.nat_type is nat_type
            if nat_type is not NatType.SYMMETRIC:
                assert inside.build_endpoint_payload().endpoints == (f"quic://{lab.public_address('inside')}:4121",)
