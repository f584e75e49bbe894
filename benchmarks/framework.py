"""How benchmarks are run and reported: interleaved rounds, medians, and peers in the same run on the same work.

A benchmark gives one function that measures every contender once. It is called several times, so that slow and fast
phases of the machine hit all contenders alike; each figure is the median of its rounds, and ratios are taken from those
medians. The unit at the end of a figure's name says which way is better.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

__all__ = ["OURS", "Benchmark", "Figures", "Measurement", "Report", "run_benchmark"]

OURS = "a2al_trio"
ROUNDS = 5
HIGHER_IS_BETTER = ("_per_s", "_mb_s", "_percent_of_link", "_percent_of_theory")
LOWER_IS_BETTER = ("_us", "_ms", "_s", "_s_per_gb", "_kib", "_bytes", "_percent_cpu")

Figures = Mapping[str, float]
"""Figures by name; the name ends in one of the units above."""
Measurement = Mapping[str, Figures]
"""One round: figures by contender; our own are under `OURS`."""


@attrs.frozen
class Benchmark:
    """One benchmark: its name, one line about it, and what measures every contender once."""

    name: str
    about: str
    measure: Callable[[], Measurement]
    rounds: int = ROUNDS
    notes: Callable[[], Mapping[str, object]] | None = None
    """More to put into the report, such as a profile."""
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds options of its own to the command line."""
    configure: Callable[[argparse.Namespace], Callable[[], Measurement]] | None = None
    """Turns those options into the function to use instead of `measure`."""


@attrs.frozen
class Report:
    """The medians of a run."""

    name: str
    machine: Mapping[str, object]
    figures: Figures
    peers: Mapping[str, Figures]
    spread: Mapping[str, Mapping[str, tuple[float, float]]]
    """Least and greatest value of each figure, by contender."""
    rounds: int
    notes: Mapping[str, object] = attrs.field(factory=dict)

    def ratios(self) -> dict[str, dict[str, float]]:
        """How many times better than each peer we are: above 1 is faster, smaller, cheaper."""
        found: dict[str, dict[str, float]] = {}
        for peer, figures in self.peers.items():
            shared = [name for name in figures if self.figures.get(name) and figures[name]]
            found[peer] = {name: _times_better(name, self.figures[name], figures[name]) for name in shared}
        return found

    def as_dict(self) -> dict[str, object]:
        """The report as it is written to JSON."""
        return {
            "name": self.name,
            "machine": self.machine,
            "rounds": self.rounds,
            "figures": self.figures,
            "peers": self.peers,
            "ratios": self.ratios(),
            "spread": self.spread,
            **({"notes": self.notes} if self.notes else {}),
        }

    def as_table(self) -> str:
        """The report for people."""
        ratios = self.ratios()
        contenders = [OURS, *self.peers]
        lines = [f"{self.name}: medians of {self.rounds} rounds", f"{'':32}" + "".join(f"{c:>22}" for c in contenders)]
        names = list(dict.fromkeys(name for figures in (self.figures, *self.peers.values()) for name in figures))
        for name in names:
            cells = [f"{_readable(self.figures.get(name)):>22}"]
            for peer, figures in self.peers.items():
                ratio = ratios[peer].get(name)
                text = _readable(figures.get(name)) + (f" ({ratio:.1f}x)" if ratio else "")
                cells.append(f"{text:>22}")
            lines.append(f"{name:32}" + "".join(cells))
        lines.extend(f"{name}: {note}" for name, note in self.notes.items())
        return "\n".join(lines)


def run_benchmark(benchmark: Benchmark, *, rounds: int | None = None) -> Report:
    """Measure all contenders `rounds` times and report the medians."""
    rounds = rounds or benchmark.rounds
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for contender, figures in benchmark.measure().items():
            for name, value in figures.items():
                samples.setdefault(contender, {}).setdefault(name, []).append(value)
    medians = {
        contender: {name: _rounded(statistics.median(values)) for name, values in figures.items()}
        for contender, figures in samples.items()
    }
    spread = {
        contender: {name: (_rounded(min(values)), _rounded(max(values))) for name, values in figures.items()}
        for contender, figures in samples.items()
    }
    return Report(
        name=benchmark.name,
        machine=describe_machine([contender for contender in samples if contender != OURS]),
        figures=medians.pop(OURS, {}),
        peers=medians,
        spread=spread,
        rounds=rounds,
        notes=benchmark.notes() if benchmark.notes else {},
    )


def describe_machine(peers: list[str]) -> dict[str, object]:
    """What the figures were measured on, with the versions of everything compared."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = {}
    for package in ("trio", "cryptography", *peers):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _times_better(name: str, ours: float, theirs: float) -> float:
    if name.endswith(HIGHER_IS_BETTER):
        return _rounded(ours / theirs)
    if name.endswith(LOWER_IS_BETTER):
        return _rounded(theirs / ours)
    raise ValueError(
        f"the figure {name!r} does not say its unit: end it in one of {HIGHER_IS_BETTER + LOWER_IS_BETTER}"
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _readable(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
