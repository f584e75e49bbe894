"""Budgets: what one network may cause, and who is served when."""

from __future__ import annotations

from a2al_trio.dht.budget import FairQueue, RequestLimiter, TokenBuckets, WindowBudget
from a2al_trio.dht.config import RequestBudget


def test_a_network_has_a_burst_and_a_rate() -> None:
    limiter = RequestLimiter(RequestBudget(rate=10, burst=5))
    assert sum(limiter.admit(f"8.8.8.{number}", 0.0) for number in range(20)) == 5
    assert limiter.admit("8.8.9.1", 0.0)
    assert sum(limiter.admit("8.8.8.1", 1.0) for _ in range(20)) == 5
    assert limiter.refused == 30
    assert all(limiter.admit("127.0.0.1", 0.0) for _ in range(100))


def test_token_buckets_are_bounded() -> None:
    buckets = TokenBuckets(1, 1, limit=100)
    for number in range(1000):
        assert buckets.take(number.to_bytes(4, "big"), 0.0)
    assert len(buckets) == 100


def test_a_window_is_not_extended_by_refusals() -> None:
    budget = WindowBudget(3, 10.0)
    assert [budget.take("a", at) for at in (0, 1, 2, 3, 9.9)] == [True, True, True, False, False]
    assert budget.take("a", 10.0)


def test_networks_take_turns_and_each_queue_is_bounded() -> None:
    queue = FairQueue(RequestBudget(queued_per_source=4, queued=6))
    served: list[str] = []
    for number in range(10):
        queue.add("8.8.8.8", lambda _now, number=number: served.append(f"flood{number}"))  # type: ignore[misc]
    for host in ("9.9.9.9", "7.7.7.7", "6.6.6.6"):
        queue.add(host, lambda _now, host=host: served.append(host))  # type: ignore[misc]
    assert len(queue) == 6
    assert queue.dropped == 7
    queue.serve(0.0, 3)
    assert served == ["flood0", "9.9.9.9", "7.7.7.7"]
    queue.serve(0.0, 100)
    assert served[3:] == ["flood1", "flood2", "flood3"]
    assert not len(queue)
