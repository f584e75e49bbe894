"""Mapping by UPnP through a router on loopback, and keeping a port mapped in virtual time."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.nat.igd import SEARCH_TARGETS
from a2al_trio.nat.lease import Lease, Mapper, PortMappingFailed
from a2al_trio.nat.pcp_client import NatPmpMapper, PcpMapper
from a2al_trio.nat.portmap import default_ipv6_mappers, default_mappers, open_port_mapper
from a2al_trio.nat.upnp import UpnpMapper, search_interfaces
from a2al_trio.net.address import SocketAddress
from tests.interop.private_network import private_network, why_not
from tests.nat.gateways import EXTERNAL, FakeIgd, PcpGateway, open_igd, open_pcp_gateway

LOOPBACK = ("127.0.0.1",)


@pytest.mark.parametrize("service_type", SEARCH_TARGETS)
async def test_upnp_maps_renews_and_removes(service_type: str, no_leaks: None) -> None:
    async with open_igd(FakeIgd(service_type)) as igd:
        mapper = UpnpMapper(LOOPBACK, igd.ssdp)
        assert await mapper.map(4121) == Lease(SocketAddress(EXTERNAL, 4121), 3600)
        assert igd.mappings[4121] == igd.mappings[4121] | {
            "NewInternalClient": "127.0.0.1",
            "NewInternalPort": "4121",
            "NewProtocol": "UDP",
            "NewLeaseDuration": "3600",
            "NewPortMappingDescription": "a2al-quic",
        }
        igd.mappings.clear()  # the router restarts
        await mapper.map(4121)
        assert list(igd.mappings) == [4121]
        await mapper.unmap()
        assert not igd.mappings
        assert igd.actions == ["GetExternalIPAddress", "AddPortMapping"] * 2 + ["DeletePortMapping"]


@pytest.mark.interop
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "can")
def test_a_router_is_found_by_multicast() -> None:
    async def main() -> None:
        async with open_igd(FakeIgd(host="20.0.0.1"), multicast=True) as igd:
            mapper = UpnpMapper()
            with trio.fail_after(3):
                lease = await mapper.map(4121)
            assert lease.external == SocketAddress(EXTERNAL, 4121)
            assert igd.mappings[4121]["NewInternalClient"] in ("20.0.0.1", "20.0.0.2")

    with private_network("20.0.0.1", "20.0.0.2"):
        subprocess.run(["ip", "link", "set", "lo", "multicast", "on"], check=True)
        subprocess.run(["ip", "route", "add", "239.0.0.0/8", "dev", "lo"], check=True)
        trio.run(main)


async def test_a_taken_port_is_left_to_its_owner(no_leaks: None) -> None:
    async with open_igd(FakeIgd(taken={4121})) as igd:
        mapper = UpnpMapper(LOOPBACK, igd.ssdp, lambda size: bytes([1] * size))
        assert (await mapper.map(4121)).external == SocketAddress(EXTERNAL, 20257)
        assert (await mapper.map(4121)).external.port == 20257, "renewed, not another one"
        await mapper.unmap()
        assert not igd.mappings


async def test_a_router_with_permanent_leases_only(no_leaks: None) -> None:
    async with open_igd(FakeIgd(permanent_only=True)) as igd:
        mapper = UpnpMapper(LOOPBACK, igd.ssdp)
        assert (await mapper.map(4121)).lifetime == float("inf")
        assert igd.mappings[4121]["NewLeaseDuration"] == "0"


@pytest.mark.parametrize(
    ("igd", "reason"),
    [
        (FakeIgd(external="192.168.0.2"), "another NAT behind it"),
        (FakeIgd(external="100.64.3.4"), "another NAT behind it"),
        (FakeIgd(external=""), "is it connected"),
        (FakeIgd(faults={"AddPortMapping": 606}), "UPnP error 606"),
        (FakeIgd(faults={"AddPortMapping": 718}), "UPnP error 718"),
        (FakeIgd(raw_reply=b"<html>"), "nonsense"),
        (FakeIgd(raw_reply=b"x" * 300_000), "does not end"),
        (FakeIgd(description=b"<root/>"), "nonsense"),
        (FakeIgd(location="http://127.0.0.1:1/root.xml"), "cannot be asked"),
        (FakeIgd(location="http://192.0.2.1/root.xml"), "no router"),
    ],
)
async def test_what_cannot_be_is_said_and_leaves_nothing(
    igd: FakeIgd, reason: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr("a2al_trio.nat.upnp.SEARCH_LIMIT", 0.15)
    async with open_igd(igd) as running:
        mapper = UpnpMapper(LOOPBACK, running.ssdp)
        with pytest.raises(PortMappingFailed, match=reason):
            await mapper.map(4121)
        assert not running.mappings
        await mapper.unmap()


async def test_a_search_without_interfaces_or_routers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2al_trio.nat.upnp.SEARCH_LIMIT", 0.05)
    with pytest.raises(PortMappingFailed, match="no router"):
        await UpnpMapper(()).map(4121)
    with pytest.raises(PortMappingFailed, match="no router"):
        await UpnpMapper(("127.0.0.1",), SocketAddress("127.0.0.1", 9)).map(4121)
    assert all(":" not in host for host in search_interfaces())


async def test_the_first_way_that_works_is_taken(no_leaks: None) -> None:
    async with open_igd(FakeIgd()) as igd, open_pcp_gateway(PcpGateway(pcp=False, lifetime=120)) as gateway:

        def mappers() -> Sequence[Mapper]:
            return PcpMapper(gateway.address), NatPmpMapper(gateway.address), UpnpMapper(LOOPBACK, igd.ssdp)

        changes: list[None] = []
        async with open_port_mapper(4121, on_change=lambda: changes.append(None), mappers=mappers) as mapper:
            with trio.fail_after(5):
                await mapper.settled()
            assert (mapper.method, mapper.mapped) == ("NAT-PMP", SocketAddress(EXTERNAL, 4121))
            assert len(changes) == 1
            assert gateway.mappings
        assert not gateway.mappings, "removed at the end"
        assert not igd.actions


async def test_a_mapping_is_removed_when_cancelled(no_leaks: None) -> None:
    async with open_igd(FakeIgd()) as igd:
        with trio.CancelScope() as scope:
            async with open_port_mapper(4121, on_change=scope.cancel, mappers=lambda: [UpnpMapper(LOOPBACK, igd.ssdp)]):
                await trio.sleep_forever()
        assert igd.actions[-1] == "DeletePortMapping"
        assert not igd.mappings


@attrs.define
class ScriptedMapper:
    """Gives what `script` says, one entry per call; the last for ever."""

    script: list[Lease | str]
    name: str = "scripted"
    calls: list[float] = attrs.field(factory=list)
    removals: int = 0

    async def map(self, port: int) -> Lease:
        self.calls.append(trio.current_time())
        outcome = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if outcome == "hang":
            await trio.sleep_forever()
        if isinstance(outcome, str):
            raise PortMappingFailed(outcome)
        return outcome

    async def unmap(self) -> None:
        self.removals += 1
        if self.name == "stuck":
            await trio.sleep_forever()


A, B = SocketAddress(EXTERNAL, 4121), SocketAddress(EXTERNAL, 4122)


async def test_leases_are_renewed_at_half_their_life(autojump_clock: trio.testing.MockClock) -> None:
    mapper = ScriptedMapper([Lease(A, 600), Lease(A, 120), Lease(B, 3600), Lease(B, 3600)])
    seen: list[SocketAddress | None] = []
    async with open_port_mapper(4121, on_change=lambda: seen.append(kept.mapped), mappers=lambda: [mapper]) as kept:
        await trio.sleep(1000)
    assert mapper.calls == [0, 300, 360, 960]
    assert seen == [A, B]
    assert mapper.removals == 1


async def test_failures_are_retried_ever_more_slowly_and_at_once_in_a_new_network(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mapper = ScriptedMapper(["no", "no", "no", "no", Lease(A, 3600)])
    async with open_port_mapper(4121, on_change=lambda: None, mappers=lambda: [mapper]) as kept:
        await kept.settled()
        assert kept.mapped is None
        assert kept.failures == ("scripted: no",)
        await trio.sleep(200)
        assert mapper.calls == [0, 60, 180]
        kept.refresh()
        await trio.sleep(61)
        assert mapper.calls == [0, 60, 180, 200, 260]
        assert kept.mapped == A
        assert kept.failures == ()
    assert caplog.text.count("no port mapping") == 1


async def test_a_lost_mapping_is_sought_by_all_ways(autojump_clock: trio.testing.MockClock) -> None:
    first, second = ScriptedMapper([Lease(A, 600), "gone"]), ScriptedMapper([Lease(B, 600)], "second")
    changes: list[None] = []
    async with open_port_mapper(4121, on_change=lambda: changes.append(None), mappers=lambda: [first, second]) as kept:
        await trio.sleep(301)
        assert (kept.method, kept.mapped) == ("second", B)
    assert len(changes) == 2


async def test_a_router_that_hangs_holds_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    mapper = ScriptedMapper(["hang"], "stuck")
    async with open_port_mapper(4121, on_change=lambda: None, mappers=lambda: [mapper]) as kept:
        await kept.settled()
        assert trio.current_time() == 13
        assert kept.failures == ("stuck: no success within 10 s",)
        await trio.sleep(62)
        ended = trio.current_time()
    assert trio.current_time() - ended <= 3


def test_the_default_ways_end_with_upnp() -> None:
    assert default_mappers()[-1].name == "UPnP"
    assert [mapper.name for mapper in default_ipv6_mappers()] in ([], ["PCP"])
