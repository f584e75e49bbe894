"""Stories of two cores over a simulated link."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from a2al_trio.errors import CloseCause, ConnectionLost, LocalProtocolError, StreamReset, StreamStopped
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.errors import TransportErrorCode
from a2al_trio.quic.events import DatagramsReadable, StreamsAvailable, StreamWritable
from a2al_trio.quic.tls import AlertDescription, ClientAuthentication, PeerRejected

from .pair import Link, Pair
from .tls_support import client_tls, credentials, server_tls


def finish(pair: Pair) -> None:
    """Close whatever is open and see that nothing is left."""
    pair.client.core.close_all(0, "", pair.now)
    pair.server.core.close_all(0, "", pair.now)
    pair.run()
    pair.assert_nothing_left()


def test_handshake_takes_two_flights_and_agrees() -> None:
    pair = Pair()
    client, server = pair.handshake()
    assert pair.now == pytest.approx(1000.040)
    assert (client.alpn, server.alpn, server.server_name) == ("test", "test", "server")
    assert client.peer_certificates == credentials().chain
    assert (server.peer_address, client.peer_address) == (pair.client.address, pair.server.address)
    assert pair.client.sizes[0] >= 1200
    assert client.stats.smoothed_rtt == pytest.approx(0.020, rel=0.01)
    finish(pair)


def test_mutual_authentication() -> None:
    pair = Pair(server=server_tls(client_authentication=ClientAuthentication.REQUIRED))
    _, server = pair.handshake(client_tls(credentials=credentials("p256", "me")))
    assert server.peer_certificates == credentials("p256", "me").chain
    finish(pair)


def test_a_client_without_certificate_is_told_so() -> None:
    pair = Pair(server=server_tls(client_authentication=ClientAuthentication.REQUIRED))
    client = pair.connect()
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.PEER_TRANSPORT, 0x174)
    assert pair.server.ended is None
    pair.run()
    pair.assert_nothing_left()


def test_what_the_verifier_raised_is_kept() -> None:
    refusal = PeerRejected("not the one I meant", AlertDescription.BAD_CERTIFICATE)

    def refuse(_chain: tuple[bytes, ...], _name: str | None) -> None:
        raise refusal

    pair = Pair()
    client = pair.connect(client_tls(verify_peer=refuse))
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, 0x12A)
    assert client.close_error is refusal
    with pytest.raises(ConnectionLost):
        client.open_stream()
    pair.run()
    pair.assert_nothing_left()


def test_no_common_protocol() -> None:
    pair = Pair()
    client = pair.connect(client_tls(alpn=("other",)))
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.PEER_TRANSPORT, 0x178)


def test_a_hello_over_several_datagrams() -> None:
    pair = Pair()
    client = pair.connect(client_tls(alpn=(*(f"protocol-{number:030}" for number in range(60)), "test")))
    pair.run(lambda: client.handshake_confirmed)
    assert len(pair.client.sizes) > 3
    assert all(size >= 1200 for size in pair.client.sizes[:2])
    finish(pair)


@pytest.mark.parametrize("size", [0, 1, 1000, 1_000_000])
def test_streams_carry_bytes_both_ways(size: int) -> None:
    pair = Pair()
    client, server = pair.handshake()
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    stream = client.open_stream()
    assert stream == 0
    sent = client.write(stream, data, fin=True)
    while sent < size:
        pair.run(lambda: any(isinstance(event, StreamWritable) for event in pair.client.events))
        pair.client.events.clear()
        sent += client.write(stream, memoryview(data)[sent:], fin=True)
    pair.run(lambda: (server, stream) in pair.server.finished)
    assert pair.server.received[server, stream] == data
    server.write(stream, b"answer", fin=True)
    pair.run(lambda: (client, stream) in pair.client.finished)
    assert pair.client.received[client, stream] == b"answer"
    pair.run(seconds=1)
    assert len(client.streams) == len(server.streams) == 0
    finish(pair)


def test_a_full_send_buffer_refuses_bytes_and_reports_room() -> None:
    pair = Pair(config=QuicConfig(send_buffer=10_000))
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    assert client.write(stream, bytes(25_000), fin=True) == 10_000
    assert client.write(stream, b"more") == 0
    pair.run(lambda: any(isinstance(event, StreamWritable) for event in pair.client.events), seconds=1)
    assert client.write(stream, bytes(10_000)) == 10_000
    pair.run(seconds=1)
    client.write(stream, bytes(5000), fin=True)
    pair.run(lambda: bool(pair.server.finished))
    assert len(pair.server.received[server, stream]) == 25_000
    finish(pair)


def test_nothing_flows_beyond_what_the_reader_takes() -> None:
    pair = Pair(config=QuicConfig(stream_window=20_000, connection_window=50_000))
    pair.server.auto_read = False
    client, server = pair.handshake()
    streams = [client.open_stream() for _ in range(4)]
    for stream in streams:
        assert stream is not None
        client.write(stream, bytes(100_000), fin=True)
    pair.run(seconds=3)
    held = [server.streams.by_id.get(stream).receive.assembler.readable for stream in streams]  # type: ignore[union-attr,arg-type]
    assert sum(held) == 50_000
    assert max(held) <= 20_000
    pair.server.auto_read = True
    for stream in pair.server.opened():
        pair.read(pair.server, server, stream)
    pair.run(lambda: len(pair.server.finished) == 4)
    assert all(len(data) == 100_000 for data in pair.server.received.values())
    finish(pair)


def test_stream_limits_block_and_are_renewed() -> None:
    pair = Pair(config=QuicConfig(max_bidirectional_streams=4, max_unidirectional_streams=2))
    client, server = pair.handshake()
    opened = [client.open_stream() for _ in range(5)]
    assert opened == [0, 4, 8, 12, None]
    assert [client.open_stream(unidirectional=True) for _ in range(3)] == [2, 6, None]
    for stream in (0, 4, 8, 12, 2, 6):
        client.write(stream, b"x", fin=True)
    pair.run(lambda: len(pair.server.finished) == 6)
    for stream in (0, 4, 8, 12):
        server.write(stream, b"", fin=True)
    pair.run(seconds=1)
    available = [event for event in pair.client.events if isinstance(event, StreamsAvailable)]
    assert sorted(event.unidirectional for event in available) == [False, True]
    assert client.open_stream() == 16
    assert client.open_stream(unidirectional=True) == 10
    finish(pair)


def test_a_thousand_streams_one_after_the_other_leave_nothing() -> None:
    pair = Pair(config=QuicConfig(max_bidirectional_streams=10), link=Link(delay=0.001))
    client, server = pair.handshake()
    for _ in range(1000):
        stream = client.open_stream()
        while stream is None:
            pair.run(seconds=0.01)
            stream = client.open_stream()
        client.write(stream, b"question", fin=True)
        pair.run(lambda stream=stream: (server, stream) in pair.server.finished)  # type: ignore[misc]
        server.write(stream, b"answer", fin=True)
        pair.run(lambda stream=stream: (client, stream) in pair.client.finished)  # type: ignore[misc]
    pair.run(seconds=1)
    assert len(client.streams) == len(server.streams) == 0
    assert len(client.application.acks.received) < 5
    finish(pair)


def test_streams_opened_out_of_order_are_announced_in_order() -> None:
    pair = Pair()
    client, _ = pair.handshake()
    streams = [client.open_stream() for _ in range(3)]
    client.write(8, b"last one first")
    pair.run(seconds=1)
    assert pair.server.opened() == streams
    finish(pair)


def test_reset_reaches_the_reader_with_its_code() -> None:
    pair = Pair()
    pair.server.auto_read = False
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"some")
    pair.run(seconds=1)
    client.reset(stream, 77)
    client.reset(stream, 78)
    pair.run(seconds=1)
    with pytest.raises(StreamReset) as caught:
        server.read(stream, 100)
    assert caught.value.code == 77
    server.write(stream, b"", fin=True)
    pair.run(seconds=1)
    assert len(client.streams) == len(server.streams) == 0
    assert server.flow.receive.consumed == 4
    finish(pair)


def test_stop_reaches_the_writer_with_its_code() -> None:
    pair = Pair()
    pair.server.auto_read = False
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(100_000))
    pair.run(seconds=1)
    server.stop(stream, 5)
    pair.run(seconds=1)
    with pytest.raises(StreamStopped) as caught:
        client.write(stream, b"more")
    assert caught.value.code == 5
    assert server.read(stream, 100) == b""
    assert server.flow.receive.consumed == server.flow.received
    server.write(stream, b"", fin=True)
    pair.run(seconds=1)
    assert len(client.streams) == len(server.streams) == 0
    finish(pair)


def test_a_stopped_writer_is_told_however_late_it_asks() -> None:
    pair = Pair()
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"question", fin=True)
    client.stop(stream, 6)
    pair.run(seconds=5)
    assert len(client.streams) == 0
    with pytest.raises(StreamStopped) as caught:
        server.write(stream, b"answer")
    assert caught.value.code == 6
    assert len(server.streams) == 0
    server.forget(stream)
    finish(pair)


def test_forgetting_a_stream_abandons_both_directions() -> None:
    pair = Pair()
    pair.server.auto_read = False
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"some")
    pair.run(seconds=1)
    client.forget(stream)
    pair.run(seconds=1)
    with pytest.raises(StreamStopped):
        server.write(stream, b"answer")
    with pytest.raises(StreamReset):
        server.read(stream, 10)
    pair.run(seconds=1)
    assert len(client.streams) == len(server.streams) == 0
    finish(pair)


def test_misuse_is_named() -> None:
    pair = Pair()
    client, server = pair.handshake()
    one_way = client.open_stream(unidirectional=True)
    assert one_way is not None
    with pytest.raises(LocalProtocolError, match="send-only"):
        client.read(one_way, 10)
    client.write(one_way, b"x", fin=True)
    with pytest.raises(LocalProtocolError, match="finished"):
        client.write(one_way, b"y")
    with pytest.raises(LocalProtocolError, match="closed"):
        client.write(400, b"y")
    pair.run(seconds=1)
    with pytest.raises(LocalProtocolError, match=r"receive-only|closed"):
        server.write(one_way, b"y")
    with pytest.raises(LocalProtocolError, match="datagrams"):
        client.send_datagram(b"x")
    finish(pair)


@pytest.mark.parametrize("code", [-1, 1 << 62, "1", None])
def test_codes_that_no_frame_can_carry_are_refused(code: Any) -> None:
    pair = Pair()
    client, _ = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    with pytest.raises(LocalProtocolError, match="codes are 0 to"):
        client.close(code, "", pair.now)
    with pytest.raises(LocalProtocolError, match="codes are 0 to"):
        client.reset(stream, code)
    with pytest.raises(LocalProtocolError, match="codes are 0 to"):
        client.stop(stream, code)
    with pytest.raises(LocalProtocolError, match="text"):
        client.close(0, b"bytes", pair.now)  # type: ignore[arg-type]
    assert not client.closed


def test_a_reason_that_is_no_unicode_arrives_as_well_as_it_can() -> None:
    pair = Pair()
    client, server = pair.handshake()
    client.close(1, "a\ud800b", pair.now)
    pair.run(lambda: server.closed, seconds=1)
    assert server.close_reason == (CloseCause.PEER_APP, 1, "a?b")


def test_views_of_larger_items_are_sent_whole() -> None:
    pair = Pair()
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    numbers = array("I", [1, 2, 3])
    assert client.write(stream, memoryview(numbers), fin=True) == len(numbers.tobytes())
    pair.run(lambda: (server, stream) in pair.server.finished, seconds=1)
    assert pair.server.received[server, stream] == numbers.tobytes()


@pytest.mark.parametrize("closer", ["client", "server"])
def test_close_is_seen_by_both(closer: str) -> None:
    pair = Pair()
    client, server = pair.handshake()
    ours, theirs = (client, server) if closer == "client" else (server, client)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"whole", fin=True)
    pair.server.auto_read = False
    pair.run(seconds=1)
    ours.close(9, "enough", pair.now)
    ours.close(10, "again", pair.now)
    pair.run(seconds=1)
    assert ours.close_reason == (CloseCause.LOCAL, 9, "enough")
    assert theirs.close_reason == (CloseCause.PEER_APP, 9, "enough")
    assert pair.client.ended is not None
    assert pair.server.ended is not None
    assert server.read(stream, 100) == b"whole"
    with pytest.raises(ConnectionLost) as caught:
        client.write(stream, b"x")
    assert caught.value.code == 9
    pair.run()
    pair.assert_nothing_left()


def test_closing_before_the_handshake_is_confirmed_keeps_the_code() -> None:
    pair = Pair()
    client = pair.connect()
    pair.run(lambda: client.ready)
    client.close(7, "changed my mind", pair.now)
    pair.run(lambda: pair.server.ended is not None)
    assert pair.server.connection.close_reason == (CloseCause.PEER_APP, 7, "changed my mind")
    pair.run()
    pair.assert_nothing_left()


def test_closing_at_once_leaves_no_trace() -> None:
    pair = Pair()
    client = pair.connect()
    client.close(7, "secret", pair.now)
    pair.run()
    assert not pair.server.events
    pair.assert_nothing_left()


def test_silence_ends_the_connection_on_both_sides() -> None:
    pair = Pair(client_config=QuicConfig(idle_timeout=60), config=QuicConfig(idle_timeout=8))
    pair.handshake()
    pair.run()
    assert pair.client.ended is not None
    assert pair.client.ended.by is CloseCause.IDLE
    assert pair.server.ended is not None
    assert pair.server.ended.by is CloseCause.IDLE
    pair.assert_nothing_left()


def test_keep_alive_keeps_an_hour_of_silence_alive_and_cheap() -> None:
    pair = Pair(config=QuicConfig(keep_alive=20, idle_timeout=90))
    client, server = pair.handshake()
    pair.run(seconds=3600)
    assert not client.closed
    assert not server.closed
    assert pair.client.datagrams < 3600 / 20 * 3
    finish(pair)


def test_nobody_answers() -> None:
    pair = Pair(link=Link(loss=1.0))
    client = pair.connect()
    pair.run()
    assert client.close_reason is not None
    assert client.close_reason[0] is CloseCause.IDLE
    assert pair.now - 1000 >= 10
    assert 5 <= pair.client.datagrams <= 20
    pair.assert_nothing_left()


def test_a_server_sends_no_more_than_three_times_what_it_got() -> None:
    chain = credentials().chain * 12
    from a2al_trio.quic.tls import Credentials

    pair = Pair(server=server_tls(credentials=Credentials(chain, credentials().private_key)))
    client = pair.connect()
    pair.filter = lambda side, data: data if side is pair.server or pair.client.datagrams == 1 else None
    pair.run(seconds=5)
    assert not client.ready
    assert sum(pair.server.sizes) <= 3 * pair.client.sizes[0]
    pair.filter = None
    pair.run(lambda: client.ready)
    finish(pair)


def test_datagrams_travel_and_overflow_is_dropped() -> None:
    pair = Pair(config=QuicConfig(max_datagram_frame_size=1200, datagram_queue=3))
    client, server = pair.handshake()
    assert client.max_datagram_size > 1000
    assert [client.send_datagram(bytes((number,))) for number in range(4)] == [True, True, True, False]
    pair.run(seconds=1)
    assert sum(isinstance(event, DatagramsReadable) for event in pair.server.events) == 1
    assert [server.receive_datagram() for _ in range(4)] == [b"\0", b"\1", b"\2", None]
    with pytest.raises(LocalProtocolError):
        client.send_datagram(bytes(client.max_datagram_size + 1))
    finish(pair)


def test_urgent_streams_go_first() -> None:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    client, server = pair.handshake()
    bulk, urgent = client.open_stream(), client.open_stream()
    assert bulk is not None
    assert urgent is not None
    client.set_urgency(urgent, 0)
    client.write(bulk, bytes(300_000), fin=True)
    client.write(urgent, bytes(100_000), fin=True)
    pair.run(lambda: bool(pair.server.finished))
    assert pair.server.finished == {(server, urgent)}
    finish(pair)


def test_the_path_carries_larger_datagrams_once_probed() -> None:
    pair = Pair(link=Link(mtu=1472))
    client, _ = pair.handshake()
    pair.run(seconds=5)
    assert 1472 - 16 <= client.stats.datagram_size <= 1472
    assert client.stats.packets_lost == 0
    finish(pair)


def test_the_peers_limit_on_datagram_size_is_kept() -> None:
    pair = Pair(config=QuicConfig(max_udp_payload_size=1452))
    client, _ = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(200_000), fin=True)
    pair.run(seconds=5)
    assert max(pair.client.sizes) == 1452
    finish(pair)


def test_a_refused_connection_is_told_so() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.server.core.refuse(server, pair.now)
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.PEER_TRANSPORT, TransportErrorCode.CONNECTION_REFUSED)
    pair.run()
    pair.assert_nothing_left()
