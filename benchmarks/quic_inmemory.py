"""Two QUIC cores joined in memory, no IO: what the protocol work of one packet costs each side.

The sender's time is everything from `write` to the last `Transmit`, ACKs taken in included; the receiver's everything
from `receive_datagrams` to `read`, ACKs built included. Datagrams have 1,252 bytes, path MTU search is off.
"""

from __future__ import annotations

import cProfile
import datetime
import io
import os
import pstats
import time
from collections.abc import Callable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.quic.events import ConnectionReady, StreamReadable, StreamWritable
from a2al_trio.quic.tls import ClientAuthentication, ClientTls, Credentials, ServerTls
from benchmarks.framework import OURS, Benchmark, Measurement

CLIENT, SERVER = SocketAddress("10.0.0.1", 1), SocketAddress("10.0.0.2", 2)
BATCH = 65_536
CHUNK = 65_536
TRANSFER = 32 * 1024 * 1024
HANDSHAKES = 40


def _credentials() -> Credentials:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "benchmark")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + datetime.timedelta(days=36_500))
    return Credentials((builder.sign(key, None).public_bytes(Encoding.DER),), key)


def _accept_anyone(_chain: tuple[bytes, ...], _name: str | None) -> None:
    pass


class _Side:
    """One endpoint and the CPU time spent in it."""

    def __init__(self, core: QuicEndpointCore, address: SocketAddress) -> None:
        self.core = core
        self.address = address
        self.seconds = 0.0
        self.datagrams = 0

    def timed(self, work: Callable[[], None]) -> None:
        begin = time.thread_time()
        work()
        self.seconds += time.thread_time() - begin


class _Pair:
    """Two endpoints; every round trip takes one millisecond of virtual time."""

    def __init__(self) -> None:
        credentials = _credentials()
        config = QuicConfig(path_mtu_discovery=False)
        tls = ServerTls(
            alpn=("benchmark",), credentials=credentials, verify_peer=_accept_anyone,
            client_authentication=ClientAuthentication.REQUIRED,
        )  # fmt: skip
        self.now = 0.0
        self.tls = ClientTls(alpn=("benchmark",), credentials=credentials, verify_peer=_accept_anyone)
        self.client = _Side(QuicEndpointCore(config, entropy=os.urandom, now=0.0), CLIENT)
        self.server = _Side(QuicEndpointCore(config, server=tls, entropy=os.urandom, now=0.0), SERVER)
        self.accepted: list[QuicConnectionCore] = []
        self.ready = 0
        self.received = 0

    def exchange(self) -> None:
        """Let both sides send once and hear the other."""
        self.now += 0.0005
        for source, target in ((self.client, self.server), (self.server, self.client)):
            batches: list[Received] = []

            def send(source: _Side = source, batches: list[Received] = batches) -> None:
                for transmit in source.core.datagrams_to_send(self.now):
                    view = memoryview(bytearray(transmit.data))
                    source.datagrams += -(-len(view) // transmit.segment_size)
                    batches.append(Received(view, transmit.segment_size, source.address, transmit.ecn))

            def receive(target: _Side = target, batches: list[Received] = batches) -> None:
                for batch in batches:
                    target.core.receive_datagrams(batch, self.now)
                target.core.handle_timeout(self.now)
                self._take_events(target)

            source.timed(send)
            target.timed(receive)

    def _take_events(self, side: _Side) -> None:
        while (event := side.core.next_event()) is not None:
            match event:
                case ConnectionReady(connection=connection):
                    self.ready += 1
                    if side is self.server:
                        self.accepted.append(connection)
                case StreamReadable(connection=connection, stream_id=stream_id):
                    while data := connection.read(stream_id, CHUNK):
                        self.received += len(data)
                case StreamWritable():
                    self.fill()

    def fill(self) -> None:
        """Write until the send buffer is full."""
        while self.to_send > 0:
            accepted = self.connection.write(self.stream_id, self.chunk)
            self.to_send -= accepted
            if accepted < len(self.chunk):
                break

    def handshake(self) -> QuicConnectionCore:
        """Connect; both sides are ready afterwards."""
        wanted = self.ready + 2
        connections: list[QuicConnectionCore] = []
        self.client.timed(
            lambda: connections.append(
                self.client.core.connect(SERVER, tls=self.tls, server_name="benchmark", now=self.now)
            )
        )
        while self.ready < wanted:
            self.exchange()
        return connections[0]

    def transfer(self, size: int) -> None:
        """Move `size` bytes from client to server on one stream."""
        self.connection = self.handshake()
        stream_id = self.connection.open_stream()
        assert stream_id is not None
        self.stream_id, self.to_send, self.chunk = stream_id, size, os.urandom(CHUNK)
        self.client.seconds = self.server.seconds = 0.0
        self.client.datagrams = 0
        self.client.timed(self.fill)
        while self.received < size:
            self.exchange()


def measure_ours() -> dict[str, float]:
    """One transfer and a row of handshakes."""
    pair = _Pair()
    pair.transfer(TRANSFER)
    packets = pair.client.datagrams
    figures = {
        "sender_per_packet_us": pair.client.seconds / packets * 1e6,
        "receiver_per_packet_us": pair.server.seconds / packets * 1e6,
        "goodput_mb_s": TRANSFER / (pair.client.seconds + pair.server.seconds) / 1e6,
    }
    pair = _Pair()
    for _ in range(HANDSHAKES):
        connection = pair.handshake()
        connection.close(0, "", pair.now)
        pair.exchange()
    figures["client_handshake_us"] = pair.client.seconds / HANDSHAKES * 1e6
    figures["server_handshake_us"] = pair.server.seconds / HANDSHAKES * 1e6
    return figures


def measure() -> Measurement:
    """One round."""
    return {OURS: measure_ours()}


def notes() -> Mapping[str, object]:
    """Profile one transfer."""
    pair = _Pair()
    profile = cProfile.Profile()
    profile.runcall(pair.transfer, TRANSFER // 4)
    text = io.StringIO()
    statistics = pstats.Stats(profile, stream=text).sort_stats("tottime")
    statistics.print_stats(16)
    calls = statistics.total_calls / max(pair.client.datagrams, 1)  # type: ignore[attr-defined]
    return {"calls_per_packet_both_sides": round(calls, 2), "profile": text.getvalue().splitlines()}


BENCHMARK = Benchmark("quic_inmemory", "two cores without IO: microseconds per packet and side", measure, notes=notes)
