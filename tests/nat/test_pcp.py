"""PCP and NAT-PMP messages, and mapping through a gateway on loopback."""

from __future__ import annotations

import contextlib
import random
import struct

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from a2al_trio.nat.gateway import default_gateway, parse_ipv6_routes, parse_routes
from a2al_trio.nat.lease import Lease, PortMappingFailed
from a2al_trio.nat.pcp import (
    GatewayDecodeError,
    PcpMapping,
    PcpRefusal,
    PmpAddress,
    PmpMapping,
    PmpRefusal,
    decode_reply,
    encode_pcp_map,
    encode_pmp_address_request,
    encode_pmp_map,
)
from a2al_trio.nat.pcp_client import NatPmpMapper, PcpMapper
from a2al_trio.net.address import SocketAddress
from tests.nat.gateways import EXTERNAL, PcpGateway, open_pcp_gateway

NONCE = bytes(range(12))


def test_nat_pmp_requests() -> None:
    assert encode_pmp_address_request() == b"\0\0"
    assert encode_pmp_map(4121, 4122, 3600).hex() == "00010000" + "1019" + "101a" + "00000e10"


def test_pcp_request() -> None:
    request = encode_pcp_map("192.168.1.2", NONCE, 4121, SocketAddress("203.0.113.7", 4122), 3600)
    assert request.hex() == (
        "02010000" "00000e10" "00000000000000000000ffffc0a80102"
        + NONCE.hex() + "11000000" "1019" "101a" "00000000000000000000ffffcb007107"
    )  # fmt: skip
    assert len(encode_pcp_map("fe80::1%eth0", NONCE, 1, SocketAddress("::", 0), 0)) == 60


def test_answers() -> None:
    assert decode_reply(bytes.fromhex("0080000000000063cb007107")) == PmpAddress(99, "203.0.113.7")
    assert decode_reply(bytes.fromhex("00810000000000631019101a00000e10")) == PmpMapping(99, 4121, 4122, 3600)
    assert decode_reply(bytes.fromhex("0081000100000063")) == PmpRefusal(1)
    gateway = PcpGateway()
    mapped = gateway.answer(encode_pcp_map("127.0.0.1", NONCE, 4121, SocketAddress("0.0.0.0", 4122), 9999))
    assert mapped is not None
    assert decode_reply(mapped) == PcpMapping(99, NONCE, 4121, SocketAddress(EXTERNAL, 4122), 3600)
    refusal = decode_reply(struct.pack(">BBxBII12x", 2, 0x81, 12, 30, 99))
    assert refusal == PcpRefusal(12, 30)
    assert isinstance(refusal, PcpRefusal)
    assert "another NAT" in refusal.reason


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\x02\x81\0\0" + tail))
@example(b"\x00\x80\0\0")
@example(b"\x02\x81\0\0" + bytes(1200))
def test_any_bytes_decode_or_do_not(data: bytes) -> None:
    with contextlib.suppress(GatewayDecodeError):
        decode_reply(data)


@pytest.mark.parametrize("mapper_type", [PcpMapper, NatPmpMapper])
@pytest.mark.parametrize("deaf", [0, 1])
async def test_a_port_is_mapped_renewed_and_removed(
    mapper_type: type[PcpMapper | NatPmpMapper], deaf: int, no_leaks: None
) -> None:
    async with open_pcp_gateway(PcpGateway(deaf=deaf)) as gateway:
        gateway.mappings[4121] = 5555  # somebody has had this port mapped to another one
        mapper = mapper_type(gateway.address)
        for _ in range(2):
            assert await mapper.map(4121) == Lease(SocketAddress(EXTERNAL, 5555), 3600)
        await mapper.unmap()
        assert not gateway.mappings
        asked = gateway.requests
        await mapper.unmap()
        assert gateway.requests == asked, "there is nothing to remove"


@pytest.mark.parametrize("mapper_type", [PcpMapper, NatPmpMapper])
@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        (PcpGateway(result=2), "not authorized"),
        (PcpGateway(external="100.64.1.1"), "another NAT behind it"),
        (PcpGateway(pcp=False, nat_pmp=False), "version not supported"),
        (PcpGateway(deaf=99), "does not answer"),
        (PcpGateway(forge=lambda reply: reply[:-1]), "does not answer"),
        (PcpGateway(forge=lambda reply: reply[:-14] + bytes(14)), "."),
    ],
)
async def test_what_cannot_be_is_said_and_leaves_nothing(
    mapper_type: type[PcpMapper | NatPmpMapper],
    gateway: PcpGateway,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    no_leaks: None,
) -> None:
    monkeypatch.setattr("a2al_trio.nat.pcp_client.WAITS", (0.02, 0.02))
    async with open_pcp_gateway(attrs.evolve(gateway, mappings={})) as running:
        with pytest.raises(PortMappingFailed, match=reason):
            await mapper_type(running.address).map(4121)
        if reason.startswith("another"):
            assert not running.mappings


async def test_the_address_to_open_the_port_of_can_be_chosen(no_leaks: None) -> None:
    async with open_pcp_gateway(PcpGateway()) as gateway:
        mapper = PcpMapper(gateway.address, local_host="127.0.0.1")
        assert (await mapper.map(4121)).external == SocketAddress(EXTERNAL, 4121)
        elsewhere = PcpMapper(gateway.address, local_host="192.0.2.1")
        with pytest.raises(PortMappingFailed, match="cannot be asked"):
            await elsewhere.map(4121)


async def test_a_closed_port_is_noticed_at_once(no_leaks: None) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        nobody = SocketAddress(*sock.getsockname())
    with trio.fail_after(0.2), pytest.raises(PortMappingFailed, match="cannot be asked"):
        await PcpMapper(nobody, entropy=random.Random(1).randbytes).map(4121)


async def test_an_answer_with_another_nonce_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2al_trio.nat.pcp_client.WAITS", (0.02,))
    forged = PcpGateway(forge=lambda reply: reply[:24] + bytes(12) + reply[36:])
    async with open_pcp_gateway(forged) as gateway:
        with pytest.raises(PortMappingFailed, match="does not answer"):
            await PcpMapper(gateway.address).map(4121)


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
IPV6_ROUTES = (
    "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 "
    "00000100 00000001 00000000 00000001     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 "
    "00000400 00000001 00000000 00000003     eth0\n"
)


@pytest.mark.skipif("sys.byteorder != 'little'", reason="the table above is a little-endian machine's")
def test_the_default_gateway_is_that_of_the_lowest_metric() -> None:
    assert parse_routes(ROUTES) == "192.168.1.254"
    assert parse_routes("") is None
    assert parse_ipv6_routes(IPV6_ROUTES) == "fe80::1%eth0"
    assert parse_ipv6_routes("") is None


def test_this_machine_has_a_gateway_or_not() -> None:
    for ipv6 in (False, True):
        gateway = default_gateway(ipv6=ipv6)
        assert gateway is None or (":" in gateway) == ipv6
