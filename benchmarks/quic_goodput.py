"""Goodput of QUIC between two processes on loopback: up and down, one stream and sixteen, and what it costs in CPU."""

from __future__ import annotations

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.pair import available_peers, run_pair

__all__ = ["BENCHMARK"]

EQUAL_DATAGRAM = 1280
"""UDP payload bytes at which contenders are compared like with like."""
SIZES = {OURS: 200_000_000, "aioquic": 20_000_000, "qh3": 60_000_000}
"""Bytes per transfer; enough for each contender to run for about a second."""


def measure_contender(contender: str) -> dict[str, float]:
    """One transfer of every kind."""
    figures = {}
    size = SIZES[contender]
    for label, datagram in (("equal", EQUAL_DATAGRAM), ("shipped", 0)):
        for task in ("upload", "download"):
            for streams in (1, 16):
                if streams == 16 and label == "shipped":
                    continue
                cost = run_pair(contender, task, size=size // streams, streams=streams, datagram=datagram)
                name = f"{label}_{task}_{streams}"
                figures[f"{name}_mb_s"] = size / cost["wall"] / 1e6
                sender, receiver = ("client", "server") if task == "upload" else ("server", "client")
                figures[f"{name}_sender_s_per_gb"] = cost[f"{sender}_cpu"] / size * 1e9
                figures[f"{name}_receiver_s_per_gb"] = cost[f"{receiver}_cpu"] / size * 1e9
    return figures


def measure() -> Measurement:
    """One round of all contenders."""
    return {contender: measure_contender(contender) for contender in (OURS, *available_peers())}


BENCHMARK = Benchmark("quic_goodput", "MB/s over loopback between two processes, and CPU seconds per GB", measure)
