from __future__ import annotations

import pytest

from a2al_trio.quic.congestion import CongestionController, CongestionFactory, initial_window, minimum_window
from a2al_trio.quic.congestion_bbr import Bbr
from a2al_trio.quic.congestion_cubic import Cubic
from a2al_trio.quic.congestion_reno import NewReno
from tests.quic.bottleneck import SIZE, Rtt, run_transfer

ALL = pytest.mark.parametrize("make", [NewReno, Cubic, Bbr])
LOSS_BASED = pytest.mark.parametrize("make", [NewReno, Cubic])
RTT = Rtt(0.1, 0.1, 0.1)


def acknowledge(controller: CongestionController, now: float, size: int, *, sent_at: float, fill: bool = True) -> None:
    if fill:
        controller.on_sent(sent_at, size, controller.window)
    controller.on_acked(now, size, sent_at=sent_at, in_flight=0, rtt=RTT)


@ALL
def test_starts_with_ten_datagrams(make: CongestionFactory) -> None:
    assert make(1200).window == 12_000
    assert make(9000).window == 18_000
    assert initial_window(1200) == 12_000


@LOSS_BASED
def test_slow_start_doubles_in_a_round_trip(make: CongestionFactory) -> None:
    controller = make(SIZE)
    acknowledge(controller, 0.1, 12_000, sent_at=0.0)
    assert controller.window == 24_000


@LOSS_BASED
def test_unused_window_does_not_grow(make: CongestionFactory) -> None:
    controller = make(SIZE)
    for turn in range(100):
        controller.on_sent(turn, SIZE, SIZE)
        controller.on_acked(turn + 0.1, SIZE, sent_at=turn, in_flight=0, rtt=RTT)
    assert controller.window == 12_000


@pytest.mark.parametrize(("make", "factor"), [(NewReno, 0.5), (Cubic, 0.7)])
def test_one_reduction_per_round_trip(make: CongestionFactory, factor: float) -> None:
    controller = make(SIZE)
    before = controller.window
    controller.on_lost(0.2, SIZE, sent_at=0.1, in_flight=0)
    controller.on_lost(0.25, SIZE, sent_at=0.15, in_flight=0)
    assert controller.window == int(before * factor)
    acknowledge(controller, 0.26, SIZE, sent_at=0.19)
    assert controller.window == int(before * factor), "packets sent before the loss was noticed grow nothing"
    controller.on_lost(0.4, SIZE, sent_at=0.3, in_flight=0)
    assert controller.exact_window == pytest.approx(before * factor * factor)  # type: ignore[attr-defined]


@LOSS_BASED
def test_congestion_marks_count_as_losses(make: CongestionFactory) -> None:
    marked, lossy = make(SIZE), make(SIZE)
    marked.on_ecn_ce(0.2, sent_at=0.1)
    lossy.on_lost(0.2, SIZE, sent_at=0.1, in_flight=0)
    assert marked.window == lossy.window


@LOSS_BASED
def test_persistent_congestion_falls_to_the_minimum_and_starts_slowly_again(make: CongestionFactory) -> None:
    controller = make(SIZE)
    controller.on_lost(0.2, SIZE, sent_at=0.1, in_flight=0)
    controller.on_persistent_congestion(0.2)
    assert controller.window == minimum_window(SIZE)
    acknowledge(controller, 0.3, SIZE, sent_at=0.21)
    assert controller.window == minimum_window(SIZE) + SIZE


@ALL
def test_a_larger_datagram_keeps_two_in_the_window(make: CongestionFactory) -> None:
    controller = make(1200)
    controller.on_persistent_congestion(0.0)
    controller.set_max_datagram_size(9000)
    assert controller.window >= 18_000


def test_cubic_returns_to_its_old_maximum_along_the_curve() -> None:
    controller = Cubic(SIZE)
    controller.exact_window = 1_000 * SIZE
    controller.on_lost(10.0, SIZE, sent_at=9.95, in_flight=0)
    # K = cbrt(300 / 0.4) = 9.09 s to get back (RFC 9438 §4.2).
    now = 10.0
    at: dict[int, int] = {}
    while now < 25:
        now += 0.1
        acknowledge(controller, now, controller.window, sent_at=now - 0.05)
        at[round(now)] = controller.window
    assert 0.9 < at[18] / (1_000 * SIZE) <= 1.0
    assert abs(at[19] / (1_000 * SIZE) - 1.0) < 0.01
    assert at[25] > 1_050 * SIZE


def test_slow_start_ends_when_the_round_trip_grows() -> None:
    controller = Cubic(SIZE)
    now = 0.0
    for turn in range(40):
        now += 0.1
        latest = 0.1 + 0.03 * max(0, turn - 3)
        for _ in range(10):
            controller.on_sent(now - 0.05, SIZE, controller.window)
            controller.on_acked(now, SIZE, sent_at=now - 0.05, in_flight=0, rtt=Rtt(latest, latest, 0.1))
    assert controller.slow_start_threshold is not None


@ALL
def test_fills_a_clean_link(make: CongestionFactory) -> None:
    rate, rtt = 2_000_000.0, 0.05
    outcome = run_transfer(make(SIZE), rate=rate, rtt=rtt, queue=int(rate * rtt), seconds=20)
    assert outcome.goodput > 0.85 * rate
    assert outcome.lost < 0.02 * outcome.sent


