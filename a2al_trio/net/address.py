"""IP socket addresses as this package passes them around."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

__all__ = ["SocketAddress"]


class SocketAddress(NamedTuple):
    """A UDP or TCP address.

    `host` is the text of an IP address in its shortest form, never a name; an IPv4-mapped IPv6 address is
    written as IPv4, and a link-local IPv6 address may carry `%scope`. `port` is 0 to 65535.
    """

    host: str
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> SocketAddress:
        """Normalise `host`; raises ValueError if it is not an IP address or the port is out of range."""
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not in 0..65535")
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return cls(str(address), port)

    @classmethod
    def parse(cls, text: str) -> SocketAddress:
        """Read `1.2.3.4:5` or `[::1]:5`; raises ValueError for anything else."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or len(port) > 5:
            raise ValueError(f"{text!r} is not IP:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:{port}")
        return cls.of(host, int(port))

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
