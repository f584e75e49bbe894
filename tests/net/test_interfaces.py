"""The machine's own addresses, against what the kernel lets a socket bind to."""

from __future__ import annotations

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.interfaces import local_addresses, source_address
from a2al_trio.net.socket import UdpSocket


def test_every_address_can_be_bound() -> None:
    addresses = local_addresses(loopback=True)
    assert any(address.host == "127.0.0.1" and address.prefix_length == 8 for address in addresses)
    for address in addresses:
        UdpSocket.bind(SocketAddress(address.host, 0)).close()


def test_loopback_and_link_local_are_left_out_unless_asked_for() -> None:
    hosts = {address.host for address in local_addresses()}
    assert not any(host.startswith(("127.", "169.254.", "fe80:")) or host == "::1" for host in hosts)
    everything = local_addresses(loopback=True, link_local=True)
    assert hosts < {address.host for address in everything}
    for address in everything:
        assert address.is_ipv6 == (":" in address.host)
        assert ("%" in address.host) == address.host.startswith("fe80:")


def test_the_source_address_of_a_destination() -> None:
    assert source_address(SocketAddress("127.0.0.1", 4121)) == "127.0.0.1"


def test_without_a_route_there_is_no_source() -> None:
    assert source_address(SocketAddress("255.255.255.255", 4121)) is None
