"""The machine's own addresses."""

from __future__ import annotations

import ipaddress
import socket

import attrs
import ifaddr

from a2al_trio.net.address import SocketAddress

__all__ = ["InterfaceAddress", "local_addresses", "source_address"]


@attrs.frozen
class InterfaceAddress:
    """One address of one network interface; an IPv6 link-local `host` carries its `%scope`."""

    name: str
    host: str
    prefix_length: int

    @property
    def is_ipv6(self) -> bool:
        """Whether this is an IPv6 address."""
        return ":" in self.host


def local_addresses(*, loopback: bool = False, link_local: bool = False) -> tuple[InterfaceAddress, ...]:
    """All addresses of the machine's interfaces, without loopback and link-local ones unless asked for."""
    found = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            host = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = ipaddress.ip_address(host.partition("%")[0])
            if (address.is_loopback and not loopback) or (address.is_link_local and not link_local):
                continue
            host = str(address)
            if address.version == 6 and address.is_link_local:
                host += f"%{adapter.name}"
            found.append(InterfaceAddress(adapter.name, host, entry.network_prefix))
    return tuple(found)


def source_address(destination: SocketAddress) -> str | None:
    """The own address the system would send to `destination` from; None without a route. Sends nothing."""
    family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination.host, destination.port or 9))
            name = probe.getsockname()
            scope = f"%{socket.if_indextoname(name[3])}" if destination.is_ipv6 and name[3] else ""
    except OSError:
        return None
    return SocketAddress.of(name[0] + scope, 0).host
