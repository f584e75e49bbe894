"""What kind of network this is, and what will work in it, in words (spec 05 §1, §10; spec 04 §10).

Pure: `conclude` turns findings into sentences for a person who wants to know why peers cannot reach them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import attrs

from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import NatType, is_globally_routable, is_public

__all__ = ["Findings", "Level", "StunFinding", "Verdict", "conclude"]


class Level(enum.Enum):
    """How good the news is."""

    GOOD = "good"
    FAIR = "fair"
    BAD = "bad"
    UNKNOWN = "unknown"


@attrs.frozen
class Verdict:
    """One thing to know: what it is about, whether it is good, and what it is."""

    subject: str
    level: Level
    text: str


@attrs.frozen
class StunFinding:
    """What one address of a STUN server said: where it saw us, or why it did not say."""

    server: str
    mapped: SocketAddress | None
    failure: str = ""


@attrs.frozen(kw_only=True)
class Findings:
    """All that could be found out; what nobody was asked for is None or empty."""

    local_address: SocketAddress
    local_hosts: tuple[str, ...]
    """The addresses of our interfaces."""
    outbound: tuple[str, ...]
    """The addresses we send to the Internet from, one per family that has a route."""
    stun: tuple[StunFinding, ...] = ()
    open_to_strangers: bool | None = None
    """Whether a packet of somebody we have not sent to got through to us."""
    web_host: str | None = None
    """The address a web service saw."""
    mapped: SocketAddress | None = None
    """The address the router forwards to us, and by which protocol."""
    mapped_by: str | None = None
    mapping_failures: tuple[str, ...] = ()
    nodes_asked: int = 0
    """Bootstrap nodes that were named."""
    peers: int = 0
    """Nodes of the network that answer us."""
    observed: SocketAddress | None = None
    """The address most of them see us with."""
    nat_type: NatType = NatType.UNKNOWN

    @property
    def external(self) -> SocketAddress | None:
        """The address our socket is seen with over IPv4."""
        seen = [finding.mapped for finding in self.stun if finding.mapped and not finding.mapped.is_ipv6]
        return seen[0] if seen else self.observed

    @property
    def udp_works(self) -> bool | None:
        """Whether anything came back over UDP; None if nobody was asked."""
        if self.peers or any(finding.mapped for finding in self.stun):
            return True
        return False if self.stun or self.nodes_asked else None


def conclude(findings: Findings) -> tuple[Verdict, ...]:
    """What the findings mean, the network first, then what will work in it."""
    return (*_network(findings), *_prospects(findings))


def _network(findings: Findings) -> Iterator[Verdict]:
    yield _ipv4(findings)
    yield _ipv6(findings)
    yield _udp(findings)
    if findings.external is not None and not _is_direct(findings):
        yield _mapping(findings)
    if findings.udp_works:
        yield _filtering(findings)
    if findings.mapped is not None:
        yield Verdict("Port mapping", Level.GOOD, f"the router forwards {findings.mapped} by {findings.mapped_by}")
    elif findings.mapping_failures:
        yield Verdict("Port mapping", Level.FAIR, "none: " + "; ".join(findings.mapping_failures))


def _ipv4(findings: Findings) -> Verdict:
    ours = [host for host in findings.outbound if ":" not in host]
    external = findings.external.host if findings.external is not None else findings.web_host
    if not ours:
        return Verdict("IPv4", Level.FAIR, "there is no route to the Internet")
    if external in findings.local_hosts:
        return Verdict("IPv4", Level.GOOD, f"{external} is public and ours: there is no NAT")
    if external is not None:
        return Verdict("IPv4", Level.FAIR, f"{ours[0]} is behind a NAT and seen as {external}")
    if is_globally_routable(ours[0]):
        return Verdict("IPv4", Level.GOOD, f"{ours[0]} is a public address; nobody was asked whether others see it")
    return Verdict("IPv4", Level.UNKNOWN, f"{ours[0]} is behind a NAT; nobody was asked what it is seen as")


def _is_direct(findings: Findings) -> bool:
    external = findings.external
    if external is not None:
        return external.host in findings.local_hosts
    return any(":" not in host and is_globally_routable(host) for host in findings.outbound)


def _ipv6(findings: Findings) -> Verdict:
    ours = [host for host in findings.outbound if ":" in host]
    if not ours:
        return Verdict("IPv6", Level.FAIR, "there is no route to the Internet")
    if not is_public(ours[0]):
        return Verdict("IPv6", Level.FAIR, f"{ours[0]} is a local address")
    seen = [finding.mapped for finding in findings.stun if finding.mapped and finding.mapped.is_ipv6]
    if seen:
        return Verdict("IPv6", Level.GOOD, f"works; we are seen as {seen[0].host}")
    return Verdict("IPv6", Level.GOOD, f"{ours[0]} is public; the router's firewall may still keep strangers out")


def _udp(findings: Findings) -> Verdict:
    failed = [f"{finding.server}: {finding.failure}" for finding in findings.stun if finding.mapped is None]
    if findings.udp_works is None:
        return Verdict("UDP", Level.UNKNOWN, "nobody was asked; name a STUN server or a bootstrap node")
    if not findings.udp_works:
        text = "nothing comes back: UDP is blocked, or none of those that were named is up"
        return Verdict("UDP", Level.BAD, "; ".join([text, *failed]))
    return Verdict("UDP", Level.FAIR if failed else Level.GOOD, "; ".join(["works", *failed]))


def _mapping(findings: Findings) -> Verdict:
    ports = {finding.mapped.port for finding in findings.stun if finding.mapped and not finding.mapped.is_ipv6}
    asked = len({finding.server for finding in findings.stun if finding.mapped and not finding.mapped.is_ipv6})
    if findings.nat_type is NatType.SYMMETRIC or len(ports) > 1:
        return Verdict("NAT", Level.BAD, "gives every destination another port (symmetric)")
    if asked > 1 or findings.nat_type is not NatType.UNKNOWN:
        return Verdict("NAT", Level.GOOD, "keeps one port for all destinations, so peers can meet through it")
    return Verdict("NAT", Level.UNKNOWN, "whether it keeps one port takes two STUN servers, or two nodes, to tell")


def _filtering(findings: Findings) -> Verdict:
    if _strangers_get_in(findings):
        return Verdict("Strangers", Level.GOOD, "get through to us")
    if findings.open_to_strangers is False:
        return Verdict("Strangers", Level.FAIR, "do not get through until we have sent to them")
    return Verdict("Strangers", Level.UNKNOWN, "nobody could test whether they get through to us")


def _strangers_get_in(findings: Findings) -> bool:
    return findings.mapped is not None or findings.open_to_strangers is True


def _prospects(findings: Findings) -> Iterator[Verdict]:
    if findings.udp_works is False:
        yield Verdict("Dialling", Level.BAD, "works only over a relay that takes TCP or TLS (TURN)")
        yield Verdict("Being dialled", Level.BAD, "works only over a relay that takes TCP or TLS (TURN)")
        return
    if findings.udp_works:
        yield Verdict("Dialling", Level.GOOD, "agents with a public address can be dialled")
    else:
        yield Verdict("Dialling", Level.UNKNOWN, "works if UDP does")
    if _strangers_get_in(findings):
        yield Verdict("Being dialled", Level.GOOD, "others can dial us directly")
        return
    symmetric = any(verdict.subject == "NAT" and verdict.level is Level.BAD for verdict in _network(findings))
    if symmetric:
        text = (
            "through a hub by peers that are public or behind a full cone or restricted NAT; others need a relay (TURN)"
        )
        yield Verdict("Being dialled", Level.FAIR, text)
    elif _is_direct(findings) and findings.open_to_strangers is None:
        yield Verdict("Being dialled", Level.FAIR, "should work, unless a firewall is in the way")
    elif findings.external is None:
        yield Verdict("Being dialled", Level.UNKNOWN, "through a hub at least, if the NAT is an ordinary one")
    else:
        text = (
            "through a hub by all but peers behind a symmetric NAT, who need a relay (TURN); "
            "a port mapping would let others dial us directly"
        )
        yield Verdict("Being dialled", Level.FAIR, text)
