"""Socket addresses on the wire, and nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.identity import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    NodeInfo,
    WireDecodeError,
    WireEncodeError,
    decode_observed,
    encode_observed,
    host_from_ip,
    ip_from_host,
    is_globally_routable,
    is_public,
)
from tests.wire.strategies import ALICE, observed, ports, socket_addresses


@given(socket_addresses)
def test_addresses_come_back(address: SocketAddress) -> None:
    assert decode_observed(encode_observed(address)) == address


@given(observed)
def test_any_six_or_eighteen_bytes_are_an_address(data: bytes) -> None:
    address = decode_observed(data)
    assert SocketAddress.of(*address) == address  # already in its normal form
    assert decode_observed(encode_observed(address)) == address


@given(st.binary(max_size=40).filter(lambda data: len(data) not in (6, 18)))
def test_other_lengths_are_refused(data: bytes) -> None:
    with pytest.raises(WireDecodeError):
        decode_observed(data)


def test_mapped_addresses_are_ipv4() -> None:
    assert encode_observed(SocketAddress("::ffff:203.0.113.7", 4121)).hex() == "cb0071071019"
    assert decode_observed(bytes.fromhex("00000000000000000000ffffcb0071071019")) == ("203.0.113.7", 4121)
    assert ip_from_host("fe80::1%eth0") == ip_from_host("fe80::1")
    assert host_from_ip(bytes(16)) == "::"
    with pytest.raises(WireDecodeError):
        host_from_ip(b"12345")
    with pytest.raises(WireEncodeError, match="not an IP"):
        ip_from_host("example.net")


@pytest.mark.parametrize("host", ["10.0.0.1", "100.64.0.1", "::1", "fe80::1%2", "fd00::1", "224.0.0.1", "0.0.0.0"])
def test_not_public(host: str) -> None:
    assert not is_public(host)
    assert not is_globally_routable(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "198.18.0.1", "255.255.255.255", "2001:db8::1", "64:ff9b::808:808"])
def test_public_to_others_but_not_routable(host: str) -> None:
    assert is_public(host)
    assert not is_globally_routable(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2a00:1450::1"])
def test_routable(host: str) -> None:
    assert is_public(host)
    assert is_globally_routable(host)


@given(socket_addresses)
def test_nodes_name_where_they_are(address: SocketAddress) -> None:
    node = NodeInfo.of(ALICE.address, address)
    assert node.is_bound
    assert node.socket_address == address
    assert len(node.encoded) <= 81


@given(ports)
def test_a_foreign_node_id_shows(port: int) -> None:
    assert not NodeInfo(ALICE.address, NodeId(bytes(32)), bytes(4), port).is_bound


def test_nodes_without_a_form_are_refused() -> None:
    for node in (
        NodeInfo(ALICE.address, ALICE.node_id, b"12345", 1),
        NodeInfo(ALICE.address, ALICE.node_id, bytes(4), 65536),
    ):
        with pytest.raises(WireEncodeError):
            _ = node.encoded
    vector = NodeInfo.of(
        Address.parse("A024f6Ed6acbfe1009c030D7ca567c33CA48309114"), SocketAddress("198.51.100.9", 4121)
    )
    assert vector.encoded.hex().endswith("0344c633640904191019")
