"""What an IP address tells: the network it counts for, and whether we may be sent there.

Contacts arrive as hearsay, so a reply could aim our packets at third parties (spec 03 §20.7) or fill tables from one
machine (§20.8).
"""

from __future__ import annotations

import enum
import ipaddress
from functools import lru_cache

from a2al_trio.net.address import SocketAddress

__all__ = ["Scope", "is_exempt", "network_of", "packed_host", "scope_of", "socket_address"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")


class Scope(enum.Enum):
    """How far an address reaches."""

    GLOBAL = "global"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    UNUSABLE = "unusable"


@lru_cache(maxsize=16384)
def packed_host(host: str) -> bytes:
    """The 4 or 16 bytes of a textual address; a zone (`%eth0`) is dropped."""
    return ipaddress.ip_address(host.partition("%")[0]).packed


@lru_cache(maxsize=16384)
def _host_text(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def socket_address(packed: bytes, port: int) -> SocketAddress:
    """The address of 4 or 16 bytes and a port, IPv4-mapped IPv6 written as IPv4."""
    return SocketAddress(_host_text(packed), port)


@lru_cache(maxsize=16384)
def network_of(host: str) -> bytes:
    """The /24 (IPv4) or /56 (IPv6) the address lies in; equal bytes mean the same network."""
    packed = packed_host(host)
    return packed[:3] if len(packed) == 4 else packed[:7]


@lru_cache(maxsize=16384)
def is_exempt(host: str, networks: tuple[str, ...]) -> bool:
    """Whether the address lies in one of the networks."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return any(address in ipaddress.ip_network(network) for network in networks)


@lru_cache(maxsize=16384)
def scope_of(host: str) -> Scope:
    """How far the address reaches."""
    address: IPAddress = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return Scope.UNUSABLE
    if address.is_loopback:
        return Scope.LOOPBACK
    if address.is_link_local:
        return Scope.PRIVATE
    if isinstance(address, ipaddress.IPv4Address):
        if address in ipaddress.IPv4Network("0.0.0.0/8"):
            return Scope.UNUSABLE
        private = address in _SHARED or any(
            address in ipaddress.IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        )
        return Scope.PRIVATE if private else Scope.GLOBAL
    return Scope.PRIVATE if address in ipaddress.IPv6Network("fc00::/7") else Scope.GLOBAL
