"""Mapping a port by UPnP: finding the router on the LAN and telling it (spec 05 §7, §14 N10)."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.errors import DecodeError
from a2al_trio.nat.http import HttpFailed, request
from a2al_trio.nat.igd import (
    SEARCH_TARGETS,
    Service,
    SoapFault,
    decode_description,
    decode_search_answer,
    decode_soap_reply,
    encode_search,
    encode_soap,
)
from a2al_trio.nat.lease import LEASE_SECONDS, Lease, PortMappingFailed, check_external
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.interfaces import local_addresses
from a2al_trio.scopes import open_service_nursery

__all__ = ["SSDP_ADDRESS", "UpnpMapper", "search_interfaces"]

logger = logging.getLogger(__name__)

SSDP_ADDRESS = SocketAddress("239.255.255.250", 1900)
SENDS = 3
SEND_SPACING = 0.2
"""Seconds between them; the reference's 5 ms fall victim to one full queue all together."""
SEARCH_LIMIT = 2.0
HTTP_LIMIT = 3.0
MAX_DOCUMENT = 256 * 1024
MAX_DEVICES = 8
DESCRIPTION = "a2al-quic"
ONLY_PERMANENT_LEASES = 725
CONFLICT = 718
PORT_TRIES = 4


def search_interfaces() -> tuple[str, ...]:
    """The IPv4 addresses to search from: all but loopback and link-local ones."""
    return tuple(found.host for found in local_addresses() if not found.is_ipv6)


@attrs.frozen
class _Device:
    """A description to fetch, and the own address that the device answered to."""

    location: str
    local_host: str


