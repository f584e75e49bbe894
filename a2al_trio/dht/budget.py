"""Bounds on the work one network can cause us (spec 03 §20.14).

A token bucket per network decides before anything is parsed or verified; what passes is served in turn, one request
per network and round, so that a flood delays itself and nobody else. A second bucket per network limits the bytes
that may go to addresses nobody has proven yet, beyond three times what they sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import attrs

from a2al_trio.dht.addresses import is_exempt, network_of
from a2al_trio.dht.config import RequestBudget

__all__ = ["FairQueue", "RequestLimiter", "TokenBuckets", "WindowBudget"]

NETWORKS_REMEMBERED = 16384


@attrs.define(eq=False)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets:
    """A token bucket per name, the least recently used forgotten first."""

    def __init__(self, rate: float, burst: float, *, limit: int = NETWORKS_REMEMBERED) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: bytes, now: float, amount: float = 1.0) -> bool:
        """Whether that many tokens were there to take."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, now)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._rate)
            bucket.filled_at = now
        if bucket.tokens < amount:
            return False
        bucket.tokens -= amount
        return True


class WindowBudget:
    """At most `limit` uses per name in a window that starts with the first and is not extended (spec 03 §8.5)."""

    def __init__(self, limit: int, window: float, *, remembered: int = 4096) -> None:
        self._limit = limit
        self._window = window
        self._remembered = remembered
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, name: str, now: float) -> bool:
        """Whether one more use is allowed."""
        started, used = self._used.get(name, (now, 0))
        if now - started >= self._window:
            started, used = now, 0
            self._used.pop(name, None)
        if used >= self._limit:
            return False
        self._used[name] = (started, used + 1)
        if len(self._used) > self._remembered:
            self._used.popitem(last=False)
        return True


class RequestLimiter:
    """Decides whether a datagram from a host is worth looking at."""

    def __init__(self, budget: RequestBudget) -> None:
        self._exempt = budget.exempt
        self._requests = TokenBuckets(budget.rate, budget.burst)
        self._bytes = TokenBuckets(budget.unproven_bytes, 4 * budget.unproven_bytes)
        self.refused = 0

    def admit(self, host: str, now: float) -> bool:
        """Whether the host's network has a request left."""
        if is_exempt(host, self._exempt) or self._requests.take(network_of(host), now):
            return True
        self.refused += 1
        return False

    def admit_bytes(self, host: str, now: float, extra: int) -> bool:
        """Whether that many bytes beyond three times the request may go to an unproven address."""
        return is_exempt(host, self._exempt) or self._bytes.take(network_of(host), now, extra)


class FairQueue:
    """Work waiting by network, served round robin, bounded for each and in total."""

    def __init__(self, budget: RequestBudget) -> None:
        self._per_source = budget.queued_per_source
        self._total = budget.queued
        self._sources: OrderedDict[bytes, deque[Callable[[float], None]]] = OrderedDict()
        self._length = 0
        self.dropped = 0

    def __len__(self) -> int:
        return self._length

    def add(self, host: str, work: Callable[[float], None]) -> None:
        """Queue work for a host's network, or drop it if there is too much."""
        network = network_of(host)
        waiting = self._sources.get(network)
        if self._length >= self._total or (waiting is not None and len(waiting) >= self._per_source):
            self.dropped += 1
            return
        if waiting is None:
            waiting = self._sources[network] = deque()
        waiting.append(work)
        self._length += 1

    def serve(self, now: float, limit: int) -> None:
        """Do at most `limit` pieces of work, one per network and round."""
        for _ in range(min(limit, self._length)):
            network, waiting = self._sources.popitem(last=False)
            work = waiting.popleft()
            self._length -= 1
            if waiting:
                self._sources[network] = waiting
            work(now)