def test_bbr_keeps_the_queue_short() -> None:
    rate, rtt = 2_000_000.0, 0.05
    controller = Bbr(SIZE)
    outcome = run_transfer(controller, rate=rate, rtt=rtt, queue=int(10 * rate * rtt), seconds=20)
    assert outcome.goodput > 0.9 * rate
    assert controller.bandwidth == pytest.approx(rate, rel=0.1)
    assert controller.minimum_rtt < 1.2 * rtt


def test_bbr_carries_on_where_loss_is_random() -> None:
    rate, rtt = 2_000_000.0, 0.1
    figures = {
        make: run_transfer(make(SIZE), rate=rate, rtt=rtt, queue=int(rate * rtt), seconds=20, loss=0.05).goodput
        for make in (NewReno, Cubic, Bbr)
    }
    assert figures[Bbr] > 0.8 * rate
    assert figures[Cubic] >= 0.9 * figures[NewReno]
    assert figures[Bbr] > 3 * figures[Cubic]


def test_cubic_leaves_room_when_its_share_shrinks() -> None:
    # Losing again below the old maximum lowers the point the curve aims at (RFC 9438 §4.7).
    def window_after(losses: list[float]) -> int:
        controller = Cubic(SIZE)
        controller.exact_window = 1_000 * SIZE
        for at in losses:
            controller.on_lost(at, SIZE, sent_at=at - 0.05, in_flight=0)
        controller.exact_window = 500 * SIZE
        now = losses[-1]
        while now < losses[-1] + 8:
            now += 0.1
            acknowledge(controller, now, controller.window, sent_at=now - 0.05)
        return controller.window

    assert window_after([1.0, 2.0]) < window_after([2.0])


@pytest.mark.parametrize("make", [NewReno, Cubic])
def test_the_window_is_the_nearest_number_of_datagrams(make: type[NewReno | Cubic]) -> None:
    controller = make(SIZE)
    controller.exact_window = 5.4 * SIZE
    assert controller.window == 5 * SIZE
    controller.exact_window = 5.6 * SIZE
    assert controller.window == 6 * SIZE


def test_sending_slows_down_evenly_in_recovery() -> None:
    # PRR: seven datagrams leave for ten that arrive, and sending never stops (RFC 9937).
    controller = Cubic(SIZE)
    controller.exact_window = 100 * SIZE
    in_flight, longest_pause, pause, sent = 99 * SIZE, 0, 0, 0
    controller.on_lost(1.0, SIZE, sent_at=0.9, in_flight=in_flight)
    for arrival in range(99):
        in_flight -= SIZE
        controller.on_acked(1.0 + arrival / 1e4, SIZE, sent_at=0.91, in_flight=in_flight, rtt=RTT)
        pause += 1
        while in_flight + SIZE <= controller.window:
            in_flight += SIZE
            sent += 1
            controller.on_sent(1.0 + arrival / 1e4, SIZE, in_flight)
            longest_pause, pause = max(longest_pause, pause), 0
    assert longest_pause <= 2
    assert 69 <= sent <= 71
    assert in_flight == controller.window == 70 * SIZE
    acknowledge(controller, 1.1, SIZE, sent_at=1.05)
    assert controller.window == 70 * SIZE


def test_one_packet_leaves_at_once_when_a_loss_is_found() -> None:
    controller = Cubic(SIZE)
    controller.on_lost(1.0, SIZE, sent_at=0.9, in_flight=9 * SIZE)
    assert controller.window == 10 * SIZE, "RFC 9002 §7.3.2"


def test_cubic_grows_like_reno_once_it_is_back() -> None:
    # In the Reno-friendly region: 0.53 datagrams a round trip below the old window, one above it (RFC 9438 §4.3).
    controller = Cubic(SIZE)
    controller.exact_window = 6.0 * SIZE
    controller.on_lost(1.0, SIZE, sent_at=0.99, in_flight=5 * SIZE)
    now, grown, before = 1.01, [], controller.exact_window
    for _ in range(8):
        now += 0.01
        for _ in range(round(before)):
            controller.on_sent(now - 0.005, SIZE, controller.window)
            controller.on_acked(now, 1, sent_at=now - 0.005, in_flight=0, rtt=Rtt(0.01, 0.01, 0.01))
        grown.append((before, (controller.exact_window - before) / SIZE))
        before = controller.exact_window
    below = [growth for window, growth in grown if window < 5 * SIZE]
    above = [growth for window, growth in grown if window > 6 * SIZE]
    assert all(growth == pytest.approx(9 / 17, rel=0.1) for growth in below)
    assert above
    assert all(growth == pytest.approx(1.0, rel=0.1) for growth in above)


def test_reaches_what_theory_grants_at_heavy_random_loss() -> None:
    # Mathis et al. 1997: size / rtt * 1.22 / sqrt(loss).
    goodputs = [
        run_transfer(Cubic(SIZE), rate=2_500_000, rtt=0.1, queue=250_000, seconds=20, loss=0.05, seed=seed).goodput
        for seed in range(10)
    ]
    assert sum(goodputs) / 10 > 0.95 * SIZE / 0.1 * 1.22 / 0.05**0.5
