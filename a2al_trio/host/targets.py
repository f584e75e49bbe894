"""Which addresses of a record to dial, and in which order (spec 04 §10.1–10.2, spec 08 §6)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import EndpointPayload

__all__ = ["Endpoint", "PathPlan", "endpoints_of", "interleave_families", "plan_path"]

MAX_ENDPOINTS = 16
"""Endpoints looked at in one record: a hostile record must not make us dial the world."""
RESTRICTED_NAT_TYPES = frozenset({2, 3, 4})


@attrs.frozen
class Endpoint:
    """One dialable endpoint URL: a host (an IP address or a name still to be resolved) and a port."""

    host: str
    port: int

    @property
    def address(self) -> SocketAddress | None:
        """The endpoint as a socket address, or None while the host is a name."""
        try:
            return SocketAddress.of(self.host, self.port)
        except ValueError:
            return None


def endpoints_of(payload: EndpointPayload) -> tuple[Endpoint, ...]:
    """The `quic://` and `udp://` endpoints in order, without duplicates; what does not parse is skipped."""
    found: dict[Endpoint, None] = {}
    for url in (payload.endpoints or ())[: 4 * MAX_ENDPOINTS]:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            continue
        if parts.scheme.lower() not in ("quic", "udp") or not host or not port:
            continue
        found[_normal(host, port)] = None
        if len(found) == MAX_ENDPOINTS:
            break
    return tuple(found)


def _normal(host: str, port: int) -> Endpoint:
    try:
        return Endpoint(SocketAddress.of(host, port).host, port)
    except ValueError:
        return Endpoint(host.lower(), port)


def interleave_families(addresses: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Order as given, then alternate between families from the first one's on (RFC 8305 §4)."""
    unique = list(dict.fromkeys(addresses))
    if not unique:
        return []
    first = [address for address in unique if address.is_ipv6 == unique[0].is_ipv6]
    second = [address for address in unique if address.is_ipv6 != unique[0].is_ipv6]
    mixed: list[SocketAddress] = []
    for index in range(max(len(first), len(second))):
        mixed.extend(first[index : index + 1])
        mixed.extend(second[index : index + 1])
    return mixed


@attrs.frozen
class PathPlan:
    """How to reach the agent of a record."""

    direct: tuple[Endpoint, ...]
    """Endpoints to dial at once."""
    deferred: tuple[Endpoint, ...]
    """Endpoints behind a NAT that takes no cold packets: worth a dial only when meeting at a hub is no way."""
    signals: tuple[str, ...]
    """Hubs to meet at."""
    place: tuple[tuple[str, ...], tuple[str, ...]] | None
    """What the records of all agents of one host have in common (spec 08 §5.4); None if that says too little."""


def plan_path(payload: EndpointPayload) -> PathPlan:
    """Decide by the record what to try (spec 04 §10.2, spec 08 §6.3).

    `signal` (key 3) decides whether there is a hub; `signals` alone does not count. Behind a NAT that takes no
    cold packets (types 2–4) and with a hub, only public IPv6 endpoints are dialled cold.
    """
    signals = tuple(payload.signals or (payload.signal,)) if payload.signal else ()
    endpoints = endpoints_of(payload)
    # Hosts that have no endpoint may well share their hubs.
    place = (tuple(sorted(payload.endpoints or ())), tuple(sorted(signals))) if endpoints else None
    if not signals or payload.nat_type not in RESTRICTED_NAT_TYPES:
        return PathPlan(endpoints, (), signals, place)
    direct = tuple(endpoint for endpoint in endpoints if _is_global_ipv6(endpoint.host))
    return PathPlan(direct, tuple(endpoint for endpoint in endpoints if endpoint not in direct), signals, place)


def _is_global_ipv6(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 6 and not (address.is_private or address.is_link_local or address.is_loopback)
