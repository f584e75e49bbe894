"""Socket addresses on the wire: 4 or 16 bytes of IP address and two of port (spec 02 §7)."""

from __future__ import annotations

import ipaddress

from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.errors import WireDecodeError, WireEncodeError

__all__ = [
    "decode_observed",
    "encode_observed",
    "host_from_ip",
    "ip_from_host",
    "is_globally_routable",
    "is_public",
]

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NOT_PUBLIC = _networks(
    *("0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16"),
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
    *("::/128", "::1/128", "ff00::/8", "fe80::/10", "fc00::/7"),
)
# Documentation, benchmarking, reserved, broadcast, "this network" and translated ranges (spec 02 §15.2 item 11).
_NOT_ROUTABLE = _networks(
    *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001:db8::/32", "3fff::/20", "fec0::/10"),
)


def ip_from_host(host: str) -> bytes:
    """The 4 or 16 bytes of an IP address text; IPv4-mapped IPv6 becomes IPv4, a scope is dropped.

    Raises WireEncodeError if `host` is not an IP address.
    """
    try:
        packed = ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        raise WireEncodeError(f"{host!r} is not an IP address") from None
    return packed[12:] if packed.startswith(_MAPPED_PREFIX) else packed


def host_from_ip(ip: bytes) -> str:
    """The shortest text of 4 or 16 bytes of IP address; IPv4-mapped IPv6 reads as IPv4."""
    if len(ip) == 16:
        if not ip.startswith(_MAPPED_PREFIX):
            return str(ipaddress.IPv6Address(ip))
        ip = ip[12:]
    elif len(ip) != 4:
        raise WireDecodeError(f"an IP address of {len(ip)} bytes")
    return f"{ip[0]}.{ip[1]}.{ip[2]}.{ip[3]}"


def encode_observed(address: SocketAddress) -> bytes:
    """The 6 or 18 bytes of an address. Raises WireEncodeError if its host is not an IP address."""
    return ip_from_host(address.host) + address.port.to_bytes(2, "big")


def decode_observed(data: bytes) -> SocketAddress:
    """Read 6 or 18 bytes; any other length raises WireDecodeError."""
    if len(data) not in (6, 18):
        raise WireDecodeError(f"an observed address of {len(data)} bytes, not 6 or 18")
    return SocketAddress(host_from_ip(data[:-2]), int.from_bytes(data[-2:], "big"))


def is_public(host: str) -> bool:
    """Whether peers may count on reaching this IP address: the test every implementation makes (spec 02 §7.1)."""
    return not _is_in(_NOT_PUBLIC, host)


def is_globally_routable(host: str) -> bool:
    """`is_public` without the ranges no host on the Internet has; a stricter test for addresses to send to unasked.

    Test networks often use just those ranges, so this is for configurations that face the Internet.
    """
    return not _is_in(_NOT_PUBLIC, host) and not _is_in(_NOT_ROUTABLE, host)


def _is_in(networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], host: str) -> bool:
    address = ipaddress.ip_address(ip_from_host(host))
    return any(address in network for network in networks)
