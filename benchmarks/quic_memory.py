"""Memory of an idle connection, by the growth of each process while hundreds of connections are opened."""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import available_peers, run_pair

__all__ = ["BENCHMARK"]

COUNT = 300


def measure_contender(contender: str) -> dict[str, float]:
    """KiB per connection on either side."""
    sizes = run_pair(contender, "memory", count=COUNT)
    return {"idle_client_kib": sizes["client_kib"], "idle_server_kib": sizes["server_kib"]}


def measure() -> Measurement:
    """One round of all contenders."""
    return {contender: measure_contender(contender) for contender in (OURS, *available_peers())}


BENCHMARK = Benchmark("quic_memory", "KiB per idle connection, each side", measure)
