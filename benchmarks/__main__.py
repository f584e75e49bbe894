"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME [--json] [--rounds N]` runs one."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys

import attrs

import benchmarks
from benchmarks.framework import Benchmark, run_benchmark

__all__ = ["main"]


def load_all() -> dict[str, Benchmark]:
    """Find the modules here that define a `BENCHMARK`."""
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if not module.ispkg and not module.name.startswith("_"):
            benchmark = getattr(importlib.import_module(f"benchmarks.{module.name}"), "BENCHMARK", None)
            if isinstance(benchmark, Benchmark):
                found[benchmark.name] = benchmark
    return dict(sorted(found.items()))


def main() -> None:
    """Run the command line."""
    known = load_all()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for benchmark in known.values():
        line = benchmark.about.replace("%", "%%")
        options = names.add_parser(benchmark.name, help=line, description=benchmark.about)
        options.add_argument("--json", action="store_true", help="print JSON instead of a table")
        options.add_argument("--rounds", type=int, default=None, metavar="N", help=f"default: {benchmark.rounds}")
        if benchmark.add_options is not None:
            benchmark.add_options(options)
    arguments = parser.parse_args()
    if arguments.name is None:
        for benchmark in known.values():
            print(f"{benchmark.name:20} {benchmark.about}")
        return
    chosen = known[arguments.name]
    if chosen.configure is not None:
        chosen = attrs.evolve(chosen, measure=chosen.configure(arguments))
    report = run_benchmark(chosen, rounds=arguments.rounds)
    if arguments.json:
        json.dump(report.as_dict(), sys.stdout, indent=2)
        print()
    else:
        print(report.as_table())


if __name__ == "__main__":
    main()
