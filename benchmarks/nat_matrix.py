"""Who meets whom from behind which NAT, how, and how fast: the whole matrix in a lab of network namespaces.

40 ms between any two machines and back. Every attempt is made in a fresh lab, between two hosts that have never sent
each other anything (cold), and then once more (warm). Needs root on Linux, the NAT lab, and for `--turn` coturn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from a2al_trio.errors import A2alError, ConnectError, ResolveError
from a2al_trio.host import AgentConnection, Host
from a2al_trio.identity import Address, Identity
from a2al_trio.net.address import SocketAddress
from benchmarks.framework import OURS, Benchmark, Figures, Measurement
from tests.interop.nat_lab import POOL, NatLab, load_nat_lab
from tests.interop.nat_world import NatWorld, open_nat_world

__all__ = ["BENCHMARK"]

KINDS = ("open", "full_cone", "restricted", "port_restricted", "linux", "symmetric", "udp_blocked")
PATIENCE = 65.0
"""Seconds for an attempt: the reference gives up after 60."""


@attrs.frozen
class Outcome:
    """One attempt; `seconds` is None if they did not meet, `path` then says why."""

    path: str
    seconds: float | None = None
    resolve: float | None = None
    warm: float | None = None
    gave_up: float | None = None

    @property
    def way(self) -> str:
        """The first word of the path: direct, ICE, relayed, or failed."""
        return "failed" if self.seconds is None else self.path.split()[0]


async def close_soon(connection: AgentConnection) -> None:
    """Serve nothing, but as long as the caller wants."""
    await connection.wait_closed()


async def ours_to(world: NatWorld, caller: Host, callee: Address) -> Outcome:
    """One of ours calls."""
    began = trio.current_time()
    try:
        record = await caller.resolve(callee)
    except ResolveError as error:
        return Outcome(str(error), gave_up=trio.current_time() - began)
    resolved = trio.current_time()
    try:
        connection = await caller.open_connection(callee, record=record)
    except ConnectError as error:
        return Outcome(str(error), resolve=resolved - began, gave_up=trio.current_time() - resolved)
    connected, path = trio.current_time(), connection.path
    await connection.aclose()
    await trio.sleep(0.2)
    again = trio.current_time()
    await (await caller.open_connection(callee, record=record)).aclose()
    return Outcome(path, connected - resolved, resolved - began, trio.current_time() - again)


async def ours_ours(world: NatWorld) -> Outcome:
    """Ours calls ours."""
    async with world.host("a") as a, world.host("b") as b, trio.open_nursery() as nursery:
        await nursery.start(b.serve, close_soon)
        world.let_them_meet()
        outcome = await ours_to(world, a, b.address)
        nursery.cancel_scope.cancel()
    return outcome


async def ours_reference(world: NatWorld, release: str) -> Outcome:
    """Ours calls the reference."""
    async with world.host("a") as a, world.reference("b", release) as b:
        agent = await b.add_agent()
        await world.wait_published(agent.aid)
        world.let_them_meet()
        return await ours_to(world, a, Address.parse(agent.aid))


async def reference_ours(world: NatWorld, release: str) -> Outcome:
    """The reference calls ours."""
    async with world.host("b") as b, world.reference("a", release) as a, trio.open_nursery() as nursery:
        caller, agent = await a.add_agent(), Identity.generate(os.urandom)
        b.register_agent(agent)
        await b.publish()
        paths: list[str] = []

        async def serve(connection: AgentConnection) -> None:
            paths.append(connection.path)
            await connection.wait_closed()

        await nursery.start(b.serve, serve)
        world.let_them_meet()
        began = trio.current_time()
        answer = await a.post_any(f"/connect/{agent.address}", {"local_aid": caller.aid})
        seconds = trio.current_time() - began
        nursery.cancel_scope.cancel()
    if answer.is_success:
        return Outcome(paths[0] if paths else "ICE", seconds)
    return Outcome(answer.text, gave_up=seconds)


async def reference_reference(world: NatWorld, release: str) -> Outcome:
    """The reference calls its like."""
    async with world.reference("b", release) as b, world.reference("a", release) as a:
        caller, agent = await a.add_agent(), await b.add_agent(SocketAddress("127.0.0.1", 9))
        await world.wait_published(agent.aid)
        world.let_them_meet()
        began = trio.current_time()
        answer = await a.post_any(f"/connect/{agent.aid}", {"local_aid": caller.aid})
        seconds = trio.current_time() - began
    return Outcome("ICE", seconds) if answer.is_success else Outcome(answer.text, gave_up=seconds)


CONTENDERS: Mapping[str, Callable[[NatWorld], Awaitable[Outcome]]] = {
    OURS: ours_ours,
    "ours_to_0.2.0": partial(ours_reference, release="0.2.0"),
    "ours_to_newest": partial(ours_reference, release="newest"),
    "0.2.0_to_ours": partial(reference_ours, release="0.2.0"),
    "newest_to_ours": partial(reference_ours, release="newest"),
    "0.2.0": partial(reference_reference, release="0.2.0"),
    "newest": partial(reference_reference, release="newest"),
}


def attempt(contender: str, caller: str, callee: str, *, turn: bool, loss: float) -> Outcome:
    """One attempt in a lab of its own."""

    def open_lab(**hosts: object) -> contextlib.AbstractContextManager[NatLab]:
        lab: contextlib.AbstractContextManager[NatLab] = load_nat_lab().Lab({"hosts": hosts, "pool": list(POOL)})
        return lab

    async def run(directory: Path) -> Outcome:
        with trio.move_on_after(PATIENCE):
            async with open_nat_world(open_lab, directory, caller, callee, turn=turn, loss=loss) as world:
                return await CONTENDERS[contender](world)
        return Outcome("the attempt was given up", gave_up=PATIENCE)

    # What the daemons log goes nowhere; only the outcome counts.
    with (
        tempfile.TemporaryDirectory() as directory,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        try:
            return trio.run(run, Path(directory))
        except A2alError as error:
            return Outcome(f"{type(error).__name__}: {error}")
        except pytest.skip.Exception as error:
            raise SystemExit(f"nat_matrix cannot run here: {error}") from None


@attrs.define
class Matrix:
    """All outcomes of a run, and what is made of them."""

    outcomes: dict[tuple[str, str, str], list[Outcome]] = attrs.field(factory=dict)

    def figures(self, contender: str) -> Figures:
        """Medians over all pairs by the way they met, and of each pair."""
        mine = {pair: found for (who, *pair_list), found in self.outcomes.items() if who == contender
                for pair in [tuple(pair_list)]}  # fmt: skip
        every = [outcome for found in mine.values() for outcome in found]
        figures: dict[str, float] = {}
        for way in ("direct", "ICE", "relayed"):
            _put_median(figures, f"{way.lower()}_s", (each.seconds for each in every if each.way == way))
        _put_median(figures, "warm_s", (each.warm for each in every))
        _put_median(figures, "resolve_s", (each.resolve for each in every))
        _put_median(figures, "giving_up_s", (each.gave_up for each in every))
        for (caller, callee), found in mine.items():
            _put_median(figures, f"{caller}_to_{callee}_s", (each.seconds for each in found))
        return figures

    def notes(self) -> Mapping[str, object]:
        """How often each pair met and how, and why not."""
        notes: dict[str, object] = {}
        for (contender, caller, callee), found in self.outcomes.items():
            met = sum(outcome.seconds is not None for outcome in found)
            ways = sorted({outcome.way for outcome in found})
            reason = next((f": {outcome.path}" for outcome in found if outcome.seconds is None), "")
            notes[f"{contender} {caller} to {callee}"] = f"{met} of {len(found)} {'/'.join(ways)}{reason}"
        return notes

    def as_svg(self, contender: str) -> str:
        """A picture: rows call columns; green direct, blue ICE, amber relayed, red not at all."""
        colours = {"direct": "#7bc77e", "ICE": "#7ba7d9", "relayed": "#e8b960", "failed": "#d97b7b"}
        cells = []
        for row, caller in enumerate(KINDS):
            cells.append(_text(5, 60 + 40 * row, caller))
            cells.append(_text(130 + 80 * row, 25, caller))
            for column, callee in enumerate(KINDS):
                found = self.outcomes.get((contender, caller, callee))
                if found:
                    x, y = 120 + 80 * column, 35 + 40 * row
                    seconds = [outcome.seconds for outcome in found if outcome.seconds is not None]
                    label = f"{statistics.median(seconds):.2f} s" if seconds else "-"
                    fill = colours[max((outcome.way for outcome in found), key=list(colours).index)]
                    cells.append(f'<rect x="{x}" y="{y}" width="78" height="38" fill="{fill}"/>')
                    cells.append(_text(x + 12, y + 25, label))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="690" height="325" font-family="sans-serif" '
            f'font-size="11">{"".join(cells)}</svg>\n'
        )


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{text}</text>'


def _put_median(figures: dict[str, float], name: str, values: Iterable[float | None]) -> None:
    known = [value for value in values if value is not None]
    if known:
        figures[name] = statistics.median(known)


MATRIX = Matrix()


def measure(arguments: argparse.Namespace) -> Measurement:
    """Make all attempts asked for."""
    pairs = [(caller, callee) for caller in arguments.callers for callee in arguments.callees]
    for contender in arguments.contenders:
        for caller, callee in pairs:
            for _ in range(arguments.runs):
                outcome = attempt(contender, caller, callee, turn=arguments.turn, loss=arguments.loss)
                MATRIX.outcomes.setdefault((contender, caller, callee), []).append(outcome)
    if arguments.plot:
        arguments.plot.write_text(MATRIX.as_svg(arguments.contenders[0]))
    return {contender: MATRIX.figures(contender) for contender in arguments.contenders}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="attempts of each pair")
    parser.add_argument("--callers", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--callees", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[OURS])
    parser.add_argument("--turn", action="store_true", help="give our hosts a TURN server")
    parser.add_argument("--loss", type=float, default=0.0, help="probability of losing a packet on each link")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the matrix of the first contender")


def configure(arguments: argparse.Namespace) -> Callable[[], Measurement]:
    """Measure what the options ask for."""
    return partial(measure, arguments)


BENCHMARK = Benchmark(
    "nat_matrix",
    "who meets whom from behind which NAT, and how fast",
    partial(measure, argparse.Namespace(runs=1, callers=KINDS, callees=KINDS, contenders=[OURS], turn=False,
                                        loss=0.0, plot=None)),
    rounds=1,
    notes=MATRIX.notes,
    add_options=add_options,
    configure=configure,
)  # fmt: skip
