"""Small owners of path state: MTU search, ECN validation, ACK tracking, connection IDs, flow control, datagrams."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.acks import MAX_RANGES, AckTracker
from a2al_trio.quic.cids import LocalConnectionIds, PeerConnectionIds
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.datagrams import DatagramQueues
from a2al_trio.quic.ecn import EcnState, EcnValidator
from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode, describe_code
from a2al_trio.quic.flow import ConnectionFlow, ReceiveWindow
from a2al_trio.quic.frames import NewConnectionIdFrame
from a2al_trio.quic.mtu import CLOSE_ENOUGH, MtuSearch


@given(st.integers(1252, 65_507), st.integers(1252, 65_507))
def test_the_mtu_search_ends_close_to_the_truth(truth: int, ceiling: int) -> None:
    search, probes, lost = MtuSearch(1252, ceiling), 0, 0
    while (size := search.probe_size(0.0)) is not None:
        assert search.size < size <= ceiling
        assert search.probe_size(0.0) is None  # one at a time
        probes += 1
        if size <= truth:
            search.on_probe_acked(size)
        else:
            lost += 1
            search.on_probe_lost(size)
        assert probes < 60
    assert search.size <= max(truth, 1252)
    assert min(truth, ceiling) - search.size <= CLOSE_ENOUGH
    assert search.probe_size(599.0) is None


def test_the_peers_limit_shrinks_what_is_sent() -> None:
    search = MtuSearch(1452, 65_507)
    search.set_peer_limit(1300)
    assert (search.size, search.ceiling) == (1300, 1300)
    assert search.probe_size(0.0) is None


def test_a_black_hole_leads_back_to_the_initial_size() -> None:
    search = MtuSearch(1252, 1472)
    search.on_probe_acked(search.probe_size(0.0) or 0)
    assert search.size == 1472
    search.on_black_hole()
    assert search.size == 1472
    for _ in range(3):
        search.on_packets_lost(1472)
    search.on_black_hole()
    assert search.size == 1252
    assert (search.probe_size(0.0) or 0) < 1472


def test_ecn_is_validated_before_it_is_used() -> None:
    ecn = EcnValidator()
    assert ecn.codepoint == 2
    ecn.on_sent(10)
    assert ecn.state is EcnState.UNKNOWN
    assert ecn.codepoint == 0
    assert not ecn.on_acked((10, 0, 0), 10)
    assert ecn.is_capable
    ecn.on_sent(5)
    assert ecn.on_acked((14, 0, 1), 5)


@pytest.mark.parametrize(
    ("counts", "newly"),
    [(None, 3), ((2, 0, 0), 3), ((3, 1, 0), 3), ((20, 0, 0), 3), ((1, 2, 0), 3)],
    ids=["no counts", "too few", "wrong mark", "too many", "bleached"],
)
def test_implausible_counts_switch_ecn_off(counts: tuple[int, int, int] | None, newly: int) -> None:
    ecn = EcnValidator()
    ecn.on_sent(10)
    assert not ecn.on_acked(counts, newly)
    assert ecn.state is EcnState.FAILED
    assert ecn.codepoint == 0


def test_acks_are_due_after_two_packets_or_a_delay_or_at_once() -> None:
    acks = AckTracker(0.025)
    acks.on_received(0, 0, eliciting=1, ecn=0, now=5.0)
    assert acks.due_at == 5.025
    acks.on_received(1, 1, eliciting=1, ecn=0, now=5.01)
    assert acks.due_at == 5.01
    acks.on_ack_sent(5.01)
    acks.on_received(2, 2, eliciting=0, ecn=0, now=5.02)
    assert acks.due_at == float("inf")
    acks.on_received(5, 5, eliciting=1, ecn=0, now=5.03)
    assert acks.due_at == 5.03
    acks.on_ack_sent(5.03)
    acks.on_received(6, 6, eliciting=1, ecn=3, now=5.04)
    assert acks.due_at == 5.04


def test_an_ack_rides_along_unless_one_was_sent_just_now() -> None:
    acks = AckTracker(0.025)
    assert not acks.is_worth_adding(5.0)
    acks.on_received(0, 0, eliciting=1, ecn=0, now=5.0)
    assert acks.is_worth_adding(5.0)
    acks.on_ack_sent(5.0)
    acks.on_received(1, 1, eliciting=1, ecn=0, now=5.001)
    assert not acks.is_worth_adding(5.001)
    assert acks.is_worth_adding(5.006), "the last one was sent a while ago"
    acks.on_received(2, 2, eliciting=1, ecn=0, now=5.002)
    assert acks.is_worth_adding(5.002), "two packets wait for it"
    handshake = AckTracker(0.0)
    handshake.on_ack_sent(5.0)
    handshake.on_received(0, 0, eliciting=1, ecn=0, now=5.0)
    assert handshake.is_worth_adding(5.0)


def test_duplicates_are_known_even_when_ranges_are_forgotten() -> None:
    acks, draw = AckTracker(0.0), random.Random(1)
    numbers = draw.sample(range(4000), 2000)
    for number in numbers:
        if not acks.is_duplicate(number):
            acks.on_received(number, number, eliciting=1, ecn=0, now=0.0)
        assert acks.is_duplicate(number)
        assert len(acks.received) <= MAX_RANGES
    assert not acks.is_duplicate(4001)
    acks.forget_to(acks.largest)
    assert acks.is_duplicate(0)
    assert len(acks.received) == 1


def test_local_ids_are_replenished_when_retired() -> None:
    made = iter(range(100))
    released: list[bytes] = []
    ids = LocalConnectionIds(b"first", make=lambda: (b"cid%d" % next(made), bytes(16)), release=released.append)
    ids.set_limit(4)
    ids.replenish()
    assert ids.pending == [1, 2, 3]
    ids.on_retire(0, addressed=b"cid0")
    assert released == [b"first"]
    assert len(ids) == 4
    assert ids.entry(0) is None
    ids.on_retire(0, addressed=b"cid0")
    with pytest.raises(QuicTransportError):
        ids.on_retire(1, addressed=b"cid0")
    with pytest.raises(QuicTransportError):
        ids.on_retire(50, addressed=b"cid0")
    ids.set_limit(1 << 40)
    ids.replenish()
    assert len(ids) <= 8


def test_peer_ids_follow_retire_prior_to() -> None:
    ids = PeerConnectionIds(b"zero", limit=3)
    ids.on_new(NewConnectionIdFrame(1, 0, b"one", b"1" * 16))
    ids.on_new(NewConnectionIdFrame(1, 0, b"one", b"1" * 16))
    ids.on_new(NewConnectionIdFrame(2, 2, b"two", b"2" * 16))
    assert ids.retire_pending == [0, 1]
    assert ids.cid(0) is None
    assert ids.take_unused() == (2, b"two")
    assert ids.take_unused() is None
    assert ids.reset_tokens() == {b"2" * 16}
    ids.on_new(NewConnectionIdFrame(0, 0, b"zero", b"0" * 16))  # late: retired at once
    with pytest.raises(QuicTransportError):
        ids.on_new(NewConnectionIdFrame(2, 0, b"other", b"2" * 16))
    with pytest.raises(QuicTransportError):
        ids.on_new(NewConnectionIdFrame(3, 0, b"two", b"2" * 16))
    ids.on_new(NewConnectionIdFrame(4, 0, b"four", b"4" * 16))
    ids.on_new(NewConnectionIdFrame(5, 0, b"five", b"5" * 16))
    with pytest.raises(QuicTransportError) as caught:
        ids.on_new(NewConnectionIdFrame(6, 0, b"six", b"6" * 16))
    assert caught.value.code == TransportErrorCode.CONNECTION_ID_LIMIT_ERROR


def test_windows_grow_only_for_a_reader_that_keeps_up() -> None:
    window = ReceiveWindow(1000, 3000)
    assert not window.wants_update
    window.consumed = 600
    assert window.wants_update
    assert window.grant(1.0, 0.1) == 1600
    window.consumed = 1200
    assert window.grant(5.0, 0.1) == 2200  # slowly: no growth
    window.consumed = 2000
    assert window.grant(5.1, 0.1) == 4000  # within two round trips: doubled
    window.consumed = 3500
    assert window.grant(5.2, 0.1) == 6500  # and bounded


def test_connection_flow_reports_being_blocked_once_per_limit() -> None:
    flow = ConnectionFlow(ReceiveWindow(1000, 1000))
    flow.raise_send_limit(500)
    flow.on_blocked()
    assert flow.blocked_pending
    flow.blocked_pending = False
    flow.on_blocked()
    assert not flow.blocked_pending
    assert not flow.raise_send_limit(400)
    assert flow.raise_send_limit(600)
    flow.on_blocked()
    assert flow.blocked_pending
    with pytest.raises(QuicTransportError):
        flow.on_received(1001)


def test_datagram_queues_drop_the_oldest_received_and_the_newest_sent() -> None:
    queues = DatagramQueues(2)
    assert [queues.send(b"1"), queues.send(b"2"), queues.send(b"3")] == [True, True, False]
    assert [queues.on_received(bytes((number,))) for number in range(3)] == [True, False, False]
    assert [queues.take(), queues.take(), queues.take()] == [b"\1", b"\2", None]
    assert queues.dropped == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"versions": ()}, {"versions": (99,)}, {"initial_udp_payload_size": 1100}, {"max_udp_payload_size": 100},
        {"connection_id_length": 3}, {"active_connection_id_limit": 1}, {"max_ack_delay": 20}, {"keep_alive": 0},
        {"connection_window": -5}, {"stream_window": 0}, {"stream_window": 1 << 62}, {"send_buffer": 0},
        {"max_bidirectional_streams": -1}, {"max_unidirectional_streams": (1 << 60) + 1}, {"idle_timeout": -1},
        {"idle_timeout": float("nan")}, {"idle_timeout": "30"}, {"handshake_timeout": -1}, {"datagram_queue": 0},
        {"max_datagram_frame_size": -1}, {"max_probed_udp_payload_size": 100}, {"max_stream_window": 1000},
        {"active_connection_id_limit": 1 << 62}, {"max_connections": None},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        QuicConfig(**settings)  # type: ignore[arg-type]


def test_codes_have_names() -> None:
    assert describe_code(0x0A) == "PROTOCOL_VIOLATION"
    assert describe_code(0x12A) == "CRYPTO_ERROR (TLS alert 42)"
    assert describe_code(0x4242) == "error 0x4242"
