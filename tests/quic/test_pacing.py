from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.pacing import Pacer


def test_the_first_burst_is_ten_datagrams() -> None:
    pacer = Pacer(1200)
    assert pacer.budget(0.0, 100_000.0) == 12_000
    pacer.spend(12_000)
    assert pacer.budget(0.0, 100_000.0) == 0


def test_a_fast_path_gets_bursts_of_two_milliseconds() -> None:
    assert Pacer(1200).budget(0.0, 100_000_000.0) == 200_000


def test_waking_up_at_ready_at_finds_a_budget() -> None:
    pacer = Pacer(1200)
    rate = 50_000.0
    now = 5.0
    pacer.spend(pacer.budget(now, rate))
    ready_at = pacer.ready_at(now, rate)
    assert ready_at > now
    assert pacer.budget(ready_at + 1e-9, rate) >= 2 * 1200


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(1200, 60_000)), max_size=200), st.floats(10_000, 1e8))
def test_never_exceeds_the_rate_by_more_than_a_burst(turns: list[tuple[float, int]], rate: float) -> None:
    pacer = Pacer(1200)
    now = sent = 0.0
    for pause, wanted in turns:
        now += pause
        size = min(pacer.budget(now, rate), wanted)
        pacer.spend(size)
        sent += size
    assert sent <= rate * now + max(12_000, rate * 0.002) + 1
