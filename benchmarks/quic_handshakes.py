"""Handshakes per second with Ed25519 certificates on both sides (qh3 cannot ask clients for theirs)."""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import available_peers, run_pair

__all__ = ["BENCHMARK"]

COUNTS = {OURS: 800, "aioquic": 320, "qh3": 480}
CONCURRENCY = 16


def measure_contender(contender: str) -> dict[str, float]:
    """Connect and close many times, sixteen at once, so that both processes are busy all the time."""
    count = COUNTS[contender]
    cost = run_pair(contender, "handshakes", count=count, concurrency=CONCURRENCY)
    return {
        "handshakes_per_s": count / cost["wall"],
        "client_cpu_ms": cost["client_cpu"] / count * 1e3,
        "server_cpu_ms": cost["server_cpu"] / count * 1e3,
    }


def measure() -> Measurement:
    """One round of all contenders."""
    return {contender: measure_contender(contender) for contender in (OURS, *available_peers())}


BENCHMARK = Benchmark("quic_handshakes", "mutually authenticated handshakes per second, 16 at once", measure)