@attrs.define(eq=False)
class UpnpMapper:
    """Maps a port by UPnP; IPv4 only. `search_from` are own addresses to search from, by default of all interfaces."""

    search_from: Iterable[str] | None = None
    ssdp: SocketAddress = SSDP_ADDRESS
    entropy: Callable[[int], bytes] = os.urandom
    name: str = attrs.field(default="UPnP", init=False)
    _service: Service | None = attrs.field(default=None, init=False)
    _client: str = attrs.field(default="", init=False)
    _external_port: int | None = attrs.field(default=None, init=False)
    _lifetime: int = attrs.field(default=LEASE_SECONDS, init=False)

    async def map(self, port: int) -> Lease:
        """See `Mapper`. The router found once is asked again; if that fails, another search is made."""
        if self._service is not None:
            try:
                return await self._map(port)
            except PortMappingFailed as error:
                logger.info("the router no longer maps our port: %s", error)
                await self.unmap()
                self._service = None
        return await self._search_and_map(port)

    async def unmap(self) -> None:
        """See `Mapper`."""
        if self._service is not None and self._external_port is not None:
            external_port, self._external_port = self._external_port, None
            arguments = {"NewRemoteHost": "", "NewExternalPort": str(external_port), "NewProtocol": "UDP"}
            try:
                await self._act("DeletePortMapping", arguments)
            except PortMappingFailed as error:
                logger.info("the port mapping is not removed: %s", error)

    # -- finding the router ------------------------------------------------------------------------------------

    async def _search_and_map(self, port: int) -> Lease:
        """Take the first device that maps our port; later answers are not waited for."""
        failure = PortMappingFailed("no router on this network answers UPnP searches")
        async with self._search() as devices:
            async for device in devices:
                try:
                    services = decode_description(await _fetch(device.location), device.location)
                except DecodeError as error:
                    failure = PortMappingFailed(f"the router at {device.location} answers nonsense: {error}")
                    continue
                except PortMappingFailed as error:
                    failure = error
                    continue
                for service in services:
                    self._service, self._client = service, device.local_host
                    try:
                        return await self._map(port)
                    except PortMappingFailed as error:
                        failure = error
                        await self.unmap()
                        self._service = None
        raise failure

    @asynccontextmanager
    async def _search(self) -> AsyncIterator[trio.MemoryReceiveChannel[_Device]]:
        """Devices as they answer, each once, for as long as answers may come."""
        send, receive = trio.open_memory_channel[_Device](MAX_DEVICES)
        known: set[str] = set()
        async with open_service_nursery("UPnP search") as nursery:
            with send:
                for host in search_interfaces() if self.search_from is None else self.search_from:
                    nursery.start_soon(self._search_from, host, known, send.clone())
            yield receive

    async def _search_from(self, host: str, known: set[str], found: trio.MemorySendChannel[_Device]) -> None:
        with found, trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, trio.move_on_after(SEARCH_LIMIT):
            try:
                await sock.bind((host, 0))
                if ipaddress.ip_address(self.ssdp.host).is_multicast:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_searches, sock)
                    while True:
                        data, source = await sock.recvfrom(4096)
                        location = _location(data, source[0])
                        if location is not None and location not in known and len(known) < MAX_DEVICES:
                            known.add(location)
                            await found.send(_Device(location, host))
            except OSError as error:
                logger.debug("UPnP search from %s: %s", host, error)

    async def _send_searches(self, sock: trio.socket.SocketType) -> None:
        for number in range(SENDS):
            if number:
                await trio.sleep(SEND_SPACING)
            for target in SEARCH_TARGETS:
                await sock.sendto(encode_search(target, str(self.ssdp)), tuple(self.ssdp))

    # -- telling it --------------------------------------------------------------------------------------------

    async def _map(self, port: int) -> Lease:
        reply = await self._act("GetExternalIPAddress", {})
        try:
            external = str(ipaddress.IPv4Address(reply.get("NewExternalIPAddress", "")))
        except ValueError:
            raise PortMappingFailed("the router does not know its own address: is it connected?") from None
        check_external(external)
        mapped = await self._add(port)
        return Lease(SocketAddress(external, mapped), self._lifetime or float("inf"))

    async def _add(self, port: int) -> int:
        """Map our port to the same one outside, or to another if that is somebody else's; returns which."""
        wanted = self._external_port or port
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                # Noted before it is known to exist, so that being cancelled here leaves nothing behind.
                self._external_port = wanted
                await self._add_mapping(port, wanted)
                return wanted
            except SoapFault as fault:
                if fault.code == ONLY_PERMANENT_LEASES and self._lifetime:
                    self._lifetime = 0
                elif fault.code == CONFLICT and tries_left:
                    self._external_port = None
                    wanted = 20000 + int.from_bytes(self.entropy(2), "big") % 40000
                else:
                    self._external_port = None
                    raise
        raise PortMappingFailed("the router has no port left for us")

    async def _add_mapping(self, port: int, external_port: int) -> None:
        await self._act(
            "AddPortMapping",
            {
                "NewRemoteHost": "",
                "NewExternalPort": str(external_port),
                "NewProtocol": "UDP",
                "NewInternalPort": str(port),
                "NewInternalClient": self._client,
                "NewEnabled": "1",
                "NewPortMappingDescription": DESCRIPTION,
                "NewLeaseDuration": str(self._lifetime),
            },
        )

    async def _act(self, action: str, arguments: Mapping[str, str]) -> dict[str, str]:
        assert self._service is not None
        headers, body = encode_soap(self._service.service_type, action, arguments)
        document = await _fetch(self._service.control_url, headers, body)
        try:
            return decode_soap_reply(document)
        except DecodeError as error:
            raise PortMappingFailed(f"the router answers nonsense: {error}") from error


def _location(data: bytes, source: str) -> str | None:
    try:
        return decode_search_answer(data, source)
    except DecodeError:
        return None


async def _fetch(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    """The body of a router's answer, which must come within 3 s; SOAP faults come with status 500."""
    with trio.move_on_after(HTTP_LIMIT):
        try:
            reply = await request(url, max_body=MAX_DOCUMENT, headers=headers, body=body)
        except HttpFailed as error:
            raise PortMappingFailed(f"the router cannot be asked: {error}") from error
        if reply.status not in (200, 500):
            raise PortMappingFailed(f"the router answers {url} with status {reply.status}")
        return reply.body
    raise PortMappingFailed(f"the router does not answer at {url}")
