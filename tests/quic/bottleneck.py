"""A sender with a congestion controller in front of one bottleneck, simulated packet by packet."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque

import attrs

from a2al_trio.quic.congestion import CongestionController
from a2al_trio.quic.pacing import Pacer

SIZE = 1200


@attrs.frozen
class Rtt:
    latest: float
    smoothed: float
    minimum: float


@attrs.define
class Outcome:
    goodput: float
    """Delivered bytes per second."""
    lost: int
    sent: int
    peak_queue: float
    """Longest time a packet waited in the bottleneck, in seconds."""


def run_transfer(
    controller: CongestionController,
    *,
    rate: float,
    rtt: float,
    queue: int,
    seconds: float,
    loss: float = 0.0,
    seed: int = 1,
) -> Outcome:
    """Send as much as the controller allows for `seconds` of virtual time."""
    chance = random.Random(seed)
    order = itertools.count()
    happenings: list[tuple[float, int, str, float, int]] = []
    pacer = Pacer(SIZE)
    now = link_free_at = smoothed = peak = 0.0
    minimum = float("inf")
    in_flight = sent = lost = delivered = 0
    waiting: deque[tuple[float, int]] = deque()
    wake_at = -1.0
    while now < seconds:
        budget = pacer.budget(now, controller.pacing_rate(smoothed or 0.1))
        burst = max(0, min(budget, controller.window - in_flight)) // SIZE
        if burst:
            pacer.spend(burst * SIZE)
            in_flight += burst * SIZE
            sent += burst
            controller.on_sent(now, burst * SIZE, in_flight)
            for _ in range(burst):
                backlog = max(0.0, link_free_at - now)
                if backlog * rate > queue or chance.random() < loss:
                    # Noticed a round trip later, as three later acknowledgements would.
                    heapq.heappush(happenings, (now + rtt * 1.2 + backlog, next(order), "lost", now, SIZE))
                    continue
                peak = max(peak, backlog)
                link_free_at = now + backlog + SIZE / rate
                heapq.heappush(happenings, (link_free_at + rtt, next(order), "acked", now, SIZE))
        elif controller.window - in_flight >= SIZE and wake_at <= now:
            wake_at = pacer.ready_at(now, controller.pacing_rate(smoothed or 0.1))
            heapq.heappush(happenings, (wake_at, next(order), "paced", now, 0))
        if not happenings:
            break
        now, _, what, sent_at, size = heapq.heappop(happenings)
        in_flight -= size
        if what == "acked":
            latest = now - sent_at
            minimum = min(minimum, latest)
            smoothed = latest if not smoothed else smoothed * 7 / 8 + latest / 8
            delivered += size
            controller.on_acked(now, size, sent_at=sent_at, in_flight=in_flight, rtt=Rtt(latest, smoothed, minimum))
        elif what == "lost":
            lost += 1
            controller.on_lost(now, size, sent_at=sent_at, in_flight=in_flight)
    assert not waiting
    return Outcome(delivered / seconds, lost, sent, peak)
