"""Two pure agents and a world between them: seeded loss, delay and NATs, no Trio and no waiting."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import attrs

from a2al_trio.ice.agent import AgentConfig, ConsentLost, Failed, IceAgent, IceEvent, Selected
from a2al_trio.ice.candidate import Candidate, CandidateType, candidate_priority, foundation_of, parse_candidate
from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.link import Packet
from a2al_trio.testing.nat import Nat, NatTable
from tests.ice.reference_agent import ReferenceAgent

STUN_SERVER = SocketAddress("203.0.113.1", 3478)


@attrs.define(eq=False)
class Side:
    name: str
    agent: IceAgent | ReferenceAgent
    host: SocketAddress
    nat: NatTable | None
    relay: SocketAddress | None
    reflexive_base: SocketAddress
    relay_permits: set[str] = attrs.Factory(set)
    events: list[tuple[float, IceEvent]] = attrs.Factory(list)
    sent: list[tuple[float, SocketAddress, SocketAddress]] = attrs.Factory(list)

    @property
    def selected(self) -> Selected | None:
        return next((event for _, event in reversed(self.events) if isinstance(event, Selected)), None)

    @property
    def selected_at(self) -> float:
        return next(at for at, event in self.events if isinstance(event, Selected))

    @property
    def failed(self) -> Failed | None:
        return next((event for _, event in self.events if isinstance(event, Failed)), None)

    @property
    def lost(self) -> ConsentLost | None:
        return next((event for _, event in self.events if isinstance(event, ConsentLost)), None)


class IcePair:
    def __init__(
        self,
        *,
        seed: int = 1,
        nats: tuple[Nat | None, Nat | None] = (None, None),
        relays: tuple[bool, bool] = (False, False),
        controlling: tuple[bool, bool] = (True, False),
        reference: tuple[bool, bool] = (False, False),
        latency: float = 0.02,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        config: AgentConfig | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.latency, self.jitter, self.loss, self.duplicate = latency, jitter, loss, duplicate
        self.now = 100.0
        self.start = self.now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.sides: list[Side] = []
        for index, name in enumerate(("caller", "callee")):
            nat = nats[index]
            public = f"198.51.100.{index + 1}"
            host = SocketAddress(f"10.0.{index}.1" if nat else public, 5000 + index)
            entropy = self.random.randbytes
            agent: IceAgent | ReferenceAgent
            if reference[index]:
                agent = ReferenceAgent(controlling=controlling[index], entropy=entropy)
            else:
                agent = IceAgent(controlling=controlling[index], entropy=entropy, config=config)
            self.sides.append(
                Side(
                    name,
                    agent,
                    host,
                    NatTable(nat, public, self.random) if nat else None,
                    SocketAddress("203.0.113.7", 40000 + index) if relays[index] else None,
                    # the reference asks from another socket than that of its host candidate
                    SocketAddress(host.host, 6000 + index) if reference[index] else host,
                )
            )

    @property
    def caller(self) -> Side:
        return self.sides[0]

    @property
    def callee(self) -> Side:
        return self.sides[1]

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def other(self, side: Side) -> Side:
        return self.sides[1 - self.sides.index(side)]

    def signal(self, side: Side, delay: float, action: Callable[[IceAgent | ReferenceAgent], None]) -> None:
        """Do something to the peer of `side` when a frame reaches it."""
        peer = self.other(side)
        self.at(self.now + delay, lambda: self._act(peer, action))

    def _act(self, side: Side, action: Callable[[IceAgent | ReferenceAgent], None]) -> None:
        action(side.agent)
        self.drain(side)

    def connect(self, *, signal_delay: float = 0.04, candidate_delay: float = 0.0) -> None:
        """Exchange credentials and candidates the way two drivers do."""
        for side in self.sides:
            credentials = side.agent.credentials
            self.signal(
                side,
                signal_delay,
                lambda agent, credentials=credentials: agent.set_remote_credentials(credentials, self.now),  # type: ignore[misc]
            )
            found = self.candidates(side)
            for candidate in found:
                side.agent.add_local_candidate(candidate, self.now)
                line = str(candidate)
                self.signal(
                    side,
                    signal_delay + candidate_delay,
                    lambda agent, line=line: agent.add_remote_candidate(parse_candidate(line), self.now),  # type: ignore[misc]
                )
            side.agent.end_local_candidates(self.now)
            self.signal(side, signal_delay + candidate_delay, lambda agent: agent.end_remote_candidates(self.now))
            self.drain(side)

    def candidates(self, side: Side) -> list[Candidate]:
        kind = CandidateType.HOST
        found = [Candidate(kind, side.host, candidate_priority(kind), foundation_of(kind, side.host.host))]
        if side.nat is not None:
            packet = side.nat.outbound(Packet(side.reflexive_base, STUN_SERVER, b"", 0), self.now)
            if packet is not None:
                kind = CandidateType.SERVER_REFLEXIVE
                found.append(
                    Candidate(
                        kind,
                        packet.source,
                        candidate_priority(kind),
                        foundation_of(kind, side.host.host),
                        side.reflexive_base,
                    )
                )
        if side.relay is not None:
            kind = CandidateType.RELAYED
            found.append(
                Candidate(kind, side.relay, candidate_priority(kind), foundation_of(kind, side.relay.host), side.host)
            )
        return found

    def drain(self, side: Side) -> None:
        for transmit in side.agent.transmits():
            side.sent.append((self.now, transmit.base, transmit.destination))
            self.send(side, transmit.base, transmit.destination, transmit.data)
        while (event := side.agent.next_event()) is not None:
            side.events.append((self.now, event))

    def send(self, side: Side, base: SocketAddress, destination: SocketAddress, data: bytes) -> None:
        source, delay = base, self.latency
        if base == side.relay:
            side.relay_permits.add(destination.host)
            delay *= 2
        elif side.nat is not None:
            packet = side.nat.outbound(Packet(base, destination, data, 0), self.now)
            if packet is None:
                return
            source = packet.source
        copies = 2 if self.random.random() < self.duplicate else 1
        for _ in range(copies):
            if self.random.random() >= self.loss:
                arrival = self.now + delay + self.random.random() * self.jitter
                self.at(arrival, lambda: self.arrive(source, destination, data))

    def arrive(self, source: SocketAddress, destination: SocketAddress, data: bytes) -> None:
        for side in self.sides:
            if destination == side.relay and source.host in side.relay_permits:
                self.at(self.now + self.latency, lambda side=side: self.deliver(side, destination, source, data))  # type: ignore[misc]
            elif side.nat is None and destination in (side.host, side.reflexive_base):
                self.deliver(side, destination, source, data)
            elif side.nat is not None and destination.host == side.nat.outside_host:
                packet = side.nat.inbound(Packet(source, destination, data, 0), self.now)
                if packet is not None:
                    self.deliver(side, packet.destination, source, data)

    def deliver(self, side: Side, base: SocketAddress, source: SocketAddress, data: bytes) -> None:
        side.agent.receive(base, data, source, self.now)
        self.drain(side)

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(200_000):
            if until():
                return
            times = [
                (at, index) for index, side in enumerate(self.sides) if (at := side.agent.next_timeout()) is not None
            ]
            timer, index = min(times, default=(float("inf"), 0))
            packet_at = self._heap[0][0] if self._heap else float("inf")
            following = min(timer, packet_at)
            if following > end:
                self.now = end
                return
            self.now = max(self.now, following)
            if packet_at <= timer:
                heapq.heappop(self._heap)[2]()
            else:
                self.sides[index].agent.handle_timeout(self.now)
                self.drain(self.sides[index])
        raise AssertionError("the agents never come to rest")

    def settle(self, limit: float = 40.0) -> None:
        """Run until both sides have selected or failed."""
        self.run(limit, until=lambda: all(side.selected or side.failed for side in self.sides))

    def ends(self, side: Side) -> set[SocketAddress]:
        """The two ends of a side's selected pair, as a host outside would see them."""
        assert side.selected is not None
        return {self.outside(side, side.selected.base, side.selected.remote), side.selected.remote}

    def outside(self, side: Side, base: SocketAddress, remote: SocketAddress) -> SocketAddress:
        if base == side.relay or side.nat is None:
            return base
        packet = side.nat.outbound(Packet(base, remote, b"", 0), self.now)
        assert packet is not None
        return packet.source

    def agree(self) -> bool:
        """Whether both sides send on the same path."""
        one, other = self.ends(self.caller), self.ends(self.callee)
        return one == other
