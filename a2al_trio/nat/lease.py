"""What the ways of mapping a port have in common."""

from __future__ import annotations

from typing import Protocol

import attrs

from a2al_trio.errors import A2alError
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import is_public

__all__ = ["LEASE_SECONDS", "Lease", "Mapper", "PortMappingFailed", "check_external"]

LEASE_SECONDS = 3600
"""Lifetime asked for (spec 05 §7)."""


class PortMappingFailed(A2alError):
    """No router could be made to forward a port to us; the message says why."""


@attrs.frozen
class Lease:
    """A mapped port: the public address that leads to us, and for how many seconds."""

    external: SocketAddress
    lifetime: float


class Mapper(Protocol):
    """A protocol by which a router is asked to forward a UDP port to this machine. One task at a time."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    async def map(self, port: int) -> Lease:
        """Map our UDP port, or renew the mapping. Raises PortMappingFailed; bounded in time."""

    async def unmap(self) -> None:
        """Remove the mapping, if there is one or may be one; does not raise."""


def check_external(host: str) -> None:
    """Raise PortMappingFailed if a router's external address leads nowhere (spec 05 §14 N10)."""
    if not is_public(host):
        raise PortMappingFailed(f"the router's own address {host} is not public: there is another NAT behind it")
