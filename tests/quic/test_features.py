"""The less usual parts of RFC 9000, 9001 and 9368, each as a story of two cores."""

from __future__ import annotations

import random

import pytest

from a2al_trio.errors import CloseCause
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.quic.config import QuicConfig, RetryPolicy
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.quic.events import (
    ConnectionEarly,
    ConnectionEnded,
    NewTokenReceived,
    PathChanged,
    QuicEvent,
    StreamOpened,
    StreamReadable,
    TicketReceived,
)
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.tls import CipherSuite, SessionTicket, TicketKeys

from .pair import CLIENT, SERVER, Link, Pair, Side
from .tls_support import client_tls, drbg, server_tls

ELSEWHERE = SocketAddress("10.0.0.9", 9000)


def exchange(pair: Pair, client: QuicConnectionCore, size: int = 50_000) -> None:
    """One stream there and back again."""
    data = random.Random(size).randbytes(size)
    server = pair.server.connection
    stream = client.open_stream()
    assert stream is not None
    assert client.write(stream, data, fin=True) == size
    pair.run(lambda: (server, stream) in pair.server.finished, seconds=60)
    assert pair.server.received[server, stream] == data
    server.write(stream, data[::-1], fin=True)
    pair.run(lambda: (client, stream) in pair.client.finished, seconds=60)
    assert pair.client.received[client, stream] == data[::-1]


# Address validation (RFC 9000 §8.1)


def test_retry_validates_the_address_first() -> None:
    pair = Pair(config=QuicConfig(retry=RetryPolicy.ALWAYS))
    client, server = pair.handshake()
    assert client.handshake.retry_cid is not None
    assert server.paths.current.validated
    assert pair.server.sizes[0] < 200
    exchange(pair, client)


def test_retry_comes_by_itself_under_load() -> None:
    pair = Pair(config=QuicConfig(retry_threshold=2, max_incoming_handshakes=4))
    pair.filter = lambda side, data: data if side is pair.client else None
    for _ in range(4):
        pair.connect()
    pair.run(seconds=0.1)
    assert len(pair.server.core._incoming_handshakes) == 2
    pair.filter = None
    client = pair.connect()
    pair.run(lambda: client.ready)
    assert client.handshake.retry_cid is not None


def test_a_token_saves_the_retry_next_time() -> None:
    pair = Pair(config=QuicConfig(retry=RetryPolicy.ALWAYS))
    pair.handshake()
    pair.run(seconds=1)
    token = next(event.token for event in pair.client.events if isinstance(event, NewTokenReceived))
    again = pair.connect(token=token)
    pair.run(lambda: again.ready)
    assert again.handshake.retry_cid is None
    assert pair.server.connection.paths.current.validated


def test_a_forged_retry_token_is_refused() -> None:
    pair = Pair(config=QuicConfig(retry=RetryPolicy.ALWAYS))
    client = pair.connect(token=b"\x52" + bytes(60))
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.PEER_TRANSPORT, 0x0B)
    assert not pair.server.core.connections


def test_too_many_unfinished_handshakes_are_refused() -> None:
    pair = Pair(config=QuicConfig(retry=RetryPolicy.NEVER, max_incoming_handshakes=2))
    pair.filter = lambda side, data: data if side is pair.client else None
    for _ in range(3):
        pair.connect()
    pair.run(seconds=0.05)
    assert len(pair.server.core.connections) == 2
    pair.filter = None
    late = pair.connect()
    pair.run(lambda: late.closed, seconds=0.05)
    assert late.close_reason is not None
    assert late.close_reason[:2] == (CloseCause.PEER_TRANSPORT, 0x02)


# Versions (RFC 9368, 9369)


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_either_version_alone(version: int) -> None:
    pair = Pair(config=QuicConfig(versions=(version,)))
    client, server = pair.handshake()
    assert client.version == server.version == version
    exchange(pair, client)


def test_the_server_moves_a_client_to_the_version_it_prefers() -> None:
    pair = Pair(
        client_config=QuicConfig(versions=(VERSION_1, VERSION_2)), config=QuicConfig(versions=(VERSION_2, VERSION_1))
    )
    client, server = pair.handshake()
    assert client.version == server.version == VERSION_2
    exchange(pair, client)


