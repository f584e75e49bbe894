"""An answer leaves before the ACK that came with its request is applied, and nothing else comes of that."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import CloseCause
from a2al_trio.net.datagram import Received
from a2al_trio.quic.app_frames import PacketContent
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.errors import FrameDecodeError, TransportErrorCode
from a2al_trio.quic.events import QuicEvent, StreamReadable
from a2al_trio.quic.frame_handlers import FrameHandlers
from a2al_trio.quic.frames import decode_stream_frame, encode_varints
from a2al_trio.quic.varint import encode_varint

from .pair import CLIENT, Link, Pair
from .test_connection import finish


def echo(pair: Pair) -> None:
    """Let the server answer every stream with what it got."""

    def answer(event: QuicEvent) -> None:
        if isinstance(event, StreamReadable):
            pair.read(pair.server, event.connection, event.stream_id)
            key = event.connection, event.stream_id
            if key in pair.server.finished:
                event.connection.write(event.stream_id, bytes(pair.server.received[key]), True)

    pair.server.on_event = answer
    pair.server.auto_read = False


def exchange(pair: Pair, client: QuicConnectionCore, message: bytes) -> bytes:
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, message, True)
    pair.run(lambda: (client, stream) in pair.client.finished, seconds=30)
    return bytes(pair.client.received[client, stream])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([0.0, 0.0, 0.1]), st.booleans())
def test_requests_and_answers_go_back_and_forth(seed: int, loss: float, answers_first: bool) -> None:
    pair = Pair(seed=seed, answers_first=answers_first)
    client, server = pair.handshake()
    pair.link = Link(loss=loss, ecn=False)
    echo(pair)
    for number in range(60):
        message = b"%d" % number * (1 + number % 5)
        assert exchange(pair, client, message) == message
    ends = (client, server)
    pair.run(lambda: not any(len(end.streams) or end.paths.current.in_flight for end in ends), seconds=60)
    for end in ends:
        assert len(end.streams) == end.paths.current.in_flight == 0
        assert loss or end.stats.packets_lost == 0
        assert loss or end.stats.smoothed_rtt == pytest.approx(0.020, abs=0.003)
    finish(pair)


@attrs.define
class Stage:
    """A server that owes an answer, and has an ACK of its last one at hand which it has not applied."""

    pair: Pair
    client: QuicConnectionCore
    server: QuicConnectionCore
    in_flight: int


def packet(pair: Pair, sender: QuicConnectionCore, payload: bytes) -> Received:
    content = PacketContent(1200)
    content.parts.append(payload)
    transmit = sender.transmitter._single(sender.paths.current, content, pair.now, pad_to=0)
    return Received(memoryview(bytearray(transmit.data)), len(transmit.data), CLIENT, 0, "10.0.0.2")


def request(stream_id: int) -> bytes:
    return b"\x0b" + encode_varint(stream_id) + b"\x40\x05hello"


def ack(connection: QuicConnectionCore) -> bytes:
    """An ACK of everything that the connection has sent."""
    sent = connection.application.sent
    return encode_varints(0x02, sent[-1].last, 0, 0, sent[-1].last - sent[0].first)


def stage(extra: bytes = b"") -> Stage:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    client, server = pair.handshake()
    pair.run(seconds=1)
    server.ping()
    list(pair.server.core.datagrams_to_send(pair.now))
    in_flight = server.paths.current.in_flight
    assert in_flight > 0
    pair.now += 0.05
    pair.server.core.receive_to_answer(packet(pair, client, ack(server) + request(0) + extra), pair.now)
    assert server.paths.current.local_host == "10.0.0.2"
    assert server.read(0, 100) == b"hello"
    return Stage(pair, client, server, in_flight)


def test_an_ack_waits_until_the_answer_has_left() -> None:
    scene = stage()
    core, server, now = scene.pair.server.core, scene.server, scene.pair.now
    assert server.paths.current.in_flight == scene.in_flight
    server.write(0, b"answer", True)
    assert core.send_small(lambda transmit: len(transmit.data), now + 0.001) is not None
    assert server.paths.current.in_flight > scene.in_flight
    answer_size = server.paths.current.in_flight - scene.in_flight
    assert not core.catch_up(), "and there is nothing more to send"
    assert server.paths.current.in_flight == answer_size
    assert server.paths.current.rtt.latest == pytest.approx(0.05), "it counts as of its arrival"
    assert len(server.application.sent) == 1


@pytest.mark.parametrize("way", ["next", "batch", "timeout", "sending", "stats"])
def test_an_ack_is_applied_if_no_answer_leaves(way: str) -> None:
    scene = stage()
    pair, core, server = scene.pair, scene.pair.server.core, scene.server
    later = pair.now + 0.01
    match way:
        case "next":
            core.receive_to_answer(packet(pair, scene.client, request(4)), later)
        case "batch":
            core.receive_datagrams(packet(pair, scene.client, request(4)), later)
        case "timeout":
            core.handle_timeout(later)
        case "sending":
            list(core.datagrams_to_send(later))
        case _:
            assert server.stats.bytes_in_flight == 0
    assert server.paths.current.in_flight == 0
    assert server.paths.current.rtt.latest == pytest.approx(0.05)


@pytest.mark.parametrize("extra", [b"\x01", b"\x00", encode_varints(0x10, 1 << 30)])
def test_an_ack_among_other_frames_is_applied_at_once(extra: bytes) -> None:
    assert stage(extra).server.paths.current.in_flight == 0


def test_an_ack_alone_is_applied_at_once() -> None:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    client, server = pair.handshake()
    pair.run(seconds=1)
    server.ping()
    list(pair.server.core.datagrams_to_send(pair.now))
    pair.server.core.receive_to_answer(packet(pair, client, ack(server)), pair.now)
    assert server.paths.current.in_flight == 0


def test_an_ack_of_the_answer_that_has_not_left_yet_ends_the_connection() -> None:
    # Were it looked at only after the answer has left, the peer could acknowledge what it has not seen.
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    forged = encode_varints(0x02, server.application.next_number, 0, 0, 0)
    pair.server.core.receive_to_answer(packet(pair, client, forged + request(0)), pair.now)
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, TransportErrorCode.PROTOCOL_VIOLATION)


def test_a_connection_that_was_closed_meanwhile_has_no_use_for_its_ack() -> None:
    scene = stage()
    scene.server.close(0, "", scene.pair.now)
    assert scene.pair.server.core.catch_up(), "there is a CONNECTION_CLOSE to send"
    scene.pair.settle()
    scene.pair.run(seconds=300)
    scene.pair.assert_nothing_left()


def varint(value: int, size: int) -> bytes:
    """Write an integer with more bytes than it may need (RFC 9000 §16)."""
    return (value | (size.bit_length() - 1) << 8 * size - 2).to_bytes(size, "big")


@pytest.mark.parametrize(
    ("stream_id", "id_size", "length_size"),
    [(60, 1, 2), (60, 2, 2), (60, 4, 2), (68, 2, 1), (68, 2, 4), (68, 8, 2), (16_388, 4, 2), (16_388, 4, 1)],
)
def test_a_message_is_understood_however_its_integers_are_written(
    stream_id: int, id_size: int, length_size: int
) -> None:
    pair = Pair(config=QuicConfig(max_bidirectional_streams=5_000))
    client, server = pair.handshake()
    pair.run(seconds=1)
    sized = b"\x0b" + varint(stream_id, id_size) + varint(5, length_size) + b"hello"
    last = b"\x09" + varint(stream_id - 4, id_size) + b"all there is"
    pair.server.core.receive_datagrams(packet(pair, client, sized + last), pair.now)
    assert server.read(stream_id, 100) == b"hello"
    assert server.read(stream_id - 4, 100) == b"all there is"


SIZES = st.sampled_from([1, 2, 2, 2, 4, 4, 8])
MESSAGES = st.builds(
    lambda stream_id, id_size, data, length_size, more: (
        b"\x0b" + varint(stream_id, id_size) + varint(len(data) + more, length_size) + data
    ),
    st.integers(0, 60), SIZES, st.binary(max_size=20), SIZES, st.sampled_from([0, 0, 0, 1, 9]),
)  # fmt: skip
OTHERS = st.builds(
    lambda kind, rest: bytes((kind,)) + rest, st.sampled_from([8, 9, 9, 10, 11, 15]), st.binary(max_size=14)
)


class Recorder:
    """In place of a connection's streams: every stream exists, and remembers its frames."""

    def __init__(self) -> None:
        self.streams = self.reading = self.by_id = self
        self.frames: list[tuple[int, int, bytes, bool]] = []

    def get(self, stream_id: int) -> int:
        return stream_id + 1

    def on_data(self, stream: int, offset: int, data: bytes, *, fin: bool) -> None:
        self.frames.append((stream - 1, offset, data, fin))


@given(st.lists(MESSAGES | OTHERS, max_size=4))
def test_stream_frames_are_read_as_the_decoder_reads_them(pieces: list[bytes]) -> None:
    payload = b"".join(pieces)
    recorder, expected, position = Recorder(), [], 0
    failed = False
    try:
        while position < len(payload) and payload[position] & 0xF8 == 8:
            kind = payload[position]
            stream_id, offset, begin, position = decode_stream_frame(payload, position)
            expected.append((stream_id, offset, payload[begin:position], bool(kind & 1)))
    except FrameDecodeError:
        failed = True
    handlers = FrameHandlers(recorder)  # type: ignore[arg-type] # all it needs for these frames
    if failed:
        with pytest.raises(FrameDecodeError):
            handlers.process_streams(payload, 0)
    else:
        assert handlers.process_streams(payload, 0) == position
    assert recorder.frames == expected
