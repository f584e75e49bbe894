"""Candidates: their priorities (RFC 8445 §5.1.2) and the lines they travel in (RFC 8839 §5.1, spec 06 §10)."""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import Final

import attrs

from a2al_trio.ice.errors import CandidateDecodeError
from a2al_trio.net.address import SocketAddress

__all__ = [
    "PEER_REFLEXIVE_PRIORITY",
    "Candidate",
    "CandidateType",
    "candidate_priority",
    "foundation_of",
    "parse_candidate",
]

PEER_REFLEXIVE_PRIORITY: Final = 1_862_270_975
"""What a peer-reflexive candidate counts when its check carried no priority (spec 06 §12)."""


class CandidateType(StrEnum):
    """How an address was learned (RFC 8445 §5.1.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


_TYPE_PREFERENCE: Final = {
    CandidateType.HOST: 126,
    CandidateType.PEER_REFLEXIVE: 110,
    CandidateType.SERVER_REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


def candidate_priority(kind: CandidateType, local_preference: int = 65535) -> int:
    """Return the priority of a candidate of component 1; `local_preference` orders those of one type."""
    return _TYPE_PREFERENCE[kind] << 24 | local_preference << 8 | 255


def foundation_of(kind: CandidateType, host: str, server: str = "") -> str:
    """Return the foundation: equal for candidates of one type, base address and server (RFC 8445 §5.1.1.3)."""
    family = "udp6" if ":" in host else "udp4"
    return str(zlib.crc32(f"{kind}{host}{family}{server}".encode()))


@attrs.frozen
class Candidate:
    """One address a peer might be reached at. `related` is the base of a reflexive or relayed one, if told."""

    type: CandidateType
    address: SocketAddress
    priority: int
    foundation: str
    related: SocketAddress | None = None
    transport: str = "udp"
    component: int = 1

    @property
    def prflx_priority(self) -> int:
        """What checks sent from here say in PRIORITY (RFC 8445 §7.1.1)."""
        return _TYPE_PREFERENCE[CandidateType.PEER_REFLEXIVE] << 24 | (self.priority & 0xFFFFFF)

    def __str__(self) -> str:
        """Return the candidate line, without the leading `candidate:` of SDP."""
        line = (
            f"{self.foundation} {self.component} {self.transport} {self.priority} "
            f"{self.address.host.partition('%')[0]} {self.address.port} typ {self.type}"
        )
        if self.related is not None:
            line += f" raddr {self.related.host.partition('%')[0]} rport {self.related.port}"
        return line


def parse_candidate(line: str) -> Candidate:
    """Read a candidate line, leniently as spec 06 §10 wants; raises `CandidateDecodeError`.

    Host names, among them those of mDNS (`*.local`), do not parse: we never ask a resolver for a stranger.
    TCP candidates parse, and are not used.
    """
    fields = line.split()
    if len(fields) < 8 or len(line) > 1024:
        raise CandidateDecodeError("a candidate line has at least eight fields")
    foundation, component, transport, priority, host, port, _, kind = fields[:8]
    if transport.lower()[:3] not in ("udp", "tcp"):
        raise CandidateDecodeError(f"unknown transport {transport!r}")
    try:
        address = SocketAddress.of(host.partition("%")[0], _number(port, 0xFFFF))
        candidate_type = CandidateType(kind)
    except ValueError as error:
        raise CandidateDecodeError(str(error)) from error
    value = _number(priority, 0xFFFFFFFF) or candidate_priority(candidate_type)
    return Candidate(
        candidate_type,
        address,
        value,
        foundation.removeprefix("a=").removeprefix("candidate:"),
        _related(fields[8:]),
        transport.lower()[:3],
        _number(component, 0xFFFF),
    )


def _number(text: str, maximum: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > maximum:
        raise CandidateDecodeError(f"{text!r} is not a number up to {maximum}")
    return int(text)


def _related(fields: list[str]) -> SocketAddress | None:
    if len(fields) < 4 or fields[0] != "raddr" or fields[2] != "rport":
        return None
    try:
        return SocketAddress.of(fields[1].partition("%")[0], _number(fields[3], 0xFFFF))
    except (ValueError, CandidateDecodeError):
        return None  # it is only a hint
