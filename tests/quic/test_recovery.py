"""Loss recovery on runs, against a naive model that knows every packet."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.congestion_reno import NewReno
from a2al_trio.quic.errors import QuicTransportError
from a2al_trio.quic.paths import Path, PathSet
from a2al_trio.quic.recovery import LossRecovery, RttEstimator, SentRun
from a2al_trio.quic.spaces import PacketSpace
from a2al_trio.quic.tls import Level

from .tls_support import drbg

SIZE = 1000


@attrs.define
class Half:
    """Stands in for a SendHalf: notes which bytes arrived or got lost."""

    acked: list[int] = attrs.field(factory=list)
    lost: list[int] = attrs.field(factory=list)

    def on_range_acked(self, start: int, stop: int, *, fin: bool = False) -> None:
        self.acked += range(start // 100, stop // 100)

    def on_range_lost(self, start: int, stop: int, *, fin: bool = False) -> None:
        self.lost += range(start // 100, stop // 100)


@attrs.define
class Item:
    """Stands in for a tracked frame."""

    acked: int = 0
    lost: int = 0

    def on_acked(self) -> None:
        self.acked += 1

    def on_lost(self) -> None:
        self.lost += 1


class Stage:
    """One application space with its recovery, confirmed and ready to send."""

    def __init__(self) -> None:
        self.spaces = tuple(
            PacketSpace(level, is_application=level is Level.ONE_RTT, max_ack_delay=0.025)
            for level in (Level.INITIAL, Level.HANDSHAKE, Level.ONE_RTT)
        )
        self.space = self.spaces[2]
        self.recovery = LossRecovery(self.spaces, is_client=True)
        self.recovery.handshake_confirmed = self.recovery.peer_validated_address = True
        config = QuicConfig(congestion=NewReno)
        self.path: Path = PathSet(config, drbg("paths"), SocketAddress("10.0.0.1", 1), None).current
        self.path.validated = True
        self.half = Half()
        self.now = 10.0

    def send(self, count: int) -> None:
        """Send a run of `count` packets, each with 100 bytes of the stream."""
        first = self.space.next_number
        self.space.next_number += count
        self.space.sent.append(
            SentRun(
                first, first + count - 1, self.now, SIZE, self.path,
                stream=self.half, offset=first * 100, length=100,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        self.path.in_flight += count * SIZE
        self.space.last_eliciting_at = self.now

    def send_item(self) -> Item:
        """Send a single packet with a tracked frame."""
        item, number = Item(), self.space.take_number()
        self.space.sent.append(SentRun(number, number, self.now, SIZE, self.path, contents=[item]))
        self.path.in_flight += SIZE
        self.space.last_eliciting_at = self.now
        return item

    def ack(self, *ranges: tuple[int, int]) -> int:
        return self.recovery.on_ack(self.space, ranges, ack_delay=0.0, now=self.now, path=self.path).packets


def test_one_ack_for_a_whole_run() -> None:
    stage = Stage()
    stage.send(40)
    stage.now += 0.05
    assert stage.ack((0, 40)) == 40
    assert stage.half.acked == list(range(40))
    assert (stage.path.in_flight, stage.space.sent) == (0, [])
    assert stage.path.rtt.latest == pytest.approx(0.05)
    assert stage.recovery.next_timeout(stage.path) is None


def test_a_gap_splits_the_run_and_is_lost_by_number() -> None:
    stage = Stage()
    stage.send(40)
    stage.now += 0.05
    stage.ack((0, 10), (15, 40))
    assert stage.half.lost == [10, 11, 12, 13, 14]
    assert stage.recovery.lost_packets == 5
    assert stage.path.in_flight == 0
    assert stage.ack((0, 40)) == 0  # they are forgotten: the bytes travel again under other numbers


def test_the_newest_packets_are_lost_only_by_time() -> None:
    stage = Stage()
    stage.send(6)
    stage.now += 0.1
    stage.ack((0, 4), (5, 6))
    assert stage.half.lost == []
    stage.now = stage.recovery.next_timeout(stage.path) or 0.0
    assert stage.now == pytest.approx(10.0 + 0.1 * 9 / 8)
    stage.recovery.on_timeout(stage.path, stage.now)
    assert stage.half.lost == [4]
    assert stage.path.in_flight == 0


def test_a_probe_timeout_sends_the_oldest_again_without_calling_it_lost() -> None:
    stage = Stage()
    item = stage.send_item()
    stage.send(10)
    stage.now += 0.1
    stage.ack((5, 6))
    stage.half.lost.clear()
    stage.send(10)
    while not stage.space.probes:
        stage.now = stage.recovery.next_timeout(stage.path) or 0.0
        stage.recovery.on_timeout(stage.path, stage.now)
    assert stage.space.probes == 2
    in_flight = stage.path.in_flight
    assert in_flight > 0
    first = stage.recovery.next_timeout(stage.path)
    assert first is not None
    assert first - stage.now > 1.9 * stage.path.rtt.probe_interval  # backed off
    assert item.lost <= 2


def test_acknowledging_the_future_is_a_violation() -> None:
    stage = Stage()
    stage.send(3)
    with pytest.raises(QuicTransportError):
        stage.ack((0, 4))
    stage.space.skip_number()
    stage.send(1)
    with pytest.raises(QuicTransportError):
        stage.ack((0, 5))


def test_persistent_congestion_needs_a_long_unbroken_loss() -> None:
    stage = Stage()
    stage.send(1)
    stage.now += 0.05
    stage.ack((0, 1))
    for _ in range(20):
        stage.send(1)
        stage.now += 0.1
    stage.send(1)
    window = stage.path.congestion.window
    stage.now += 0.05
    stage.ack((21, 22))
    assert stage.path.congestion.window <= 3 * stage.path.mtu.size < window


def test_discarding_a_space_frees_its_bytes() -> None:
    stage = Stage()
    stage.send(3)
    stage.recovery.discard(stage.space)
    assert stage.path.in_flight == 0
    assert stage.recovery.next_timeout(stage.path) is None


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=10),
    st.lists(st.sets(st.integers(0, 130), max_size=60), max_size=6),
)
def test_every_packet_meets_one_fate(runs: list[int], acks: list[set[int]]) -> None:
    stage = Stage()
    for count in runs:
        stage.send(count)
        stage.now += 0.001
    total = sum(runs)
    acked, lost = set[int](), set[int]()
    for numbers in acks:
        stage.now += 0.02
        known = sorted(number for number in numbers if number < total)
        if not known:
            continue
        ranges: list[tuple[int, int]] = []
        for number in known:
            if ranges and ranges[-1][1] == number:
                ranges[-1] = (ranges[-1][0], number + 1)
            else:
                ranges.append((number, number + 1))
        expected = set(known) - acked - lost
        assert stage.ack(*ranges) == len(expected)
        acked |= expected
        assert set(stage.half.acked) == acked
        assert len(stage.half.acked) == len(acked)
        lost = set(stage.half.lost)
        assert len(stage.half.lost) == len(lost)
        assert not lost & acked
        largest = stage.space.largest_acked
        assert all(number in acked | lost for number in range(largest - stage.path.patience.packets + 1))
        assert stage.path.in_flight == SIZE * (total - len(acked) - len(lost))
    left = {number for run in stage.space.sent for number in range(run.first, run.last + 1)}
    assert left == set(range(total)) - acked - lost


def test_the_rtt_estimate_follows_rfc_9002() -> None:
    rtt = RttEstimator()
    rtt.update(0.1, 0.0)
    assert (rtt.smoothed, rtt.variation, rtt.minimum) == (0.1, 0.05, 0.1)
    rtt.update(0.2, 0.05)
    assert rtt.smoothed == pytest.approx(7 / 8 * 0.1 + 0.15 / 8)
    assert rtt.variation == pytest.approx(3 / 4 * 0.05 + 0.05 / 4)
    rtt.update(0.12, 0.05)  # the delay would take it below the minimum, so it is not subtracted
    assert rtt.latest == 0.12
    assert rtt.minimum == 0.1
