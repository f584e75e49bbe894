"""Goodput over lossy links, in a simulation: two cores, a link, virtual time, no sockets.

One stream sends as much as it can for twenty virtual seconds over a 20 Mbit/s link. Both contenders use datagrams of
1,200 bytes, which is what aioquic ships with; `shipped` figures are with our path MTU search, on a link that carries
1,500. `theory` is what loss-based congestion control can reach at all: datagram size over round-trip time, times
1.22 over the square root of the loss (Mathis et al. 1997), or the link's rate if that is less.
"""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import math
import random
import ssl
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import attrs

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.quic import ClientTls, Credentials, QuicConfig, ServerTls
from a2al_trio.quic.congestion import CongestionFactory
from a2al_trio.quic.congestion_bbr import Bbr
from a2al_trio.quic.congestion_cubic import Cubic
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.quic.events import ConnectionReady, StreamReadable, StreamWritable
from a2al_trio.testing.link import Link, LinkDirection, Packet
from benchmarks.framework import OURS, Benchmark, Figures, Measurement
from benchmarks.workers.common import ALPN, CHUNK, write_certificate

__all__ = ["BENCHMARK"]

DATAGRAM = 1200
RATE = 2_500_000.0
SECONDS = 20.0
TICK = 1e-5
LINKS = tuple(itertools.product((0.0, 0.01, 0.05), (0.02, 0.1)))
"""Loss and round-trip time of each scenario."""
DRAWS = {0.0: 1, 0.01: 1, 0.05: 6}
"""How often each is drawn in a round: twenty seconds at 5 % loss are some sixty losses, which says little."""
CLIENT, SERVER = SocketAddress("192.0.2.1", 1000), SocketAddress("192.0.2.2", 2000)


class Peer(Protocol):
    """One side of the simulation."""

    received: int

    def receive(self, data: bytes, ecn: int, now: float) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_timeout(self) -> float | None: ...

    def outgoing(self, now: float) -> Iterator[tuple[bytes, int]]: ...


def simulate(client: Peer, server: Peer, link: Link, *, seconds: float, seed: int) -> float:
    """Run both for so long; returns the bytes per second that reached the server."""
    chance = random.Random(seed)
    peers = (client, server)
    addresses = (CLIENT, SERVER)
    directions = tuple(LinkDirection(link, random.Random(chance.random())) for _ in peers)
    order = itertools.count()
    arriving: list[tuple[float, int, int, Packet]] = []
    now = 0.0
    while now < seconds:
        for index, peer in enumerate(peers):
            for data, ecn in peer.outgoing(now):
                packet = Packet(addresses[index], addresses[1 - index], data, ecn)
                for at, carried in directions[index].carry(packet, now):
                    heapq.heappush(arriving, (at, next(order), 1 - index, carried))
        timeouts = [peer.next_timeout() for peer in peers]
        upcoming = [due for due in timeouts if due is not None] + [entry[0] for entry in arriving[:1]]
        # A peer may leave a deadline in the past, as if its next clock reading were later: time must go on.
        now = max(now + TICK, min(upcoming, default=math.inf))
        while arriving and arriving[0][0] <= now:
            _, _, index, packet = heapq.heappop(arriving)
            peers[index].receive(packet.data, packet.ecn, now)
        for peer, due in zip(peers, timeouts, strict=True):
            if due is not None and due <= now:
                peer.handle_timeout(now)
    return server.received / seconds


class OurPeer:
    """One of our endpoint cores; the client sends for ever, the server reads."""

    def __init__(
        self,
        credentials: Credentials,
        congestion: CongestionFactory,
        *,
        is_client: bool,
        seed: int,
        shipped: bool = False,
    ) -> None:
        config = QuicConfig(congestion=congestion)
        if not shipped:
            config = attrs.evolve(config, initial_udp_payload_size=DATAGRAM, path_mtu_discovery=False)
        server = None if is_client else ServerTls(alpn=(ALPN,), credentials=credentials)
        self._source = SERVER if is_client else CLIENT
        self._core = QuicEndpointCore(config, server=server, entropy=random.Random(seed).randbytes, now=0.0)
        self.received = 0
        if is_client:
            tls = ClientTls(alpn=(ALPN,), verify_peer=lambda chain, name: None)
            self._core.connect(SERVER, tls=tls, server_name="localhost", now=0.0)

    def receive(self, data: bytes, ecn: int, now: float) -> None:
        self._core.receive_datagrams(Received(memoryview(data), len(data), self._source, ecn), now)
        self._handle_events()

    def handle_timeout(self, now: float) -> None:
        self._core.handle_timeout(now)
        self._handle_events()

    def next_timeout(self) -> float | None:
        return self._core.next_timeout()

    def outgoing(self, now: float) -> Iterator[tuple[bytes, int]]:
        for transmit in self._core.datagrams_to_send(now):
            run = bytes(transmit.data)
            for start in range(0, len(run), transmit.segment_size):
                yield run[start : start + transmit.segment_size], transmit.ecn
        self._handle_events()

    def _handle_events(self) -> None:
        while (event := self._core.next_event()) is not None:
            if isinstance(event, ConnectionReady) and event.connection.is_client:
                stream_id = event.connection.open_stream()
                assert stream_id is not None
                while event.connection.write(stream_id, CHUNK) == len(CHUNK):
                    pass
            elif isinstance(event, StreamWritable):
                while event.connection.write(event.stream_id, CHUNK) == len(CHUNK):
                    pass
            elif isinstance(event, StreamReadable) and not event.connection.is_client:
                while data := event.connection.read(event.stream_id, 1 << 20):
                    self.received += len(data)


