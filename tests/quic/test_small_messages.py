"""Messages that fit one frame, written whole: they take a short way, and nothing else may come of that."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import StreamReset
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.errors import QuicTransportError
from a2al_trio.quic.flow import ConnectionFlow, ReceiveWindow
from a2al_trio.quic.streams import StreamLimits, StreamTable

from .pair import Link, Pair
from .test_connection import finish


def messages_of(pair: Pair) -> list[bytes]:
    """What the server read of streams to their end, in the order of their numbers."""
    ended = sorted(stream_id for _, stream_id in pair.server.finished)
    received = {stream_id: bytes(data) for (_, stream_id), data in pair.server.received.items()}
    return [received[stream_id] for stream_id in ended]


def test_messages_of_several_streams_share_a_packet() -> None:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    client, _ = pair.handshake()
    pair.run(seconds=1)
    sent = [bytes((number,)) * 40 for number in range(12)]
    before = pair.client.datagrams
    for message in sent:
        stream = client.open_stream()
        assert stream is not None
        assert client.write(stream, message, True) == len(message)
    pair.flush(pair.client)
    assert pair.client.datagrams == before + 1
    pair.run(seconds=1)
    assert messages_of(pair) == sent
    finish(pair)


@pytest.mark.parametrize("config", [QuicConfig(stream_window=100), QuicConfig(connection_window=1500)])
def test_messages_wait_for_credit(config: QuicConfig) -> None:
    pair = Pair(config=config, client_config=QuicConfig())
    pair.server.auto_read = False
    client, server = pair.handshake()
    sent = [bytes((number,)) * 700 for number in range(8)]
    for message in sent:
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, message, True)
    pair.run(seconds=1)
    assert client.flow.sent <= config.connection_window
    assert all(stream.receive.assembler.highest <= config.stream_window for stream in server.streams if stream.receive)
    pair.server.auto_read = True
    for stream in range(0, 32, 4):
        pair.read(pair.server, server, stream)
    pair.run(lambda: len(pair.server.finished) == len(sent))
    assert messages_of(pair) == sent
    finish(pair)


def test_a_message_that_was_reset_before_it_left_is_not_sent() -> None:
    pair = Pair()
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"never mind", True)
    client.reset(stream, 5)
    pair.server.auto_read = False
    pair.run(seconds=1)
    with pytest.raises(StreamReset):
        server.read(stream, 100)
    finish(pair)


def test_what_follows_a_whole_message_is_a_mistake_of_the_writer() -> None:
    pair = Pair()
    client, _ = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"all", True)
    assert client.write(stream, b"", True) == 0
    pair.run(seconds=1)
    assert messages_of(pair) == [b"all"]
    finish(pair)


@given(st.lists(st.binary(max_size=1500), min_size=1, max_size=40), st.integers(0, 1000))
def test_messages_arrive_once_and_whole_over_a_bad_link(sent: list[bytes], seed: int) -> None:
    pair = Pair(link=Link(loss=0.1, duplicate=0.1, reorder=0.2), seed=seed)
    client, _ = pair.handshake()
    for message in sent:
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, message, True)
    pair.run(lambda: len(pair.server.finished) == len(sent))
    assert messages_of(pair) == sent
    finish(pair)


class Heard:
    """A StreamObserver that keeps what it is told, and a table whose streams are the peer's."""

    def __init__(self, *, general: bool) -> None:
        self.told: list[object] = []
        self.flow = ConnectionFlow(ReceiveWindow(120, 1000))
        limits = StreamLimits(bidirectional=4, unidirectional=4, window=50, max_window=1000, send_buffer=100)
        self.table = StreamTable(is_client=False, limits=limits, flow=self.flow, observer=self)
        self.general = general

    def on_stream_opened(self, stream_id: int) -> None:
        self.told.append(("opened", stream_id))

    def on_stream_readable(self, stream_id: int) -> None:
        self.told.append(("readable", stream_id))

    def on_stream_writable(self, stream_id: int) -> None:
        self.told.append(("writable", stream_id))

    def on_streams_available(self, unidirectional: bool) -> None:
        self.told.append(("available", unidirectional))

    def do(self, verb: str, stream_id: int, number: int, size: int) -> None:
        """Do one thing; what comes of it is told as well."""
        reading = self.table.reading
        try:
            if verb in ("data", "end", "reset"):
                is_new = stream_id >> 2 >= self.table.counts.peer_next[0]
                stream = self.table.for_peer(stream_id, receiving=True)
                if stream is None:
                    return
                assert stream.receive is not None
                if is_new and self.general:
                    assert not stream.receive.assembler.highest  # whoever has looked at it finds no whole message there
                if verb == "reset":
                    reading.on_reset(stream, 7, size)
                else:
                    reading.on_data(stream, number, bytes(range(number, number + size)), fin=verb == "end")
            elif verb == "read":
                self.told.append(reading.read(stream_id, size or 1))
            else:
                reading.stop(stream_id, number)
        except (QuicTransportError, StreamReset) as error:
            self.told.append(str(error))
        window = self.flow.receive
        self.told.append((self.flow.received, window.consumed, self.flow.update_pending, sorted(self.table.control)))
        self.told.append([(half.is_read, half.is_done) for stream in self.table if (half := stream.receive)])


STEPS = st.tuples(
    st.sampled_from(["end", "end", "data", "read", "read", "reset", "stop"]),
    st.sampled_from([0, 0, 4]),
    st.sampled_from([0, 0, 0, 10, 20]),
    st.sampled_from([0, 10, 10, 20, 50, 51, 70]),
)


@settings(max_examples=300)
@given(st.lists(STEPS, min_size=3, max_size=12))
def test_a_message_that_came_whole_is_like_any_other(steps: list[tuple[str, int, int, int]]) -> None:
    short, general = Heard(general=False), Heard(general=True)
    for step in steps:
        short.do(*step)
        general.do(*step)
        assert short.told == general.told
