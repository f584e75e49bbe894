"""Whether cost grows linearly: CPU per small request with more and more connections, or streams, open at once.

Each unit should cost no more among thousands than alone; `idle` is what 1,000 silent connections cost in a minute.
"""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import run_pair

__all__ = ["BENCHMARK"]

CONNECTIONS = (1, 10, 100, 1_000)
STREAMS = (1, 100, 10_000)
IDLE_S = 60


def measure() -> Measurement:
    """One round."""
    figures = {}
    for connections in CONNECTIONS:
        count = max(2_000, 16 * connections)
        idle = IDLE_S if connections == CONNECTIONS[-1] else 0
        cost = run_pair(OURS, "connections", count=count, streams=connections, idle=idle)
        for side in ("client", "server"):
            figures[f"request_{connections}_connections_{side}_us"] = cost[f"{side}_cpu"] / count * 1e6
            if idle:
                figures[f"idle_{connections}_connections_{side}_percent_cpu"] = (
                    cost[f"idle_{side}_cpu"] / cost["idle_wall"] * 100
                )
    for streams in STREAMS:
        count = max(2_000, 2 * streams)
        cost = run_pair(OURS, "requests", count=count, concurrency=streams)
        for side in ("client", "server"):
            figures[f"request_{streams}_streams_{side}_us"] = cost[f"{side}_cpu"] / count * 1e6
    return {OURS: figures}


BENCHMARK = Benchmark("quic_scale", "CPU per request among 1 to 1,000 connections, 1 to 10,000 streams", measure)