def test_the_same_with_lost_packets() -> None:
    for seed in range(8):
        pair = Pair(
            client_config=QuicConfig(versions=(VERSION_1, VERSION_2), handshake_idle_timeout=60, handshake_timeout=60),
            config=QuicConfig(
                versions=(VERSION_2, VERSION_1), handshake_idle_timeout=60, handshake_timeout=60,
                retry=RetryPolicy.ALWAYS if seed & 1 else RetryPolicy.NEVER,
            ),
            link=Link(loss=0.2), seed=seed,
        )  # fmt: skip
        client, _ = pair.handshake()
        assert client.version == VERSION_2
        exchange(pair, client, 5000)


def test_version_negotiation_finds_the_common_version() -> None:
    pair = Pair(client_config=QuicConfig(versions=(VERSION_2, VERSION_1)), config=QuicConfig(versions=(VERSION_1,)))
    client, server = pair.handshake()
    assert client.version == server.version == VERSION_1
    exchange(pair, client)


def test_no_common_version() -> None:
    pair = Pair(client_config=QuicConfig(versions=(VERSION_2,)), config=QuicConfig(versions=(VERSION_1,)))
    client = pair.connect()
    pair.run(lambda: client.closed)
    assert client.close_reason is not None
    assert client.close_reason[1] == 0x11
    pair.run()
    pair.assert_nothing_left()


def test_a_forged_version_negotiation_is_found_out() -> None:
    pair = Pair(
        client_config=QuicConfig(versions=(VERSION_2, VERSION_1)), config=QuicConfig(versions=(VERSION_1, VERSION_2))
    )

    def forge(side: Side, data: bytes) -> bytes | None:
        if side is pair.client and pair.client.datagrams == 1:
            size = data[5]
            destination, source = data[6 : 6 + size], data[7 + size : 7 + size + data[6 + size]]
            packet = (
                b"\xc0\0\0\0\0" + bytes((len(source),)) + source + bytes((size,)) + destination + bytes((0, 0, 0, 1))
            )
            pair._deliver(pair.client, pair.server, packet, len(packet), 0, 0.001)
            return None
        return data

    pair.filter = forge
    client = pair.connect()
    pair.run(lambda: client.closed or client.ready)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, 0x11)


# Keys (RFC 9001 §6)


@pytest.mark.parametrize("suite", list(CipherSuite))
def test_key_updates_from_both_sides(suite: CipherSuite) -> None:
    pair = Pair()
    client, server = pair.handshake(client_tls(suites=(suite,)))
    for round_ in range(4):
        exchange(pair, client)
        updater = client if round_ & 1 else server
        pair.run(seconds=1)
        assert updater.update_keys(pair.now)
        assert not updater.update_keys(pair.now)
        exchange(pair, client)
        assert client.one_rtt is not None
        assert server.one_rtt is not None
        assert client.one_rtt.phase == server.one_rtt.phase == (round_ + 1) & 1
    assert client.stats.key_updates == server.stats.key_updates == 4


def test_key_update_under_loss_and_reordering() -> None:
    pair = Pair(link=Link(loss=0.05, reorder=0.3), seed=3)
    client, server = pair.handshake()
    for _ in range(5):
        exchange(pair, client)
        client.update_keys(pair.now)
        server.update_keys(pair.now)
        pair.run(seconds=1)
    assert client.stats.key_updates >= 3
    assert not client.closed


# Stateless reset (RFC 9000 §10.3)


def test_a_server_that_lost_its_state_resets_the_client() -> None:
    pair = Pair()
    client, _ = pair.handshake()
    pair.run(seconds=1)
    reset_key = pair.server.core._reset_key
    pair.server.core = QuicEndpointCore(QuicConfig(), server=server_tls(), entropy=drbg("reborn"), now=pair.now)
    pair.server.core._reset_key = reset_key
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(200))
    pair.run(lambda: client.closed, seconds=1)
    assert client.close_reason == (CloseCause.RESET, 0, "")
    assert pair.server.sizes[-1] < 100
    pair.run(seconds=10)
    pair.assert_nothing_left()


