"""What ICE needs of the network, as a port, and the system's own."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket
from a2al_trio.net.interfaces import local_addresses
from a2al_trio.net.socket import UdpSocket
from a2al_trio.net.stream import open_stream

__all__ = ["IceNetwork", "SystemNetwork"]


class IceNetwork(Protocol):
    """Sockets, names and addresses of a host, real or simulated."""

    def hosts(self) -> Sequence[str]:
        """IP addresses to make host candidates of, the preferred first."""

    def bind(self, host: str) -> DatagramSocket:
        """Bind a UDP socket to a free port of an address; raises `A2alError` or OSError."""

    async def resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        """Look up a server's name; raises OSError."""

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Connect to a TURN server over TCP or TLS; raises OSError or `trio.BrokenResourceError`."""


@attrs.frozen(kw_only=True)
class SystemNetwork:
    """The network of this machine.

    `only_hosts` limits the host candidates to these addresses, `ipv6` False to IPv4. `tls` is used for `turns:`.
    """

    only_hosts: tuple[str, ...] = ()
    ipv6: bool = True
    tls: ssl.SSLContext | None = None

    def hosts(self) -> Sequence[str]:
        """Every address of every interface but loopback and link-local ones."""
        found = self.only_hosts or tuple(address.host for address in local_addresses())
        return [host for host in found if self.ipv6 or ":" not in host]

    def bind(self, host: str) -> DatagramSocket:
        """Bind a kernel socket."""
        return UdpSocket.bind(SocketAddress(host, 0))

    async def resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        """Ask the system's resolver."""
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        addresses = [SocketAddress.of(str(entry[4][0]), int(entry[4][1])) for entry in found]
        return [address for address in dict.fromkeys(addresses) if self.ipv6 or not address.is_ipv6]

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Connect, trying all addresses of the name; a certificate must suit the name."""
        return await open_stream(host, port, tls=(self.tls or ssl.create_default_context()) if tls else None)
