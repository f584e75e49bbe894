"""Keeping a port of the router forwarded to us: mapped, renewed at half its lease, removed at the end (spec 05 §7)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from a2al_trio.nat.gateway import default_gateway
from a2al_trio.nat.lease import Lease, Mapper, PortMappingFailed
from a2al_trio.nat.pcp import GATEWAY_PORT
from a2al_trio.nat.pcp_client import NatPmpMapper, PcpMapper
from a2al_trio.nat.upnp import UpnpMapper
from a2al_trio.nat.watch import outbound_hosts
from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import open_service_nursery

__all__ = ["PortMapper", "default_ipv6_mappers", "default_mappers", "open_port_mapper"]

logger = logging.getLogger(__name__)

RENEW_AT_MOST = 600.0
"""Seconds between renewals, however long the lease: a router that restarts forgets it."""
RENEW_AT_LEAST = 30.0
"""However short it is; RFC 6887 §15 has gateways grant two minutes or more."""
FAILURE_PAUSE = 60.0
MAX_FAILURE_PAUSE = 900.0
ATTEMPT_LIMIT = 10.0
"""Seconds for one way of mapping; a hostile device on the LAN could answer for ever."""
REMOVAL_LIMIT = 3.0


def default_mappers() -> Sequence[Mapper]:
    """The ways to map an IPv4 port here, the quickest first."""
    gateway = default_gateway()
    if gateway is None:
        return (UpnpMapper(),)
    address = SocketAddress(gateway, GATEWAY_PORT)
    return PcpMapper(address), NatPmpMapper(address), UpnpMapper()


def default_ipv6_mappers() -> Sequence[Mapper]:
    """The way to open an IPv6 port in the router's firewall, if there is a router and an address."""
    gateway = default_gateway(ipv6=True)
    ours = next((host for host in outbound_hosts() if ":" in host), None)
    if gateway is None or ours is None:
        return ()
    return (PcpMapper(SocketAddress(gateway, GATEWAY_PORT), local_host=ours),)


class PortMapper:
    """A port that is kept mapped; made by `open_port_mapper`."""

    def __init__(self, port: int, mappers: Callable[[], Sequence[Mapper]], on_change: Callable[[], None]) -> None:
        self._port = port
        self._mappers = mappers
        self._on_change = on_change
        self._using: Mapper | None = None
        self._wake = trio.Event()
        self._settled = trio.Event()
        self.mapped: SocketAddress | None = None
        """The public address that leads to us, while one is mapped."""
        self.failures: tuple[str, ...] = ()
        """Why each way of mapping failed when last tried."""

    @property
    def method(self) -> str | None:
        """The name of the protocol by which the port is mapped."""
        return None if self._using is None or self.mapped is None else self._using.name

    async def settled(self) -> None:
        """Wait until the first attempt has ended, either way."""
        await self._settled.wait()

    def refresh(self) -> None:
        """Map anew now: the network has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Map and renew, for ever."""
        pause = FAILURE_PAUSE
        while True:
            self._wake = trio.Event()
            lease = await self._map()
            before, self.mapped = self.mapped, None if lease is None else lease.external
            self._settled.set()
            if self.mapped != before:
                logger.info("our port is reached at %s", self.mapped or "no address of the router any more")
                self._on_change()
            if lease is None:
                wait, pause = pause, min(2 * pause, MAX_FAILURE_PAUSE)
            else:
                wait, pause = max(RENEW_AT_LEAST, min(lease.lifetime / 2, RENEW_AT_MOST)), FAILURE_PAUSE
            with trio.move_on_after(wait):
                await self._wake.wait()
                pause = FAILURE_PAUSE

    async def _map(self) -> Lease | None:
        """Renew by the way in use; else try all."""
        if self._using is not None:
            lease = await self._try(self._using, [])
            if lease is not None:
                return lease
            await self.remove()
        failures: list[str] = []
        for mapper in self._mappers():
            self._using = mapper
            lease = await self._try(mapper, failures)
            if lease is not None:
                self.failures = ()
                return lease
            await self.remove()
        if failures and tuple(failures) != self.failures:
            logger.info("no port mapping: %s", "; ".join(failures))
        self.failures = tuple(failures)
        return None

    async def _try(self, mapper: Mapper, failures: list[str]) -> Lease | None:
        with trio.move_on_after(ATTEMPT_LIMIT):
            try:
                return await mapper.map(self._port)
            except PortMappingFailed as error:
                failures.append(f"{mapper.name}: {error}")
                return None
        failures.append(f"{mapper.name}: no success within {ATTEMPT_LIMIT:.0f} s")
        return None

    async def remove(self) -> None:
        """Remove what is mapped, or may have been when an attempt was cut short; at most 3 s."""
        using, self._using = self._using, None
        if using is not None:
            with trio.move_on_after(REMOVAL_LIMIT):
                await using.unmap()


@asynccontextmanager
async def open_port_mapper(
    port: int, *, on_change: Callable[[], None], mappers: Callable[[], Sequence[Mapper]] = default_mappers
) -> AsyncIterator[PortMapper]:
    """Keep our UDP `port` mapped until the block ends; then the mapping is removed, taking 3 s at most.

    `on_change` (which must not wait) is called when the mapped address changes. `mappers` makes the ways to try,
    in order.
    """
    mapper = PortMapper(port, mappers, on_change)
    try:
        async with open_service_nursery("port mapping") as nursery:
            nursery.start_soon(mapper.run)
            yield mapper
    finally:
        with trio.CancelScope(shield=True):
            await mapper.remove()
