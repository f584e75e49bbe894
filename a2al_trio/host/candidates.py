"""At which addresses a host can be reached, best first (spec 04 §8.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator

import attrs

from a2al_trio.nat.sense import NatSense
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import NatType, is_public

__all__ = ["Candidate", "Candidates", "is_publishable"]

MAX_OWN = 3
"""Addresses of our interfaces told per family: there may be dozens, and dialers try one every 250 ms."""
_TUNNELS = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))


@attrs.frozen
class Candidate:
    """An address to advertise and how we know of it; `host` is an IP address, or a name that the user has given."""

    host: str
    port: int
    source: str

    @property
    def url(self) -> str:
        """How records write it."""
        return f"quic://[{self.host}]:{self.port}" if self.is_ipv6 else f"quic://{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address; a name counts as IPv4."""
        return ":" in self.host


@attrs.frozen(kw_only=True)
class Candidates:
    """Collects what is known, without waiting or asking anybody.

    `sense` is about the socket of QUIC, `dht_sense` about that of the DHT; in the shared layout they are one
    (spec 04 §2.1). `external_host` is what a web service saw, `mapped` the addresses routers let through to us.
    """

    quic_address: SocketAddress
    sense: NatSense
    dht_sense: NatSense
    external_host: Callable[[], str | None]
    mapped: Callable[[], Iterable[SocketAddress]]
    local_hosts: Callable[[], Iterable[str]]
    fallback_host: str = ""

    def collect(self, now: float) -> tuple[Candidate, ...]:
        """The candidates in the order of spec 04 §8.1, each address once, IPv6 after IPv4 (spec 05 §9)."""
        unique: dict[tuple[str, int], Candidate] = {}
        for candidate in self._all(now):
            unique.setdefault((candidate.host.lower(), candidate.port), candidate)
        families: tuple[list[Candidate], list[Candidate]] = ([], [])
        for candidate in unique.values():
            families[candidate.is_ipv6].append(candidate)
        return (*families[0], *families[1])

    def _all(self, now: float) -> Iterator[Candidate]:
        port = self.quic_address.port
        for host, seen_port in self._observed(now):
            yield Candidate(host, seen_port, "observed")
        external = self.external_host()
        if external is not None and self._keeps_port(now) and is_publishable(external):
            yield Candidate(external, port, "external")
        for host in self._own_hosts():
            yield Candidate(host, port, "interface")
        fallback = self.fallback_host.strip()
        if fallback:
            yield Candidate(fallback, port, "fallback")
        for mapped in self.mapped():
            if is_publishable(mapped.host):
                yield Candidate(mapped.host, mapped.port, "mapped")

    def _observed(self, now: float) -> Iterator[tuple[str, int]]:
        for ipv6 in (False, True):
            ours = self.sense.trusted(now, ipv6=ipv6)
            if ours is not None:
                yield ours
            elif (of_dht := self.dht_sense.trusted(now, ipv6=ipv6)) is not None:
                # Of another socket: its host is ours as well, its port is not (spec 04 §8.1).
                yield of_dht.host, self.quic_address.port

    def _keeps_port(self, now: float) -> bool:
        """Whether our port may be guessed: not behind a NAT that gives every destination another one."""
        return self.sense.nat_type(now) is not NatType.SYMMETRIC

    def _own_hosts(self) -> Iterable[str]:
        """The public address we are bound to, or with a wildcard those of our interfaces."""
        bound = self.quic_address.host
        if bound not in ("0.0.0.0", "::"):
            return (bound,) if is_publishable(bound) else ()
        ours = [host for host in self.local_hosts() if is_publishable(host)]
        ipv4, ipv6 = ([host for host in ours if (":" in host) is family][:MAX_OWN] for family in (False, True))
        return (*ipv4, *ipv6) if bound == "::" else ipv4


def is_publishable(host: str) -> bool:
    """Whether an IP address belongs into records: public, and not of a Teredo or 6to4 tunnel (spec 08 §6)."""
    if not is_public(host):
        return False
    address = ipaddress.ip_address(host.partition("%")[0])
    return not any(address in tunnel for tunnel in _TUNNELS if tunnel.version == address.version)
