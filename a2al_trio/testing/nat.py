"""Simulated NATs in the words of RFC 4787: mapping, filtering, timeout, hairpinning.

Pure: `NatTable` translates packets that are handed to it at a given time. IPv6 is filtered by the same rules
but never translated.
"""

from __future__ import annotations

import enum
import random

import attrs

from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.link import Packet

__all__ = ["Dependence", "Nat", "NatTable"]

FIRST_FREE_PORT = 1024


class Dependence(enum.Enum):
    """On how much of the remote address a mapping or a filter depends (RFC 4787 §4.1, §5)."""

    ENDPOINT_INDEPENDENT = enum.auto()
    ADDRESS = enum.auto()
    ADDRESS_AND_PORT = enum.auto()

    def part_of(self, remote: SocketAddress) -> object:
        """The part of a remote address that counts."""
        match self:
            case Dependence.ENDPOINT_INDEPENDENT:
                return None
            case Dependence.ADDRESS:
                return remote.host
            case Dependence.ADDRESS_AND_PORT:
                return remote


@attrs.frozen(kw_only=True)
class Nat:
    """How a NAT behaves.

    `timeout` is the seconds after which a mapping not used from the inside is forgotten; `keeps_ports` uses
    the inside port outside where it is free; `hairpin` lets inside hosts reach each other by their outside
    addresses; `passes_udp` False drops everything.
    """

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT
    timeout: float = 120.0
    keeps_ports: bool = True
    hairpin: bool = False
    passes_udp: bool = True

    @classmethod
    def full_cone(cls) -> Nat:
        """One outside port per inside port, open to everybody."""
        return cls(filtering=Dependence.ENDPOINT_INDEPENDENT)

    @classmethod
    def restricted(cls) -> Nat:
        """Open to hosts that were sent to, from any of their ports."""
        return cls(filtering=Dependence.ADDRESS)

    @classmethod
    def port_restricted(cls) -> Nat:
        """Open only to addresses and ports that were sent to: the usual home router."""
        return cls()

    @classmethod
    def symmetric(cls) -> Nat:
        """A new random outside port for every destination, open only to it."""
        return cls(mapping=Dependence.ADDRESS_AND_PORT, keeps_ports=False)

    @classmethod
    def udp_blocked(cls) -> Nat:
        """Lets no UDP through."""
        return cls(passes_udp=False)


@attrs.define(eq=False)
class _Mapping:
    inside: SocketAddress
    outside: SocketAddress
    key: tuple[SocketAddress, object]
    used_at: float
    permitted: dict[object, float] = attrs.field(factory=dict)  # filter key -> when last sent to


class NatTable:
    """The mappings of one NAT with one outside IPv4 address."""

    def __init__(self, nat: Nat, outside_host: str, random: random.Random) -> None:
        self.nat = nat
        self.outside_host = outside_host
        self._random = random
        self._by_key: dict[tuple[SocketAddress, object], _Mapping] = {}
        self._by_outside: dict[SocketAddress, _Mapping] = {}

    def outbound(self, packet: Packet, now: float) -> Packet | None:
        """Translate a packet from the inside, making or prolonging its mapping; None if it is dropped."""
        if not self.nat.passes_udp:
            return None
        # IPv6 is not translated, so all its destinations share one entry.
        by = Dependence.ENDPOINT_INDEPENDENT if packet.source.is_ipv6 else self.nat.mapping
        key = (packet.source, by.part_of(packet.destination))
        mapping = self._by_key.get(key)
        if mapping is not None and self._expired(mapping.used_at, now):
            self._forget(mapping)
            mapping = None
        if mapping is None:
            outside = self._free_address(packet.source, now)
            if outside is None:
                return None
            mapping = _Mapping(packet.source, outside, key, now)
            self._by_key[key] = self._by_outside[outside] = mapping
        mapping.used_at = now
        mapping.permitted[self.nat.filtering.part_of(packet.destination)] = now
        return attrs.evolve(packet, source=mapping.outside)

    def inbound(self, packet: Packet, now: float) -> Packet | None:
        """Translate a packet from the outside; None if nothing lets it in."""
        mapping = self._by_outside.get(packet.destination)
        if mapping is None or not self.nat.passes_udp or self._expired(mapping.used_at, now):
            return None
        permitted_at = mapping.permitted.get(self.nat.filtering.part_of(packet.source))
        if permitted_at is None or self._expired(permitted_at, now):
            return None
        return attrs.evolve(packet, destination=mapping.inside)

    def forget(self) -> None:
        """Lose all mappings, as a router that restarts."""
        self._by_key.clear()
        self._by_outside.clear()

    def _expired(self, at: float, now: float) -> bool:
        return now - at >= self.nat.timeout

    def _forget(self, mapping: _Mapping) -> None:
        del self._by_key[mapping.key]
        self._by_outside.pop(mapping.outside, None)

    def _free_address(self, inside: SocketAddress, now: float) -> SocketAddress | None:
        if inside.is_ipv6:
            return inside
        if self.nat.keeps_ports and self._is_free(SocketAddress(self.outside_host, inside.port), now):
            return SocketAddress(self.outside_host, inside.port)
        for _ in range(64):
            address = SocketAddress(self.outside_host, self._random.randint(FIRST_FREE_PORT, 65535))
            if self._is_free(address, now):
                return address
        return None

    def _is_free(self, outside: SocketAddress, now: float) -> bool:
        mapping = self._by_outside.get(outside)
        if mapping is not None and self._expired(mapping.used_at, now):
            self._forget(mapping)
            return True
        return mapping is None
