"""Who meets whom from behind which NAT, how, and how fast: the whole matrix in a lab of network namespaces.

40 ms between any two machines and back. Every attempt is made in a fresh lab, between two hosts that have never sent
each other anything (cold), and then once more (warm). Several labs are up side by side: an attempt is mostly waiting.
Needs root on Linux, the NAT lab, and for `--turn` coturn.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import attrs
import pytest

from benchmarks.framework import OURS, Benchmark, Measurement
from benchmarks.nat_attempt import RELEASES, make_attempt
from benchmarks.nat_outcomes import KINDS, Attempt, Matrix
from tests.interop.nat_lab import load_nat_lab
from tests.interop.nat_world import DELAY_MS
from tests.interop.reference_node import find_binary

__all__ = ["BENCHMARK"]

DIRECTIONS = {"calls": "ours_to_{}", "called": "{}_to_ours", "alone": "{}"}
"""Contenders by what we do: we call the reference, are called by it, or it calls its like."""
AGAINST = {"ours": OURS, "a2ald": RELEASES[0], "newest": RELEASES[1]}


@attrs.define
class Run:
    """What was last measured, for the notes of the report."""

    matrix: Matrix = attrs.field(factory=Matrix)

    def measure(self, arguments: argparse.Namespace) -> Measurement:
        """Make all attempts asked for that the results do not hold yet."""
        attempts = plan(arguments)
        _require_lab(attempts)
        matrix = Matrix(arguments.results)
        missing = matrix.missing(attempts, arguments.runs)
        make_all(missing, arguments.jobs, matrix)
        self.matrix = matrix.of(attempts)
        if arguments.plot:
            arguments.plot.write_text(self.matrix.as_svg())
        contenders = dict.fromkeys(attempt.contender for attempt in attempts)
        return {
            who: matrix.of(attempt for attempt in attempts if attempt.contender == who).figures() for who in contenders
        }

    def notes(self) -> Mapping[str, object]:
        """How each pair met, or why not."""
        return self.matrix.notes()


def plan(arguments: argparse.Namespace) -> list[Attempt]:
    """Every pair for every contender, contenders next to each other so that the machine's phases hit all alike."""
    pairs = arguments.pairs or list(
        itertools.product(arguments.callers or arguments.kinds, arguments.callees or arguments.kinds)
    )
    contenders: list[str] = []
    for who in arguments.against:
        names = [OURS] if who == "ours" else [DIRECTIONS[way].format(AGAINST[who]) for way in arguments.direction]
        contenders += names
    return [
        Attempt(contender, caller, callee, arguments.turn, arguments.loss / 100, arguments.delay)
        for caller, callee in pairs
        for contender in dict.fromkeys(contenders)
    ]


def make_all(attempts: Sequence[Attempt], jobs: int, matrix: Matrix) -> None:
    """Make the attempts, `jobs` at a time, and say on standard error how it goes."""
    if not attempts:
        return
    began = time.monotonic()
    broken: list[BaseException] = []
    # Fresh interpreters: a forked one would share the sockets and threads of this one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as workers:
        futures = {workers.submit(make_attempt, attempt): attempt for attempt in attempts}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                attempt = futures[future]
                if error := future.exception():
                    broken.append(error)
                    text = repr(error)
                else:
                    outcome = future.result()
                    matrix.add(attempt, outcome)
                    text = f"{outcome.seconds:.3f} s {outcome.path}" if outcome.seconds is not None else outcome.path
                progress = f"{number}/{len(attempts)} {time.monotonic() - began:.0f} s"
                who = f"{attempt.contender} {attempt.caller} to {attempt.callee}"
                print(f"{progress}: {who}: {text}", file=sys.stderr, flush=True)
        finally:
            workers.shutdown(cancel_futures=True)
    if broken:
        raise BaseExceptionGroup("attempts that could not be made at all; the others are in the results", broken)


def _require_lab(attempts: Sequence[Attempt]) -> None:
    """End with the reason where the lab or a peer is missing."""
    try:
        load_nat_lab()
        find_binary(RELEASES[0])  # the public node is always one
        for release in RELEASES:
            if any(release in attempt.contender for attempt in attempts):
                find_binary(release)
    except pytest.skip.Exception as error:
        raise SystemExit(f"nat_matrix cannot run here: {error}") from None
    if any(attempt.turn for attempt in attempts) and shutil.which("turnserver") is None:
        raise SystemExit("nat_matrix cannot run here: there is no turnserver; install coturn")


def pair(text: str) -> tuple[str, str]:
    """Read CALLER:CALLEE."""
    caller, _, callee = text.partition(":")
    if caller not in KINDS or callee not in KINDS:
        raise argparse.ArgumentTypeError(f"write CALLER:CALLEE, each one of {', '.join(KINDS)}")
    return caller, callee


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="attempts of each pair")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of NATs, on both sides")
    parser.add_argument("--callers", nargs="+", choices=KINDS, help="kinds of the calling side alone")
    parser.add_argument("--callees", nargs="+", choices=KINDS, help="kinds of the called side alone")
    parser.add_argument("--pairs", nargs="+", type=pair, metavar="CALLER:CALLEE", help="these pairs only")
    parser.add_argument(
        "--against", nargs="+", choices=AGAINST, default=["ours"],
        help="whom we call and are called by: ourselves, the reference 0.2.0 (a2ald), or its newest release",
    )  # fmt: skip
    parser.add_argument(
        "--direction", nargs="+", choices=DIRECTIONS, default=list(DIRECTIONS),
        help="with the reference: we call it, are called by it, or it calls its like (alone)",
    )  # fmt: skip
    parser.add_argument("--turn", action="store_true", help="give the machines a TURN server")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="on each link, each way")
    parser.add_argument(
        "--delay", type=float, default=DELAY_MS, metavar="MS", help=f"of each link, one way; default {DELAY_MS}"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="labs side by side; default one a processor"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE.jsonl", help="keep every outcome here, and go on where a cut run ended"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the matrix of each contender")


def configure(arguments: argparse.Namespace) -> Callable[[], Measurement]:
    """Measure what the options ask for."""
    return partial(RUN.measure, arguments)


def defaults() -> argparse.Namespace:
    """The options where none are given."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args([])


RUN = Run()
BENCHMARK = Benchmark(
    "nat_matrix",
    "who meets whom from behind which NAT, and how fast",
    partial(RUN.measure, defaults()),
    rounds=1,
    notes=RUN.notes,
    add_options=add_options,
    configure=configure,
)
