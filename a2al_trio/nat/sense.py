"""Votes of peers on our public address, and the NAT type they imply (spec 05 §2–4, §14).

Peers are strangers and node IDs are free, so votes are weighed by the networks they come from: an address is
believed when enough reporters agree on it and most of the networks heard from agree with them.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Hashable, Iterable

import attrs

from a2al_trio.identity import NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import NatType, is_public

__all__ = ["DEFAULT_MIN_AGREEING", "PROBE_LIFETIME", "VOTE_LIFETIME", "NatSense", "News", "reachability_hint"]

VOTE_LIFETIME = 15 * 60.0
"""Seconds a vote counts (spec 05 §2)."""
PROBE_LIFETIME = 30 * 60.0
"""Seconds the result of an active probe counts (spec 05 §4)."""
DEFAULT_MIN_AGREEING = 3
REPORTERS_PER_PORT = 2
"""Reporters of one port that make it count against others (spec 05 §4)."""
MAX_VOTES = 128
MAX_VOTES_PER_NETWORK = 16
"""A network full of node IDs pushes out its own votes, not those of others (spec 05 §14 N6)."""

Reporter = NodeId | SocketAddress


class News(enum.IntEnum):
    """What an observation adds; false if it adds nothing."""

    NONE = 0
    NEW = 1
    """A reporter that has not been heard of, or not for long."""
    CHANGED = 2
    """A reporter sees another address than before: the mapping it saw may be gone for all."""


_Network = Hashable


@attrs.frozen
class _Vote:
    address: SocketAddress
    network: _Network
    at: float
    is_server: bool


@attrs.frozen
class _ProbeResult:
    claimed: SocketAddress
    reachable: bool | None
    symmetric: bool | None
    at: float


class NatSense:
    """Our public address as others see it, and the kind of NAT before us; one instance per socket.

    `min_agreeing` reporters must agree on an address before it is believed. Only public addresses count (spec
    04 §17 D6), each reporter has one vote per family, its newest (spec 05 §14 N4), and IPv4 and IPv6 are judged
    apart (spec 05 §9). Pure: `now` is on the caller's monotonic clock, in seconds.
    """

    def __init__(self, min_agreeing: int = DEFAULT_MIN_AGREEING) -> None:
        self._votes: dict[tuple[Reporter, bool], _Vote] = {}
        self._probes: dict[bool, _ProbeResult] = {}  # by whether it is of IPv6
        self.min_agreeing = min_agreeing
        self.known_peers: int | None = None
        """How many peers there are to ask; fewer than `min_agreeing` lower the threshold, but not to one."""
        self.bind_public = False
        """Whether our socket is bound to a public IPv4 address (spec 05 §5.1)."""
        self.local_hosts: frozenset[str] = frozenset()
        """The addresses of our interfaces; being seen with one of them means there is no NAT (spec 05 §14 N9)."""

    @property
    def min_agreeing(self) -> int:
        """The threshold as configured; setting it to 0 or less restores the default of 3 (spec 05 §3)."""
        return self._min_agreeing

    @min_agreeing.setter
    def min_agreeing(self, value: int) -> None:
        self._min_agreeing = value if value > 0 else DEFAULT_MIN_AGREEING

    @property
    def threshold(self) -> int:
        """The threshold in force: never above the peers there are, never one unless configured (§14 N6)."""
        if self.known_peers is None or self._min_agreeing <= 2:
            return self._min_agreeing
        return min(self._min_agreeing, max(2, self.known_peers))

    # -- input -------------------------------------------------------------------------------------------------

    def observe(
        self, reporter: NodeId, address: SocketAddress, now: float, *, source: SocketAddress | None = None
    ) -> News:
        """Record that `reporter`, talking from `source`, sees our packets come from `address`.

        Addresses that are not public are ignored.
        """
        network = None if source is None else _network(source.host)
        return self._record(reporter, _Vote(address, network, now, is_server=False))

    def observe_server(self, server: SocketAddress, address: SocketAddress, now: float) -> News:
        """Record what a server that the user has named (STUN) sees; it is believed without others."""
        return self._record(server, _Vote(address, server, now, is_server=True))

    def _record(self, reporter: Reporter, vote: _Vote) -> News:
        key = (reporter, vote.address.is_ipv6)
        before = self._votes.get(key)
        if before is None or before.address != vote.address:
            if not vote.address.port or not is_public(vote.address.host):
                return News.NONE
            if before is None:
                self._make_room(vote.network)
        self._votes.pop(key, None)  # so that the newest vote is the last
        self._votes[key] = vote
        if before is None or vote.at - before.at >= VOTE_LIFETIME:
            return News.NEW
        return News.NONE if before.address == vote.address else News.CHANGED

    def _make_room(self, network: _Network) -> None:
        """Drop the oldest vote of the same network, or of all, if there are too many."""
        same = [key for key, vote in self._votes.items() if vote.network == network]
        if len(same) >= MAX_VOTES_PER_NETWORK:
            del self._votes[same[0]]
        elif len(self._votes) >= MAX_VOTES:
            del self._votes[next(iter(self._votes))]

    def set_probe_result(
        self, claimed: SocketAddress, reachable: bool | None, now: float, *, symmetric: bool | None = None
    ) -> None:
        """Record whether strangers could reach us at `claimed`; it counts while that is our address (§14 N13).

        `symmetric` says whether one socket was seen with a different port by every helper; it counts where the
        votes say nothing. None is for what was not found out.
        """
        self._probes[claimed.is_ipv6] = _ProbeResult(claimed, reachable, symmetric, now)

    def clear_probe_result(self) -> None:
        """Forget the probes."""
        self._probes.clear()

    def clear_votes(self) -> None:
        """Drop all votes: the network has changed."""
        self._votes.clear()

    # -- conclusions -------------------------------------------------------------------------------------------

    def trusted(self, now: float, *, ipv6: bool = False) -> SocketAddress | None:
        """Our public address of that family, if enough reporters agree on one.

        Of several the one that most networks report, then most reporters, then the newest (spec 05 §14 N7).
        """
        votes = self._live(now, ipv6=ipv6)
        from_servers = {vote.address for vote in votes if vote.is_server}
        if len(from_servers) == 1:
            return from_servers.pop()
        tally: dict[SocketAddress, list[_Vote]] = {}
        for vote in votes:
            tally.setdefault(vote.address, []).append(vote)
        if not tally:
            return None
        best = max(tally.values(), key=lambda agreeing: (_networks(agreeing), len(agreeing), agreeing[-1].at))
        majority = _networks(votes) // 2 + 1
        enough = len(best) >= self.threshold and _networks(best) >= min(self.threshold, majority)
        return best[0].address if enough else None

    def is_directly_public(self, now: float) -> bool:
        """Whether there is no NAT before us: our own address is public, or the one we are seen with."""
        if self.bind_public:
            return True
        trusted = self.trusted(now)
        return trusted is not None and trusted.host in self.local_hosts

    def nat_type(self, now: float) -> NatType:
        """The kind of NAT that our IPv4 traffic goes through (spec 05 §4); RESTRICTED is the careful guess."""
        probe = self._last_probe(now, ipv6=False)
        reachable = None if probe is None else probe.reachable
        if self.is_directly_public(now):
            return NatType.RESTRICTED if reachable is False else NatType.FULL_CONE
        votes = self._live(now, ipv6=False)
        if self._is_symmetric(votes):
            return NatType.SYMMETRIC
        if probe is not None and probe.symmetric and self.trusted(now) is None:
            return NatType.SYMMETRIC
        total = sum(self.threshold if vote.is_server else 1 for vote in votes)
        if total < self.threshold:
            return NatType.UNKNOWN
        return NatType.FULL_CONE if reachable else NatType.RESTRICTED

    def _is_symmetric(self, votes: list[_Vote]) -> bool:
        """Whether several ports are seen: by two reporters each, or a different one by every reporter.

        The address does not count, the port does: with one port, different addresses are several uplinks.
        """
        ports: dict[int, list[_Vote]] = {}
        for vote in votes:
            ports.setdefault(vote.address.port, []).append(vote)
        if len(ports) < 2:
            return False
        needed = 1 if self.threshold <= 1 else REPORTERS_PER_PORT
        networks = min(needed, _networks(votes))
        supported = sum(
            any(vote.is_server for vote in seen) or (len(seen) >= needed and _networks(seen) >= networks)
            for seen in ports.values()
        )
        nobody_agrees = len(ports) == len(votes) >= self.threshold
        return supported >= 2 or nobody_agrees

    def reachable(self, now: float, *, ipv6: bool = False) -> bool | None:
        """What the last probe of our present address has found; None if there is none, or it is too old.

        An IPv6 address needs no mapping, but a firewall may keep strangers out (spec 05 §9).
        """
        probe = self._last_probe(now, ipv6=ipv6)
        return None if probe is None else probe.reachable

    def _last_probe(self, now: float, *, ipv6: bool) -> _ProbeResult | None:
        probe = self._probes.get(ipv6)
        if probe is None or now - probe.at >= PROBE_LIFETIME:
            return None
        return probe if self.trusted(now, ipv6=ipv6) in (None, probe.claimed) else None

    def reporters(self, now: float) -> int:
        """How many votes on our IPv4 address count."""
        return len(self._live(now, ipv6=False))

    def _live(self, now: float, *, ipv6: bool) -> list[_Vote]:
        for key in [key for key, vote in self._votes.items() if now - vote.at >= VOTE_LIFETIME]:
            del self._votes[key]
        return [vote for vote in self._votes.values() if vote.address.is_ipv6 == ipv6]


def _network(host: str) -> _Network:
    """What counts as one network: an IPv4 /16, an IPv6 /32 (spec 05 §14 N6)."""
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    return packed[: 2 if len(packed) == 4 else 4]


def _networks(votes: Iterable[_Vote]) -> int:
    return len({vote.network for vote in votes})


def reachability_hint(nat_type: NatType, *, ipv6_reachable: bool | None = None) -> str:
    """What a user should know about being reached, empty if there is nothing to say (spec 05 §10)."""
    hints = []
    if nat_type is NatType.SYMMETRIC:
        hints.append(
            "The NAT before this host gives every destination another port (symmetric). Outgoing connections work, and "
            "so do meetings with peers behind other kinds of NAT; connections from arbitrary peers need a relay (TURN)."
        )
    if ipv6_reachable is False:
        hints.append("A firewall lets no IPv6 packets in that this host has not asked for.")
    return " ".join(hints)