def test_resets_are_smaller_than_what_came_and_limited_in_rate() -> None:
    core = QuicEndpointCore(QuicConfig(), server=server_tls(), entropy=drbg("x"), now=0.0)
    for size in (20, 21, 22, 30, 1200):
        data = memoryview(bytearray(b"\x41" + bytes(size - 1)))
        core.receive_datagrams(Received(data, size, CLIENT), 0.0)
        sizes = [len(transmit.data) for transmit in core.datagrams_to_send(0.0)]
        assert len(sizes) == (size > 21)
        assert all(answer < size for answer in sizes)
    answers = 0
    for _ in range(1000):
        core.receive_datagrams(Received(data, 1200, CLIENT), 0.5)
        answers += len(list(core.datagrams_to_send(0.5)))
    assert answers < 100


# Paths (RFC 9000 §9)


def test_a_rebound_client_is_followed() -> None:
    pair = Pair()
    client, server = pair.handshake()
    exchange(pair, client)
    pair.client.address = ELSEWHERE
    exchange(pair, client)
    assert server.peer_address == ELSEWHERE
    assert server.paths.current.validated
    assert any(isinstance(event, PathChanged) for event in pair.server.events)
    pair.run(seconds=5)
    assert not server.paths.others


def test_an_attacker_who_passes_packets_on_gains_nothing() -> None:
    pair = Pair()
    client, server = pair.handshake()
    exchange(pair, client)

    def relay(side: Side, data: bytes) -> bytes | None:
        if side is pair.client:
            received = Received(memoryview(bytearray(data)), len(data), ELSEWHERE)
            pair.server.core.receive_datagrams(received, pair.now)
        return data

    pair.filter = relay
    client.ping()
    pair.run(seconds=0.001)
    assert server.peer_address == ELSEWHERE
    pair.filter = None
    pair.run(seconds=5)
    assert server.peer_address == CLIENT
    exchange(pair, client)


def test_the_client_may_move_on_purpose() -> None:
    pair = Pair()
    client, server = pair.handshake()
    exchange(pair, client)
    old = client.paths.current.peer_cid
    before = client.paths.current
    assert before.rtt.has_sample
    pair.client.address = ELSEWHERE
    assert client.migrate()
    moved = client.paths.current
    assert moved.congestion is not before.congestion, "the new path begins anew (RFC 9000 §9.4)"
    assert not moved.rtt.has_sample
    exchange(pair, client)
    assert server.peer_address == ELSEWHERE
    assert moved.peer_cid != old
    assert moved.rtt.has_sample
    assert not client.paths.others
    pair.run(seconds=5)
    assert len(server.local_cids) == 4


def test_what_was_lost_by_moving_arrives_on_the_new_path() -> None:
    pair = Pair()
    client, server = pair.handshake()
    exchange(pair, client)
    stream = client.open_stream()
    assert stream is not None
    pair.filter = lambda side, data: None
    client.write(stream, bytes(8_000), fin=True)
    pair.run(seconds=0.001)
    before = client.paths.current
    assert before.in_flight
    pair.client.address = ELSEWHERE
    assert client.migrate()
    pair.filter = None
    pair.run(seconds=3)
    assert pair.server.received[server, stream] == bytes(8_000)
    assert not before.in_flight
    assert not client.paths.current.in_flight


def test_migration_is_left_off_where_the_peer_forbids_it() -> None:
    pair = Pair(config=QuicConfig(active_migration=False))
    client, _ = pair.handshake()
    assert not client.migrate()


def test_a_client_moves_to_the_preferred_address() -> None:
    pair = Pair(config=QuicConfig(preferred_addresses=(SERVER._replace(port=4433),)), client_config=QuicConfig())
    client, server = pair.handshake()
    pair.server.address = SERVER._replace(port=4433)
    exchange(pair, client)
    pair.run(seconds=2)
    assert client.peer_address.port == 4433
    exchange(pair, client)
    assert not server.closed


# ECN (RFC 9000 §13.4)


@pytest.mark.parametrize("carried", [True, False])
def test_ecn_is_used_only_where_it_is_carried(carried: bool) -> None:
    pair = Pair(link=Link(ecn=carried), config=QuicConfig(path_mtu_discovery=False))
    client, _ = pair.handshake()
    exchange(pair, client)
    exchange(pair, client)
    assert client.stats.ecn_capable == carried