class AioquicPeer:
    """aioquic's connection, doing the same."""

    def __init__(self, certificate: Path, key: Path, *, is_client: bool) -> None:
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.connection import QuicConnection

        self._is_client = is_client
        self.received = 0
        self._configuration = QuicConfiguration(
            is_client=is_client, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE, max_datagram_size=DATAGRAM
        )
        if not is_client:
            self._configuration.load_cert_chain(certificate, key)
        self._make = QuicConnection
        self._connection: QuicConnection | None = None
        if is_client:
            self._connection = QuicConnection(configuration=self._configuration)
            self._connection.connect(tuple(SERVER), now=0.0)

    def receive(self, data: bytes, ecn: int, now: float) -> None:
        if self._connection is None:
            # The destination connection ID of the client's first Initial packet (RFC 9000 §17.2).
            cid = data[6 : 6 + data[5]]
            self._connection = self._make(configuration=self._configuration, original_destination_connection_id=cid)
        source = SERVER if self._is_client else CLIENT
        self._connection.receive_datagram(data, tuple(source), now=now)
        self._handle_events()

    def handle_timeout(self, now: float) -> None:
        if self._connection is not None:
            self._connection.handle_timer(now=now)
            self._handle_events()

    def next_timeout(self) -> float | None:
        return None if self._connection is None else self._connection.get_timer()

    def outgoing(self, now: float) -> Iterator[tuple[bytes, int]]:
        if self._connection is not None:
            for data, _ in self._connection.datagrams_to_send(now=now):
                yield data, 0

    def _handle_events(self) -> None:
        from aioquic.quic import events

        assert self._connection is not None
        while (event := self._connection.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted) and self._is_client:
                self._connection.send_stream_data(0, bytes(int(SECONDS * RATE * 1.1)))
            elif isinstance(event, events.StreamDataReceived) and not self._is_client:
                self.received += len(event.data)


def measure_contender(make: Callable[[int], tuple[Peer, Peer]], seed: int, prefix: str = "") -> Figures:
    """All scenarios of one contender."""
    figures = {}
    for loss, rtt in LINKS:
        link = Link(latency=rtt / 2, loss=loss, rate=RATE, queue=max(int(RATE * rtt), 50_000))
        seeds = range(seed * 1000, seed * 1000 + (1 if prefix == "bbr_" else DRAWS[loss]))
        goodput = statistics.fmean(simulate(*make(drawn), link, seconds=SECONDS, seed=drawn) for drawn in seeds)
        theory = RATE if not loss else min(RATE, DATAGRAM / rtt * 1.22 / math.sqrt(loss))
        name = f"{prefix}loss_{loss * 100:.0f}_rtt_{rtt * 1000:.0f}"
        figures[f"{name}_mb_s"] = goodput / 1e6
        if not prefix:
            figures[f"{name}_percent_of_theory"] = goodput / theory * 100
        figures[f"{name}_percent_of_link"] = goodput / RATE * 100
    return figures


def rounds() -> Iterator[Measurement]:
    """Another seed in every round."""
    for seed in itertools.count(1):
        yield measure_seed(seed)


def measure_seed(seed: int) -> Measurement:
    """One round of all contenders."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        credentials = Credentials.from_pem(certificate.read_bytes(), key.read_bytes())

        def ours(congestion: CongestionFactory, *, shipped: bool = False) -> Callable[[int], tuple[Peer, Peer]]:
            return lambda seed: (
                OurPeer(credentials, congestion, is_client=True, seed=seed, shipped=shipped),
                OurPeer(credentials, congestion, is_client=False, seed=seed + 1000, shipped=shipped),
            )

        figures = {
            **measure_contender(ours(Cubic), seed),
            **measure_contender(ours(Cubic, shipped=True), seed, "shipped_"),
            **measure_contender(ours(Bbr), seed, "bbr_"),
        }
        found: dict[str, Figures] = {OURS: figures}
        if importlib.util.find_spec("aioquic") is None:
            return found
        theirs = measure_contender(
            lambda _: (AioquicPeer(certificate, key, is_client=True), AioquicPeer(certificate, key, is_client=False)),
            seed,
        )
        found["aioquic"] = {**theirs, **{f"shipped_{name}": value for name, value in theirs.items()}}
        return found


BENCHMARK = Benchmark(
    "quic_lossy", "goodput over simulated links that lose 0, 1 and 5 % of all packets", rounds().__next__
)
