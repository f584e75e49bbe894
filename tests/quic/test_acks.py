"""When acknowledgements are due (RFC 9000 §13.2)."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.acks import PROMPT_DELAY, PROMPT_PACKETS, AckTracker

DELAY = 0.025
NEVER = float("inf")


def receive(tracker: AckTracker, first: int, now: float, *, last: int | None = None, ecn: int = 0) -> float:
    last = first if last is None else last
    tracker.on_received(first, last, eliciting=last - first + 1, ecn=ecn, now=now)
    return tracker.due_at


def test_every_second_packet_is_acknowledged_at_once() -> None:
    tracker = AckTracker(DELAY)
    assert receive(tracker, 0, 1.0) == 1.0 + DELAY
    assert receive(tracker, 1, 1.01) == 1.01
    tracker.owe_nothing()
    assert tracker.due_at == NEVER
    assert receive(tracker, 2, 1.02, last=9) == 1.02, "a batch is several packets"


@pytest.mark.parametrize(("number", "ecn"), [(5, 0), (1, 3)])
def test_gaps_and_congestion_marks_are_told_at_once(number: int, ecn: int) -> None:
    tracker = AckTracker(DELAY)
    receive(tracker, 0, 1.0)
    tracker.owe_nothing()
    assert receive(tracker, number, 2.0, ecn=ecn) == 2.0


def test_after_a_gap_acknowledgements_are_hardly_held_back() -> None:
    tracker = AckTracker(DELAY)
    receive(tracker, 0, 0.0)
    receive(tracker, 2, 0.0)
    for number in range(3, 3 + PROMPT_PACKETS - 1):
        tracker.owe_nothing()
        assert receive(tracker, number, number) == pytest.approx(number + PROMPT_DELAY)
    tracker.owe_nothing()
    assert receive(tracker, 100, 200.0) == 200.0, "another gap"
    tracker.owe_nothing()
    receive(tracker, 101, 201.0, last=101 + PROMPT_PACKETS)
    tracker.owe_nothing()
    assert receive(tracker, 102 + PROMPT_PACKETS, 202.0) == 202.0 + DELAY, "long enough without one"


def test_what_is_not_eliciting_is_not_acknowledged() -> None:
    tracker = AckTracker(DELAY)
    tracker.on_received(0, 3, eliciting=0, ecn=0, now=1.0)
    assert tracker.due_at == NEVER
    assert not tracker.is_worth_adding(1.0)


@given(st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 4]), st.integers(0, 3), st.floats(0.0, 0.05)), max_size=90))
def test_packets_in_order_may_take_the_short_way(steps: list[tuple[int, int, float]]) -> None:
    usual, short = AckTracker(DELAY), AckTracker(DELAY)
    now, number = 1.0, -1
    for ahead, ecn, pause in steps:
        now, number = now + pause, number + ahead
        usual.on_received(number, number, eliciting=1, ecn=ecn, now=now)
        if number == short.largest + 1:
            short.on_next(ecn, now)
        else:
            short.on_received(number, number, eliciting=1, ecn=ecn, now=now)
        assert list(usual.received) == list(short.received)
        ranges = attrs.filters.exclude(attrs.fields(AckTracker).received)
        assert attrs.asdict(usual, filter=ranges) == attrs.asdict(short, filter=ranges)
        if usual.due_at <= now:
            usual.on_ack_sent(now)
            short.on_ack_sent(now)
