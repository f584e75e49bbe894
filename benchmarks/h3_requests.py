"""HTTP/3 between two processes on loopback: small requests on one connection, and one large response."""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import run_pair

__all__ = ["BENCHMARK"]

MODULES = {OURS: "benchmarks.workers.h3_ours", "aioquic": "benchmarks.workers.h3_aioquic"}
COUNTS = {OURS: {1: 4_000, 16: 20_000}, "aioquic": {1: 2_400, 16: 4_000}}
SIZES = {OURS: 100_000_000, "aioquic": 20_000_000}
"""Enough for each contender to run for about a second."""


def measure_contender(contender: str) -> dict[str, float]:
    """One request at a time, sixteen at once, and one response that is large."""
    figures = {}
    size = SIZES[contender]
    for in_flight, count in COUNTS[contender].items():
        cost = run_pair(contender, "requests", modules=MODULES, count=count, size=64, concurrency=in_flight)
        figures[f"requests_{in_flight}_per_s"] = count / cost["wall"]
        figures[f"requests_{in_flight}_client_cpu_us"] = cost["client_cpu"] / count * 1e6
        figures[f"requests_{in_flight}_server_cpu_us"] = cost["server_cpu"] / count * 1e6
    for label, datagram in (("equal", 1280), ("shipped", 0)):
        cost = run_pair(contender, "download", modules=MODULES, count=1, size=size, datagram=datagram)
        figures[f"{label}_download_mb_s"] = size / cost["wall"] / 1e6
    return figures


def measure() -> Measurement:
    """One round of both contenders."""
    return {contender: measure_contender(contender) for contender in MODULES}


BENCHMARK = Benchmark("h3_requests", "HTTP/3 requests per second, 1 and 16 in flight, and MB/s of a response", measure)