def test_congestion_marks_shrink_the_window() -> None:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    client, server = pair.handshake()
    exchange(pair, client)
    before = client.stats.congestion_window
    deliver = pair._deliver
    pair._deliver = lambda to, source, data, size, ecn, delay: deliver(to, source, data, size, 3, delay)  # type: ignore[method-assign]
    exchange(pair, client)
    assert client.stats.congestion_window < before
    assert client.stats.packets_lost == 0
    assert not server.closed


# Resumption and 0-RTT (RFC 9001 §4.6)


def resumable(*, early_data: bool = True) -> tuple[Pair, SessionTicket]:
    tickets = TicketKeys(drbg("tickets"))
    pair = Pair(server=server_tls(tickets=tickets, early_data=early_data))
    client, _ = pair.handshake(client_tls(tickets=True, early_data=True))
    pair.run(seconds=1)
    ticket = next(event.ticket for event in pair.client.events if isinstance(event, TicketReceived))
    client.close(0, "", pair.now)
    pair.run(seconds=5)
    return pair, ticket


def test_resumption() -> None:
    pair, ticket = resumable()
    client = pair.connect(client_tls(tickets=True), ticket=ticket)
    pair.run(lambda: client.handshake_confirmed)
    assert client.resumed
    assert pair.server.connection.resumed
    exchange(pair, client)


def test_early_data_arrives_with_the_first_flight() -> None:
    pair, ticket = resumable()
    began = pair.now
    client = pair.connect(client_tls(tickets=True, early_data=True), ticket=ticket)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"GET /", fin=True)
    pair.run(lambda: bool(pair.server.finished))
    server = pair.server.connection
    assert pair.server.received[server, stream] == b"GET /"
    assert pair.now - began < 0.012
    pair.run(lambda: client.ready)
    assert client.early_data_accepted
    assert server.early_data_accepted
    assert pair.now - began < 0.032
    exchange(pair, client)


def test_early_data_is_answered_in_one_round_trip() -> None:
    pair, ticket = resumable()
    early: list[QuicConnectionCore] = []

    def answer(event: QuicEvent) -> None:
        if isinstance(event, ConnectionEarly):
            early.append(event.connection)
        elif isinstance(event, StreamOpened):
            assert not event.connection.ready, "the client's Finished is still on its way"
            event.connection.write(event.stream_id, b"answer " * 100, fin=True)

    pair.server.on_event = answer
    began = pair.now
    client = pair.connect(client_tls(tickets=True, early_data=True), ticket=ticket)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"GET /", fin=True)
    pair.run(lambda: (client, stream) in pair.client.finished)
    assert pair.now - began < 1.1 * 2 * pair.link.delay
    assert pair.client.received[client, stream] == b"answer " * 100
    pair.run(lambda: client.handshake_confirmed)
    assert early == [pair.server.connection]
    assert early[0].ready
    assert not early[0].closed
    pair.server.on_event = None
    exchange(pair, client)


def test_a_replayed_client_hello_does_not_make_its_sender_heard() -> None:
    # Whoever repeats a first flight gets at most an answer nobody can read; the connection never becomes ready.
    pair, ticket = resumable()
    client = pair.connect(client_tls(tickets=True, early_data=True), ticket=ticket)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"GET /", fin=True)
    flight = [bytes(transmit.data) for transmit in pair.client.core.datagrams_to_send(pair.now)]
    pair.client.core.connections.clear()
    events = []
    for data in flight:
        pair.server.core.receive_datagrams(Received(memoryview(data), len(data), CLIENT), pair.now)
    sent = sum(len(transmit.data) for transmit in pair.server.core.datagrams_to_send(pair.now))
    assert sent <= 3 * sum(map(len, flight))
    until = pair.now + 60
    while pair.server.core.connections and pair.now < until:
        pair.now = pair.server.core.next_timeout() or until
        pair.server.core.handle_timeout(pair.now)
        sent += sum(len(transmit.data) for transmit in pair.server.core.datagrams_to_send(pair.now))
    while (event := pair.server.core.next_event()) is not None:
        events.append(type(event))
    assert sent <= 3 * sum(map(len, flight))
    assert events == [ConnectionEarly, StreamOpened, StreamReadable, ConnectionEnded]


