"""Small requests on one connection, each on a stream of its own: 64 bytes there, 64 bytes back."""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import available_peers, run_pair

__all__ = ["BENCHMARK"]


def measure_contender(contender: str) -> dict[str, float]:
    """One request at a time, then sixteen at once."""
    figures = {}
    for in_flight, count in ((1, 1_600), (16, 8_000)):
        cost = run_pair(contender, "requests", count=count, concurrency=in_flight)
        figures[f"requests_{in_flight}_per_s"] = count / cost["wall"]
        figures[f"requests_{in_flight}_client_cpu_us"] = cost["client_cpu"] / count * 1e6
        figures[f"requests_{in_flight}_server_cpu_us"] = cost["server_cpu"] / count * 1e6
    return figures


def measure() -> Measurement:
    """One round of all contenders."""
    return {contender: measure_contender(contender) for contender in (OURS, *available_peers())}


BENCHMARK = Benchmark("quic_requests", "small requests per second, 1 and 16 in flight", measure)
