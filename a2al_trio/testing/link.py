"""Simulated links: what one cable does to the packets on it.

Pure: a link is told what is sent and when and says what arrives and when, drawing from the random source it is
given, so the same seed gives the same losses.
"""

from __future__ import annotations

import random

import attrs

from a2al_trio.net.address import SocketAddress

__all__ = ["Link", "LinkDirection", "Packet"]

ECT_CAPABLE = (0b01, 0b10)
CONGESTION_EXPERIENCED = 0b11


@attrs.frozen(eq=False)
class Packet:
    """One UDP datagram on its way."""

    source: SocketAddress
    destination: SocketAddress
    data: bytes
    ecn: int = 0

    @property
    def wire_size(self) -> int:
        """Bytes with the UDP and IP headers."""
        return len(self.data) + (48 if self.destination.is_ipv6 else 28)


def _probability(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is a probability, 0 to 1, not {value}")


def _not_negative(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} cannot be negative")


@attrs.frozen(kw_only=True)
class Link:
    """How a link behaves, the same in both directions.

    `latency` and `jitter` are seconds one way; jitter is added, drawn evenly, and keeps the order of packets.
    `loss` is the share of packets lost and `burst` the mean number lost in a row (1: independently). `reorder`
    is the probability that a packet is held back by up to another `latency` (at least 1 ms) and so overtaken,
    `duplicate` that it arrives twice, `congestion_marks` that an ECN-capable one is marked CE. `clears_ecn`
    links erase the ECN bits. `mtu` is the largest IP packet in bytes; larger ones vanish. `rate` is in bytes
    per second (None: unlimited), and what would make more than `queue` bytes wait for it is dropped.
    """

    latency: float = attrs.field(default=0.01, validator=_not_negative)
    jitter: float = attrs.field(default=0.0, validator=_not_negative)
    loss: float = attrs.field(default=0.0, validator=_probability)
    burst: float = attrs.field(default=1.0, validator=_not_negative)
    reorder: float = attrs.field(default=0.0, validator=_probability)
    duplicate: float = attrs.field(default=0.0, validator=_probability)
    congestion_marks: float = attrs.field(default=0.0, validator=_probability)
    clears_ecn: bool = False
    mtu: int = 1500
    rate: float | None = None
    queue: int = 256 * 1024

    @classmethod
    def lan(cls) -> Link:
        """A local network: 0.2 ms, 125 MB/s."""
        return cls(latency=0.0002, rate=125e6, queue=1024 * 1024)

    @classmethod
    def home(cls) -> Link:
        """A good home connection: 8 ms with a little jitter, 6 MB/s."""
        return cls(latency=0.008, jitter=0.002, rate=6e6)

    @classmethod
    def mobile(cls) -> Link:
        """A phone on the move: 40 ms, jitter, 2 % lost in bursts, some reordering, 1.5 MB/s, MTU 1400."""
        return cls(latency=0.04, jitter=0.03, loss=0.02, burst=3, reorder=0.01, rate=1.5e6, mtu=1400)

    @classmethod
    def satellite(cls) -> Link:
        """A geostationary satellite: 280 ms, 1 % lost, 3 MB/s."""
        return cls(latency=0.28, loss=0.01, rate=3e6, queue=2 * 1024 * 1024)

    @classmethod
    def broken(cls) -> Link:
        """Nothing passes."""
        return cls(loss=1.0)


@attrs.define(eq=False)
class LinkDirection:
    """One direction of a link with its state; `link` may be replaced at any time."""

    link: Link
    random: random.Random
    dropped: int = 0
    _free_at: float = 0.0
    _last_arrival: float = 0.0
    _in_burst: bool = False

    def backlog(self, now: float) -> int:
        """Bytes still waiting to be put on the link."""
        rate = self.link.rate
        return 0 if rate is None else max(0, round((self._free_at - now) * rate))

    def drained_at(self, backlog: int) -> float:
        """When at most that many bytes will be waiting."""
        rate = self.link.rate
        return self._free_at if rate is None else self._free_at - backlog / rate

    def carry(self, packet: Packet, now: float) -> list[tuple[float, Packet]]:
        """Put a packet on the link; returns when and as what it arrives, possibly never or twice."""
        link, size = self.link, packet.wire_size
        if size > link.mtu or self.backlog(now) + size > link.queue or self._is_lost():
            self.dropped += 1
            return []
        sent_at = now
        if link.rate is not None:
            sent_at = self._free_at = max(now, self._free_at) + size / link.rate
        packet = self._with_ecn(packet)
        arrivals = [(self._arrival(sent_at), packet)]
        if link.duplicate and self.random.random() < link.duplicate:
            arrivals.append((self._arrival(sent_at), packet))
        return arrivals

    def _is_lost(self) -> bool:
        # Gilbert's model: a burst ends with probability 1/burst after each packet, and begins so often that
        # the overall share of lost packets is `loss`.
        loss, burst = self.link.loss, self.link.burst
        if not 0 < loss < 1:
            return loss >= 1
        if burst <= 1:
            return self.random.random() < loss
        if self._in_burst:
            self._in_burst = self.random.random() >= 1 / burst
        else:
            self._in_burst = self.random.random() < loss / (burst * (1 - loss))
        return self._in_burst

    def _arrival(self, sent_at: float) -> float:
        link, draw = self.link, self.random.random
        arrival = sent_at + link.latency + (link.jitter * draw() if link.jitter else 0.0)
        if link.reorder and draw() < link.reorder:
            return arrival + max(link.latency, 0.001) * draw()
        self._last_arrival = max(arrival, self._last_arrival)
        return self._last_arrival

    def _with_ecn(self, packet: Packet) -> Packet:
        link = self.link
        if link.clears_ecn and packet.ecn:
            return attrs.evolve(packet, ecn=0)
        marks = link.congestion_marks
        if marks and packet.ecn in ECT_CAPABLE and self.random.random() < marks:
            return attrs.evolve(packet, ecn=CONGESTION_EXPERIENCED)
        return packet
