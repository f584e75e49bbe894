"""Whatever the network does, every stream's bytes arrive once and in order, and nothing is left afterwards."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.events import QuicEvent, StreamOpened, StreamWritable

from .pair import Link, Pair, Side

LINKS = st.builds(
    Link,
    delay=st.sampled_from([0.0005, 0.01, 0.05]),
    loss=st.sampled_from([0.0, 0.01, 0.05, 0.2]),
    duplicate=st.sampled_from([0.0, 0.1]),
    reorder=st.sampled_from([0.0, 0.1, 0.5]),
    corrupt=st.sampled_from([0.0, 0.02]),
    mtu=st.sampled_from([1300, 1472, 9000, 1 << 16]),
    ecn=st.booleans(),
)


class Sender:
    """Writes the same data to each of its streams as room comes up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.written: dict[int, int] = {}

    def write(self, connection: QuicConnectionCore, stream_id: int) -> None:
        position = self.written.get(stream_id, 0)
        while position <= len(self.data):
            piece = self.data[position : position + 40_000]
            accepted = connection.write(stream_id, piece, fin=position + len(piece) == len(self.data))
            position += accepted
            if accepted < len(piece):
                break
            if position == len(self.data):
                position += 1
        self.written[stream_id] = position

    def on_event(self, event: QuicEvent) -> None:
        if isinstance(event, StreamWritable | StreamOpened):
            self.write(event.connection, event.stream_id)


@settings(max_examples=25, deadline=None)
@given(LINKS, st.integers(0, 1 << 30), st.integers(0, 120_000), st.booleans(), st.booleans())
def test_every_byte_arrives_once_and_in_order(link: Link, seed: int, size: int, batch: bool, moves: bool) -> None:
    # After a rebinding only the client can speak first, so it had better speak now and then.
    config = QuicConfig(handshake_timeout=120, handshake_idle_timeout=120, idle_timeout=120, keep_alive=2)
    pair = Pair(link=link, seed=seed, config=config, batch=batch, answers_first=seed % 2 == 1)
    client = pair.connect()
    pair.run(lambda: client.ready or client.closed, seconds=130)
    assert client.ready
    draw = random.Random(seed)
    sender = Sender(draw.randbytes(size))
    pair.client.on_event = pair.server.on_event = sender.on_event
    streams = [client.open_stream() for _ in range(3)]
    server_sender = Sender(sender.data)
    pair.server.on_event = server_sender.on_event
    for stream in streams:
        assert stream is not None
        sender.write(client, stream)
    if moves:
        # A NAT forgets its binding some time after the handshake: the client's datagrams come from another port.
        pair.run(lambda: client.handshake_confirmed, seconds=130)
        pair.run(seconds=draw.random() * 0.2)
        pair.client.address = SocketAddress("10.0.0.1", 1001)
    pair.run(lambda: len(pair.client.finished) == len(pair.server.finished) == 3, seconds=900)
    server = pair.server.connection
    for stream in streams:
        assert stream is not None
        assert pair.server.received[server, stream] == sender.data
        assert pair.client.received[client, stream] == sender.data
    ends = (client, server)
    pair.run(lambda: not any(len(end.streams) or end.paths.current.in_flight for end in ends), seconds=200)
    assert len(client.streams) == len(server.streams) == 0
    assert client.paths.current.in_flight == server.paths.current.in_flight == 0
    client.close(0, "", pair.now)
    pair.run(seconds=300)
    pair.assert_nothing_left()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.binary(max_size=1500), max_size=40))
def test_garbage_and_mutations_are_survived(seed: int, garbage: list[bytes]) -> None:
    draw = random.Random(seed)
    pair = Pair(seed=seed)
    seen: list[bytes] = []

    def record(_side: Side, data: bytes) -> bytes:
        seen.append(data)
        return data

    pair.filter = record
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, draw.randbytes(20_000), fin=True)
    pair.run(lambda: (server, stream) in pair.server.finished)
    for _ in range(60):
        original = bytearray(draw.choice(seen))
        for _ in range(draw.randrange(4)):
            original[draw.randrange(len(original))] = draw.randrange(256)
        garbage.append(bytes(original[: draw.randrange(1, len(original) + 1)]))
    sources = [pair.client.address, SocketAddress("192.0.2.9", 9)]
    for data in garbage:
        for side in (pair.client, pair.server):
            size = max(1, draw.choice([len(data), len(data) // 3, 1200]))
            batch = Received(memoryview(bytearray(data)), size, draw.choice(sources))
            side.core.receive_datagrams(batch, pair.now)
            list(side.core.datagrams_to_send(pair.now))
    assert not client.closed
    assert not server.closed
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"still here", fin=True)
    pair.run(lambda: (server, stream) in pair.server.finished, seconds=30)
    assert pair.server.received[server, stream] == b"still here"