def test_refused_early_data_is_sent_again() -> None:
    pair, ticket = resumable()
    pair.server.core = QuicEndpointCore(QuicConfig(), server=server_tls(), entropy=drbg("other"), now=pair.now)
    client = pair.connect(client_tls(tickets=True, early_data=True), ticket=ticket)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"GET /" * 1000, fin=True)
    pair.run(lambda: bool(pair.server.finished))
    assert not client.early_data_accepted
    assert pair.server.received[pair.server.connection, stream] == b"GET /" * 1000
    exchange(pair, client)


def test_early_data_survives_loss() -> None:
    for seed in range(6):
        pair, ticket = resumable()
        pair.link = Link(loss=0.3)
        pair.random = random.Random(seed)
        client = pair.connect(client_tls(tickets=True, early_data=True), ticket=ticket)
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, b"GET /" * 2000, fin=True)
        pair.run(lambda pair=pair: bool(pair.server.finished))  # type: ignore[misc]
        assert pair.server.received[pair.server.connection, stream] == b"GET /" * 2000


# Observers


def test_an_observer_sees_every_packet_once() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.sent: list[tuple[int, int]] = []
            self.received: list[tuple[int, int]] = []
            self.lost = 0
            self.last_metrics = 0
            self.ends: list[tuple[CloseCause, int]] = []

        def packet_sent(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
            assert 0 < len(payload) < size
            self.sent.append((level, number))

        def packet_received(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
            assert 0 < len(payload) < size
            self.received.append((level, number))

        def packets_lost(self, now: float, level: int, first: int, last: int) -> None:
            self.lost += last - first + 1

        def metrics(self, now: float, *, smoothed_rtt: float, latest_rtt: float, window: int, in_flight: int) -> None:
            self.last_metrics = window

        def ended(self, now: float, by: CloseCause, code: int, reason: str) -> None:
            self.ends.append((by, code))

    watchers: dict[bool, Watcher] = {}

    def observe(_cid: bytes, is_client: bool, _peer: SocketAddress) -> Watcher:
        return watchers.setdefault(is_client, Watcher())

    pair = Pair(config=QuicConfig(observe=observe, path_mtu_discovery=False))
    client, _ = pair.handshake()
    exchange(pair, client, 200_000)
    client.close(4, "", pair.now)
    pair.run()
    ours, theirs = watchers[True], watchers[False]
    assert set(theirs.received) <= set(ours.sent)
    assert set(ours.received) <= set(theirs.sent)
    assert len(theirs.received) == len(set(theirs.received)) > 150
    assert ours.lost == 0
    assert ours.last_metrics > 0
    assert ours.ends == [(CloseCause.LOCAL, 4)]
    assert theirs.ends == [(CloseCause.PEER_APP, 4)]


# Runs


def test_a_run_may_hold_packets_of_several_connections_and_strangers() -> None:
    pair = Pair(config=QuicConfig(path_mtu_discovery=False))
    pair.server.auto_read = False
    first, one = pair.handshake()
    second, two = pair.handshake()
    assert one is not two
    data = random.Random(4).randbytes(6000)
    packets: list[bytes] = []
    for client in (first, second):
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, data)
    for transmit in pair.client.core.datagrams_to_send(pair.now):
        payload, size = bytes(transmit.data), transmit.segment_size
        packets += [payload[at : at + size] for at in range(0, len(payload), size)]
    full = [packet for packet in packets if len(packet) == max(map(len, packets))]
    assert len(full) >= 8
    full.insert(3, bytes((0x41,)) + random.Random(5).randbytes(len(full[0]) - 1))
    mixed = full[::2] + full[1::2]
    run = memoryview(bytearray(b"".join(mixed)))
    pair.server.core.receive_datagrams(Received(run, len(full[0]), CLIENT), pair.now)
    for packet in packets:
        if packet not in full:
            pair.server.core.receive_datagrams(Received(memoryview(packet), len(packet), CLIENT), pair.now)
    for server in (one, two):
        assert server.read(0, 10_000) == data
        assert not server.closed
