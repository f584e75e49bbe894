"""Mapping a port by PCP (RFC 6887) and by NAT-PMP (RFC 6886)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeVar

import trio

from a2al_trio.errors import DecodeError
from a2al_trio.nat.lease import LEASE_SECONDS, Lease, PortMappingFailed, check_external
from a2al_trio.nat.pcp import (
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
from a2al_trio.net.address import SocketAddress

__all__ = ["NatPmpMapper", "PcpMapper"]

T = TypeVar("T")
WAITS = (0.25, 0.5, 1.0)
"""Seconds to wait after each sending (RFC 6886 §3.1, cut short: a gateway is one hop away)."""
REMOVED = SocketAddress("::", 0)


class _Gateway:
    """Sends requests to a gateway, from a socket of their own each, bound to `local_host` if there is one."""

    def __init__(self, address: SocketAddress, local_host: str | None = None) -> None:
        self.address = address
        self.local_host = local_host

    async def request(self, make: Callable[[str], bytes], accept: Callable[[bytes], T | None]) -> T:
        """Send `make(our address)` until `accept` takes an answer; raises PortMappingFailed."""
        family = socket.AF_INET6 if self.address.is_ipv6 else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                if self.local_host is not None:
                    await sock.bind((self.local_host, 0))
                # Connected: answers of others do not get in, and a closed port is told of at once.
                await sock.connect((self.address.host, self.address.port))
                message = make(sock.getsockname()[0])
                for wait in WAITS:
                    await sock.send(message)
                    with trio.move_on_after(wait):
                        return await self._receive(sock, accept)
            except OSError as error:
                raise PortMappingFailed(f"gateway {self.address} cannot be asked: {error}") from error
        raise PortMappingFailed(f"gateway {self.address} does not answer")

    @staticmethod
    async def _receive(sock: trio.socket.SocketType, accept: Callable[[bytes], T | None]) -> T:
        while True:
            try:
                found = accept(await sock.recv(2048))
            except DecodeError:
                continue
            if found is not None:
                return found


class NatPmpMapper:
    """Maps a port by NAT-PMP; IPv4 only."""

    name = "NAT-PMP"

    def __init__(self, gateway: SocketAddress) -> None:
        self._gateway = _Gateway(gateway)
        self._port: int | None = None
        self._external_port = 0

    async def map(self, port: int) -> Lease:
        """See `Mapper`."""
        external = await self._gateway.request(lambda _: encode_pmp_address_request(), _pmp_address)
        check_external(external.host)
        self._port = port
        try:
            mapping = await self._request(port, self._external_port or port, LEASE_SECONDS)
        except PortMappingFailed:
            self._port = None
            raise
        self._external_port = mapping.external_port
        return Lease(SocketAddress(external.host, mapping.external_port), mapping.lifetime)

    async def unmap(self) -> None:
        """See `Mapper`."""
        if self._port is not None:
            port, self._port = self._port, None
            try:
                await self._request(port, 0, 0)
            except PortMappingFailed:
                return  # it ends by itself

    async def _request(self, port: int, external_port: int, lifetime: int) -> PmpMapping:
        def accept(data: bytes) -> PmpMapping | None:
            reply = decode_reply(data)
            _check(reply)
            return reply if isinstance(reply, PmpMapping) and reply.internal_port == port else None

        mapping = await self._gateway.request(lambda _: encode_pmp_map(port, external_port, lifetime), accept)
        if lifetime and not (mapping.external_port and mapping.lifetime):
            raise PortMappingFailed("the gateway answers with no mapping")
        return mapping


def _pmp_address(data: bytes) -> PmpAddress | None:
    reply = decode_reply(data)
    _check(reply)
    return reply if isinstance(reply, PmpAddress) else None


class PcpMapper:
    """Maps a port by PCP, or for IPv6 opens it in the router's firewall.

    What is opened is the port of the address the request comes from. An IPv6 router is asked at its link-local
    address, to which the system would speak from a link-local one, so there `local_host` must say which.
    """

    name = "PCP"

    def __init__(
        self,
        gateway: SocketAddress,
        *,
        local_host: str | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._gateway = _Gateway(gateway, local_host)
        # Only who knows the nonce can change the mapping (RFC 6887 §11.2).
        self._nonce = entropy(12)
        self._port: int | None = None
        self._external: SocketAddress | None = None

    async def map(self, port: int) -> Lease:
        """See `Mapper`."""
        self._port = port
        anywhere = SocketAddress("::" if self._gateway.address.is_ipv6 else "0.0.0.0", port)
        try:
            mapping = await self._request(port, self._external or anywhere, LEASE_SECONDS)
        except PortMappingFailed:
            self._port = None
            raise
        try:
            check_external(mapping.external.host)
            if not (mapping.external.port and mapping.lifetime):
                raise PortMappingFailed("the gateway answers with no mapping")
        except PortMappingFailed:
            await self.unmap()
            raise
        self._external = mapping.external
        return Lease(mapping.external, mapping.lifetime)

    async def unmap(self) -> None:
        """See `Mapper`."""
        if self._port is not None:
            port, self._port = self._port, None
            try:
                await self._request(port, REMOVED, 0)
            except PortMappingFailed:
                return  # it ends by itself

    async def _request(self, port: int, external: SocketAddress, lifetime: int) -> PcpMapping:
        def accept(data: bytes) -> PcpMapping | None:
            reply = decode_reply(data)
            _check(reply)
            if not isinstance(reply, PcpMapping) or reply.nonce != self._nonce:
                return None  # somebody else's
            return reply if reply.internal_port == port else None

        return await self._gateway.request(
            lambda client: encode_pcp_map(client, self._nonce, port, external, lifetime), accept
        )


def _check(reply: object) -> None:
    if isinstance(reply, (PcpRefusal, PmpRefusal)):
        raise PortMappingFailed(f"the gateway refuses: {reply.reason}")
