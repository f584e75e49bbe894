"""Which router is our way out: PCP and NAT-PMP are spoken to it."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

__all__ = ["default_gateway", "parse_ipv6_routes", "parse_routes"]

_UP_AND_GATEWAY = 0x3
_PROC = Path("/proc/thread-self/net")


def default_gateway(*, ipv6: bool = False) -> str | None:
    """The IP address of the default gateway, an IPv6 link-local one with its scope; None if it is not known.

    Only Linux tells it without running programs; elsewhere UPnP finds the router by itself.
    """
    name, parse = ("ipv6_route", parse_ipv6_routes) if ipv6 else ("route", parse_routes)
    try:
        return parse((_PROC / name).read_text())
    except OSError:
        return None


def parse_routes(table: str) -> str | None:
    """The default gateway in the text of `/proc/net/route`: that of the lowest metric."""
    found: list[tuple[int, str]] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        if int(fields[3], 16) & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            # The kernel prints the address as a number in the machine's byte order.
            host = socket.inet_ntoa(int(fields[2], 16).to_bytes(4, sys.byteorder))
            found.append((int(fields[6]), host))
    return min(found)[1] if found else None


def parse_ipv6_routes(table: str) -> str | None:
    """The same of `/proc/net/ipv6_route`."""
    found: list[tuple[int, str]] = []
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 10 or fields[0] != "0" * 32 or fields[1] != "00":
            continue
        if int(fields[8], 16) & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            address = ipaddress.IPv6Address(bytes.fromhex(fields[4]))
            host = f"{address}%{fields[9]}" if address.is_link_local else str(address)
            found.append((int(fields[5], 16), host))
    return min(found)[1] if found else None
