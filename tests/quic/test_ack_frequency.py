"""Acknowledging as often as the other side wants (draft-ietf-quic-ack-frequency-11)."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import CloseCause
from a2al_trio.quic.ack_frequency import BULK, FEW_STREAMS, QUIET_ACKS, QUIET_PACKETS
from a2al_trio.quic.acks import AckTracker
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.errors import FrameDecodeError
from a2al_trio.quic.events import QuicEvent, StreamOpened
from a2al_trio.quic.frames import AckFrequencyFrame, FrameContext, ImmediateAckFrame, decode_frames
from a2al_trio.quic.transport_params import TransportParameterError, TransportParameters, decode_transport_parameters
from a2al_trio.quic.varint import encode_varint_row

from .pair import Link, Pair
from .test_attacks import ENCODING, VIOLATION, inject
from .test_features import exchange

NEVER = float("inf")


def request(sequence: int, threshold: int, delay_us: int, reordering: int) -> bytes:
    return b"\x40\xaf" + encode_varint_row((sequence, threshold, delay_us, reordering))


# What is acknowledged when


@pytest.mark.parametrize(
    ("reordering", "received", "acknowledged_at"),
    [
        (3, [0, 1, 3, 4, 5, 8, 9, 10], {5, 9, 10}),  # the draft's tables
        (5, [0, 1, 3, 5, 6, 7, 8, 9], {7, 9}),
        (1, [0, 1, 3, 4, 6], {3, 6}),
        (0, [0, 1, 5, 9, 30], set()),
    ],
)
def test_gaps_are_reported_when_the_peer_can_use_the_news(
    reordering: int, received: list[int], acknowledged_at: set[int]
) -> None:
    acks = AckTracker(0.025)
    acks.set_frequency(packets=1000, max_delay=0.025, reordering=reordering)
    for number in received:
        acks.on_received(number, number, eliciting=1, ecn=0, now=1.0)
        assert (acks.due_at == 1.0) == (number in acknowledged_at), number
        if acks.due_at == 1.0:
            acks.on_ack_sent(1.0)


def test_number_and_delay_are_obeyed_and_marks_are_told_at_once() -> None:
    acks = AckTracker(0.025)
    acks.set_frequency(packets=10, max_delay=0.005, reordering=3)
    acks.on_received(0, 8, eliciting=9, ecn=0, now=1.0)
    assert acks.due_at == 1.005
    assert not acks.is_worth_adding(1.0005 - 0.0005) or acks._acked_at < 0
    acks.on_received(9, 9, eliciting=1, ecn=0, now=1.001)
    assert acks.due_at == 1.001
    acks.on_ack_sent(1.001)
    assert not acks.is_worth_adding(1.001)
    acks.on_received(10, 10, eliciting=1, ecn=3, now=1.0015)
    assert acks.due_at == 1.0015


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), max_size=40), st.integers(0, 6))
def test_any_order_is_acknowledged_in_time(steps: list[tuple[int, int, bool]], reordering: int) -> None:
    acks, position, now = AckTracker(0.025), 0, 1.0
    acks.set_frequency(packets=8, max_delay=0.01, reordering=reordering)
    owed_since = None
    for gap, count, answered in steps:
        position += gap
        acks.on_received(position, position + count - 1, eliciting=count, ecn=0, now=now)
        position += count
        owed_since = now if owed_since is None else owed_since
        assert acks.due_at <= owed_since + 0.01
        if answered:
            acks.on_ack_sent(now)
            owed_since = None
        now += 0.001


# Frames and parameters


@given(*[st.integers(0, (1 << 62) - 1)] * 4)
def test_frames_round_trip(sequence: int, threshold: int, delay: int, reordering: int) -> None:
    payload = request(sequence, threshold, delay, reordering) + b"\x1f\x01"
    frames = list(decode_frames(payload))
    assert frames[:2] == [AckFrequencyFrame(sequence, threshold, delay, reordering), ImmediateAckFrame()]


@pytest.mark.parametrize("payload", [b"\x40", b"\x40\xae", b"\x40\xaf", b"\x40\xaf\x01\x01\x01", b"\x40\x01"])
def test_malformed_frames(payload: bytes) -> None:
    with pytest.raises(FrameDecodeError):
        list(decode_frames(payload))


@pytest.mark.parametrize("payload", [b"\x1f", request(0, 1, 5000, 1)])
@pytest.mark.parametrize("context", [FrameContext.INITIAL, FrameContext.HANDSHAKE, FrameContext.ZERO_RTT])
def test_they_belong_into_1_rtt_packets(payload: bytes, context: frozenset[int]) -> None:
    with pytest.raises(FrameDecodeError) as caught:
        list(decode_frames(payload, context))
    assert caught.value.code == VIOLATION


def test_the_offer_must_be_within_the_delay() -> None:
    assert decode_transport_parameters(b"", from_server=True).min_ack_delay_us is None
    fits = TransportParameters(max_ack_delay_ms=2, min_ack_delay_us=2000)
    assert decode_transport_parameters(fits.encode(), from_server=True) == fits
    with pytest.raises(TransportParameterError, match="min_ack_delay"):
        decode_transport_parameters(TransportParameters(min_ack_delay_us=25_001).encode(), from_server=True)


# Obeying


def test_a_request_is_obeyed_and_an_older_one_is_not() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    inject(pair, client, request(5, 19, 8000, 4))
    inject(pair, client, request(4, 1, 25_000, 1))
    acks = server.application.acks
    assert (acks.threshold, acks.max_delay, acks.reordering) == (20, 0.008, 4)


def test_an_immediate_ack_is_sent() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    sent = server.datagrams_sent
    inject(pair, client, b"\x01")
    assert server.datagrams_sent == sent, "a PING may wait"
    inject(pair, client, b"\x1f")
    assert server.datagrams_sent == sent + 1


@pytest.mark.parametrize(
    ("config", "payload", "code"),
    [
        (QuicConfig(), request(0, 1, 999, 1), VIOLATION),
        (QuicConfig(), request(0, 1, (1 << 14) * 1000, 1), VIOLATION),
        (QuicConfig(ack_frequency=False), request(0, 1, 5000, 1), ENCODING),
        (QuicConfig(ack_frequency=False), b"\x1f", ENCODING),
    ],
)
def test_what_was_not_offered_ends_the_connection(config: QuicConfig, payload: bytes, code: int) -> None:
    pair = Pair(config=config)
    client, server = pair.handshake()
    pair.run(seconds=1)
    inject(pair, client, payload)
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, code)


# Asking


def small_requests(pair: Pair, client: QuicConnectionCore, count: int) -> None:
    server = pair.server.connection
    for _ in range(count):
        stream = client.open_stream()
        assert stream is not None
        client.write(stream, b"question", fin=True)
        pair.run(lambda stream=stream: (server, stream) in pair.server.finished, seconds=5)  # type: ignore[misc]
        server.write(stream, b"answer", fin=True)
        pair.run(lambda stream=stream: (client, stream) in pair.client.finished, seconds=5)  # type: ignore[misc]


def something_happened(pair: Pair, client: QuicConnectionCore, under_way: set[int], room: int) -> bool:
    """Whether a request is answered, or more than `room` streams are allowed."""
    answered = any((client, stream) in pair.client.finished for stream in under_way)
    return answered or client.streams.counts.local_limit(0) > room


def small_requests_at_once(pair: Pair, client: QuicConnectionCore, at_once: int, count: int) -> None:
    """Like `small_requests`, where the server answers by itself; as many at once as the peer allows."""
    server, begun, done = pair.server.connection, 0, 0
    under_way: set[int] = set()
    while done < count:
        while begun < count and len(under_way) < at_once and (stream := client.open_stream()) is not None:
            client.write(stream, b"question", fin=True)
            under_way.add(stream)
            begun += 1
        room = client.streams.counts.local_limit(0) + (at_once == len(under_way)) * 1_000_000
        pair.run(partial(something_happened, pair, client, under_way, room), seconds=5)
        over = {stream for stream in under_way if (client, stream) in pair.client.finished}
        under_way -= over
        done += len(over)
    assert not server.closed


def bulk(pair: Pair, client: QuicConnectionCore, size: int) -> float:
    """Send so much in one go and return how long it took."""
    stream, begin, position = client.open_stream(), pair.now, 0
    assert stream is not None
    data, server = random.Random(size).randbytes(size), pair.server.connection
    while position < size:
        piece = data[position : position + 100_000]
        position += client.write(stream, piece, fin=position + len(piece) == size)
        pair.run(seconds=0.001)
    pair.run(lambda: (server, stream) in pair.server.finished, seconds=60)
    assert pair.server.received[server, stream] == data
    return pair.now - begin


def test_a_large_window_is_acknowledged_a_few_times_a_round_trip() -> None:
    took, answers = {}, {}
    for wanted in (False, True):
        config = QuicConfig(ack_frequency=wanted, path_mtu_discovery=False)
        pair = Pair(config=config, link=Link(delay=0.02, loss=0.001), seed=5, batch=False)
        client, _ = pair.handshake()
        took[wanted] = bulk(pair, client, 3_000_000)
        answers[wanted] = pair.server.datagrams
    assert answers[True] < 0.65 * answers[False]
    assert took[True] < 1.15 * took[False]


def test_small_messages_are_acknowledged_by_the_dozen_and_bulk_is_not_held_up() -> None:
    pair = Pair(link=Link(delay=0.0005))
    client, server = pair.handshake()
    small_requests(pair, client, 2 * QUIET_ACKS + 20)
    assert client.ack_frequency.is_quiet
    assert server.ack_frequency.is_quiet
    assert client.application.acks.threshold == server.application.acks.threshold == QUIET_PACKETS
    plain = Pair(link=Link(delay=0.0005), config=QuicConfig(ack_frequency=False))
    plain_client, _ = plain.handshake()
    small_requests(plain, plain_client, 2 * QUIET_ACKS + 20)
    assert bulk(pair, client, 10 * BULK) <= bulk(plain, plain_client, 10 * BULK) + 0.001
    assert not client.ack_frequency.is_quiet
    assert server.application.acks.threshold == 2
    exchange(pair, client)


@pytest.mark.parametrize(("limit", "at_once"), [(1, 1), (2, 1), (8, 1), (100, 1), (16, 16), (100, 16), (4, 16)])
def test_no_request_waits_for_an_acknowledgement(limit: int, at_once: int) -> None:
    """Streams that end make room for others only when their end is acknowledged: it must not wait to be."""
    round_trip, longest = 0.002, {}
    for wanted in (False, True):
        config = QuicConfig(max_bidirectional_streams=limit, ack_frequency=wanted)
        pair = Pair(link=Link(delay=round_trip / 2), config=config)
        client, server = pair.handshake()

        def answer(event: QuicEvent, server: QuicConnectionCore = server) -> None:
            if isinstance(event, StreamOpened):
                server.write(event.stream_id, b"answer", fin=True)

        pair.server.on_event = answer
        small_requests_at_once(pair, client, 1, 3 * QUIET_ACKS)
        longest[wanted] = 0.0
        for _ in range(30):
            begin = pair.now
            small_requests_at_once(pair, client, at_once, at_once)
            longest[wanted] = max(longest[wanted], pair.now - begin)
    assert longest[True] <= longest[False] + 1e-9
    # A round trip for each lot that the limit allows, one for the next lot to be allowed, and one to begin with.
    assert longest[True] <= (2 * -(-at_once // limit) + 1) * round_trip + 1e-9


def test_streams_that_stay_do_not_keep_it_away() -> None:
    pair = Pair(link=Link(delay=0.0005), config=QuicConfig(max_unidirectional_streams=3))
    client, server = pair.handshake()
    for side in (client, server):
        for _ in range(3):  # as HTTP/3 has them
            stream = side.open_stream(unidirectional=True)
            assert stream is not None
            side.write(stream, b"settings")
    pair.run(seconds=0.1)
    small_requests(pair, client, 2 * QUIET_ACKS + 20)
    assert client.ack_frequency.is_quiet
    assert server.ack_frequency.is_quiet


def test_many_requests_at_once_end_it_and_make_it_rarer() -> None:
    pair = Pair(link=Link(delay=0.0005))
    client, server = pair.handshake()
    for needed in (QUIET_ACKS, 2 * QUIET_ACKS):
        small_requests(pair, client, needed // 2)
        assert not client.ack_frequency.is_quiet
        small_requests(pair, client, 2 * needed)
        assert client.ack_frequency.is_quiet
        for _ in range(4 * FEW_STREAMS):
            stream = client.open_stream()
            assert stream is not None
            client.write(stream, b"question", fin=True)
        pair.run(seconds=0.05)
        assert not client.ack_frequency.is_quiet
        for stream in pair.server.opened():
            server.forget(stream)
            client.forget(stream)
        pair.run(seconds=1)


def test_nobody_is_asked_who_does_not_offer() -> None:
    pair = Pair(config=QuicConfig(ack_frequency=False), client_config=QuicConfig())
    client, server = pair.handshake()
    small_requests(pair, client, 3 * QUIET_ACKS)
    assert not client.ack_frequency.is_quiet
    assert server.application.acks.threshold == client.application.acks.threshold == 2
    assert not server.closed


def test_a_lost_request_is_made_again() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    client.ack_frequency.on_offer(minimum=0.001, maximum=0.02)
    client.ack_frequency._quiet_acks = QUIET_ACKS
    client.ack_frequency._ask(client.ack_frequency._quiet)
    client.ping()
    pair.filter = lambda side, data: None if side is pair.client else data
    pair.settle()
    pair.filter = None
    assert server.application.acks.threshold == 2
    pair.run(seconds=2)
    assert server.application.acks.threshold == QUIET_PACKETS
