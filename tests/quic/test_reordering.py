"""Packets that are late rather than lost: what is remembered, how patience grows, and what is undone."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.congestion import CongestionFactory, minimum_window
from a2al_trio.quic.congestion_bbr import Bbr
from a2al_trio.quic.congestion_cubic import Cubic
from a2al_trio.quic.congestion_loss import LossBased
from a2al_trio.quic.congestion_reno import NewReno
from a2al_trio.quic.paths import Path, PathSet
from a2al_trio.quic.reordering import (
    LOSSES_UNTIL_FORGOTTEN,
    MAX_REMEMBERED,
    PACKET_THRESHOLD,
    TIME_THRESHOLD,
    GivenUp,
    LossMemory,
    Patience,
)

from .bottleneck import SIZE, Rtt
from .pair import Link, Pair
from .test_recovery import Stage
from .tls_support import drbg

LOSS_BASED = pytest.mark.parametrize("make", [NewReno, Cubic])
RTT = Rtt(0.1, 0.1, 0.1)


def some_path() -> Path:
    return PathSet(QuicConfig(), drbg("path"), SocketAddress("10.0.0.1", 1), None).current


# What is remembered


def numbers(entries: list[GivenUp]) -> list[int]:
    return [number for entry in entries for number in range(entry.first, entry.last + 1)]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), max_size=20),
    st.lists(st.sets(st.integers(0, 120), min_size=1, max_size=40), max_size=5),
)
def test_every_late_packet_is_found_once(gaps: list[tuple[int, int]], acks: list[set[int]]) -> None:
    path, memory, lost, position = some_path(), LossMemory(), set[int](), 0
    for gap, count in gaps:
        position += gap
        memory.add(GivenUp(position, position + count - 1, SIZE, path, 1.0, 2.0))
        lost |= set(range(position, position + count))
        position += count
    for arrived in acks:
        ranges: list[tuple[int, int]] = []
        for number in sorted(arrived):
            if ranges and ranges[-1][1] == number:
                ranges[-1] = (ranges[-1][0], number + 1)
            else:
                ranges.append((number, number + 1))
        assert numbers(memory.take(ranges)) == sorted(lost & arrived)
        lost -= arrived
    assert bool(memory) == bool(lost)


def test_memory_is_bounded() -> None:
    path, memory = some_path(), LossMemory()
    for number in range(0, 10_000, 2):
        memory.add(GivenUp(number, number, SIZE, path, 1.0, 2.0))
    found = numbers(memory.take([(0, 10_000)]))
    assert MAX_REMEMBERED // 2 <= len(found) <= MAX_REMEMBERED
    assert found[-1] == 9_998


def test_an_ack_of_very_many_ranges_costs_little() -> None:
    path, memory = some_path(), LossMemory()
    for number in range(MAX_REMEMBERED):
        memory.add(GivenUp(200 * number, 200 * number + 99, SIZE, path, 1.0, 2.0))
    # Ranges between what was given up, and one packet of each: what a hostile peer may put into one frame.
    ranges = [(start, start + 1) for start in range(100, 200 * MAX_REMEMBERED, 2) if start % 200 >= 100]
    ranges += [(200 * number + 50, 200 * number + 51) for number in range(MAX_REMEMBERED)]
    begin = time.thread_time()
    assert len(memory.take(sorted(ranges))) == MAX_REMEMBERED
    assert time.thread_time() - begin < 0.1


def test_patience_grows_to_what_was_needed_and_ends_after_losses_that_were_real() -> None:
    patience = Patience()
    patience.on_late(distance=20, round_trips=1.5)
    assert (patience.packets, patience.time) == (21, 1.5)
    patience.on_late(distance=4, round_trips=9.0)
    assert (patience.packets, patience.time) == (21, 2.0)
    for _ in range(LOSSES_UNTIL_FORGOTTEN - 1):
        patience.on_lost()
    assert patience.packets == 21
    patience.on_lost()
    assert (patience.packets, patience.time) == (PACKET_THRESHOLD, TIME_THRESHOLD)


# What is undone


def grown(make: CongestionFactory) -> LossBased:
    """A controller in congestion avoidance, with one reduction behind it."""
    controller = make(SIZE)
    assert isinstance(controller, LossBased)
    controller.on_lost(0.2, SIZE, sent_at=0.1, in_flight=0)
    for turn in range(3, 9):
        controller.on_sent(turn / 10, controller.window, controller.window)
        controller.on_acked(turn / 10 + 0.1, controller.window, sent_at=turn / 10, in_flight=0, rtt=RTT)
    return controller


def state(controller: LossBased) -> tuple[object, ...]:
    return controller.exact_window, controller.slow_start_threshold, controller._recovery, controller._growth()


@LOSS_BASED
def test_a_reduction_for_late_packets_is_undone(make: CongestionFactory) -> None:
    controller = grown(make)
    before = state(controller)
    controller.on_lost(1.0, 2 * SIZE, sent_at=0.95, in_flight=5 * SIZE)
    controller.on_lost(1.01, SIZE, sent_at=0.96, in_flight=4 * SIZE)
    assert state(controller) != before
    controller.on_spurious_loss(1.05, 2 * SIZE, lost_at=1.0)
    assert state(controller) != before, "one packet is still missing"
    controller.on_spurious_loss(1.06, SIZE, lost_at=1.01)
    assert state(controller) == before


@LOSS_BASED
def test_slow_start_goes_on_after_late_packets(make: CongestionFactory) -> None:
    controller = make(SIZE)
    controller.on_lost(1.0, SIZE, sent_at=0.95, in_flight=5 * SIZE)
    assert controller.slow_start_threshold is not None
    controller.on_spurious_loss(1.05, SIZE, lost_at=1.0)
    assert controller.slow_start_threshold is None


@LOSS_BASED
def test_a_collapse_for_late_packets_is_undone(make: CongestionFactory) -> None:
    controller = grown(make)
    before = controller.exact_window
    controller.on_lost(1.0, 5 * SIZE, sent_at=0.95, in_flight=0)
    controller.on_persistent_congestion(1.0)
    assert controller.window == minimum_window(SIZE)
    controller.on_spurious_loss(1.05, 5 * SIZE, lost_at=1.0)
    assert controller.exact_window == before


@LOSS_BASED
def test_late_packets_of_an_earlier_reduction_undo_nothing(make: CongestionFactory) -> None:
    controller = grown(make)
    controller.on_lost(1.0, SIZE, sent_at=0.95, in_flight=5 * SIZE)
    controller.on_lost(2.0, SIZE, sent_at=1.95, in_flight=5 * SIZE)
    after = state(controller)
    controller.on_spurious_loss(2.05, SIZE, lost_at=1.0)
    assert state(controller) == after


@LOSS_BASED
def test_congestion_marks_stay_a_reason(make: CongestionFactory) -> None:
    controller = grown(make)
    controller.on_lost(1.0, SIZE, sent_at=0.95, in_flight=5 * SIZE)
    controller.on_ecn_ce(1.01, sent_at=0.96)
    after = state(controller)
    controller.on_spurious_loss(1.05, SIZE, lost_at=1.0)
    assert state(controller) == after


@LOSS_BASED
def test_a_window_that_has_outgrown_the_old_one_stays(make: CongestionFactory) -> None:
    controller = grown(make)
    controller.on_lost(1.0, SIZE, sent_at=0.95, in_flight=5 * SIZE)
    for turn in range(20, 120):
        controller.on_sent(turn / 10, controller.window, controller.window)
        controller.on_acked(turn / 10 + 0.1, controller.window, sent_at=turn / 10, in_flight=0, rtt=RTT)
    after = state(controller)
    controller.on_spurious_loss(13.0, SIZE, lost_at=1.0)
    assert state(controller) == after


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["ack", "lose", "late", "mark"]), st.integers(1, 10)), max_size=40))
def test_undoing_never_gives_more_than_there_was(happenings: list[tuple[str, int]]) -> None:
    for make in (NewReno, Cubic):
        controller, now = make(SIZE), 0.0
        most = controller.exact_window
        lost: list[tuple[float, int]] = []
        for what, count in happenings:
            now += 0.06
            if what == "ack":
                controller.on_sent(now - 0.05, controller.window, controller.window)
                controller.on_acked(now, count * SIZE, sent_at=now - 0.05, in_flight=0, rtt=RTT)
            elif what == "lose":
                controller.on_lost(now, count * SIZE, sent_at=now - 0.05, in_flight=0)
                lost.append((now, count * SIZE))
            elif what == "mark":
                controller.on_ecn_ce(now, sent_at=now - 0.05)
            elif lost:
                lost_at, size = lost.pop()
                controller.on_spurious_loss(now, size, lost_at=lost_at)
                assert controller.exact_window <= most
            most = max(most, controller.exact_window)
            assert controller.exact_window >= minimum_window(SIZE)


def test_bbr_does_not_hold_late_packets_against_the_path() -> None:
    controller, untouched = Bbr(SIZE), Bbr(SIZE)
    controller.on_lost(1.0, 5 * SIZE, sent_at=0.9, in_flight=0)
    assert controller != untouched
    controller.on_spurious_loss(1.1, 5 * SIZE, lost_at=1.0)
    assert controller == untouched


# The whole


def test_recovery_notices_that_a_lost_packet_was_late() -> None:
    stage = Stage()
    window = stage.path.congestion.window
    stage.send(10)
    stage.now += 0.1
    stage.ack((1, 10))
    assert stage.recovery.lost_packets == 1
    assert stage.path.congestion.window < window
    stage.now += 0.01
    assert stage.ack((0, 10)) == 0
    assert stage.recovery.late_packets == 1
    assert stage.path.congestion.window == window
    assert stage.path.patience.packets == 10
    assert stage.ack((0, 10)) == 0
    assert stage.recovery.late_packets == 1, "it is late only once"


@pytest.mark.parametrize("congestion", [NewReno, Cubic])
def test_reordering_costs_no_throughput(congestion: CongestionFactory) -> None:
    """Some packets take up to 2.5 times as long as others; without patience the window would stay near the minimum."""
    config = QuicConfig(congestion=congestion, path_mtu_discovery=False)
    pair = Pair(config=config, link=Link(delay=0.02, reorder=0.02), seed=3)
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    data, begin, position = random.Random(1).randbytes(2_000_000), pair.now, 0
    while position < len(data):
        piece = data[position : position + 60_000]
        position += client.write(stream, piece, fin=position + len(piece) == len(data))
        pair.run(seconds=0.001)
    pair.run(lambda: (server, stream) in pair.server.finished)
    assert pair.server.received[server, stream] == data
    assert client.stats.packets_late > 0.9 * client.stats.packets_lost
    assert client.stats.congestion_window > 100_000
    assert pair.now - begin < 1.5
