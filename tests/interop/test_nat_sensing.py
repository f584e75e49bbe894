"""What a host finds out about the real NAT before it, with nodes of ours as peers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.network import Surroundings
from a2al_trio.identity import Identity
from a2al_trio.wire import NatType
from tests.interop.nat_lab import LabNetwork, NatLab, open_lab_mux, open_lab_reference
from tests.interop.reference_node import ReferenceNode

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

OpenNatLab = Callable[..., AbstractContextManager[NatLab]]


@asynccontextmanager
async def lab_host(lab: NatLab, name: str, *seeds: str) -> AsyncIterator[Host]:
    config = HostConfig(bootstrap=seeds)
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
            peers: list[str] = []
            for name in ("one", "two", "three"):
                peer = await stack.enter_async_context(lab_host(lab, name, *peers))
                peers.append(str(peer.dht_address))
            inside = await stack.enter_async_context(lab_host(lab, "inside", *peers))
            await inside.dht.bootstrapped()
            await inside.run_nat_probe()
            assert inside.nat_type is nat_type
            if nat_type is not NatType.SYMMETRIC:
                assert inside.build_endpoint_payload().endpoints == (f"quic://{lab.public_address('inside')}:4121",)


@pytest.mark.parametrize("release", ["0.2.0", "newest"])
@pytest.mark.parametrize(
    ("kind", "nat_type"), [("full_cone", NatType.FULL_CONE), ("port_restricted", NatType.RESTRICTED)]
)
async def test_the_reference_helps_and_keeps_our_right_address(
    open_nat_lab: OpenNatLab,
    tmp_path: Path,
    release: str,
    kind: str,
    nat_type: NatType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Surroundings, "_keep_probing", _leave_it_to_the_test)
    with open_nat_lab(one="open", two="open", inside=kind) as lab, trio.fail_after(60):
        async with contextlib.AsyncExitStack() as stack:
            nodes: list[ReferenceNode] = []
            for name in ("one", "two"):
                join = tuple(str(node.address) for node in nodes)
                opened = open_lab_reference(lab, name, tmp_path, release=release, bootstrap=join, hub=not nodes)
                nodes.append(await stack.enter_async_context(opened))
            inside = await stack.enter_async_context(lab_host(lab, "inside", *(str(node.address) for node in nodes)))
            await inside.dht.bootstrapped()
            await inside.run_nat_probe()
            assert inside.sense.reachable(trio.current_time()) is (nat_type is NatType.FULL_CONE)
            assert inside.nat_type is nat_type
            for node in nodes:
                known = (await node.get("/debug/routing"))["peers"] or []
                ours = [peer for peer in known if peer["ip"] == lab.public_address("inside")]
                assert [(peer["node_id_hex"], peer["port"]) for peer in ours] == [(inside.dht.node_id.hex(), 4121)]
