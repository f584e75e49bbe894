"""One attempt of the NAT matrix: a fresh lab, two machines in it that have never sent each other anything, one call."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from a2al_trio.errors import A2alError, ConnectError, ResolveError
from a2al_trio.host import AgentConnection, Host
from a2al_trio.identity import Address, Identity
from benchmarks.framework import OURS
from benchmarks.nat_outcomes import Attempt, Outcome
from tests.interop.nat_lab import POOL, NatLab, load_nat_lab
from tests.interop.nat_world import NatWorld, open_nat_world
from tests.interop.reference_node import ReferenceNode

__all__ = ["CONTENDERS", "RELEASES", "make_attempt"]

RELEASES = ("0.2.0", "newest")
"""Of the reference."""
PREPARATION = 60.0
"""Seconds until both have joined and published."""
PATIENCE = 65.0
"""Seconds for the call: the reference gives up after 60."""
PAUSE = 0.2
"""Seconds between the end of the first connection and the second."""


@attrs.define
class Progress:
    """How far an attempt has come, in case it comes no further, and since when (seconds of the trio clock)."""

    stage: str = "preparing: the lab"
    since: float = attrs.field(factory=trio.current_time)

    def reach(self, stage: str) -> float:
        """Begin the next stage; returns the time."""
        self.stage, self.since = stage, trio.current_time()
        return self.since


Call = Callable[[Progress], Awaitable[Outcome]]
"""What is measured, once both are ready."""


async def close_soon(connection: AgentConnection) -> None:
    """Serve nothing, but as long as the caller wants."""
    await connection.wait_closed()


async def call_from_ours(caller: Host, callee: Address, progress: Progress) -> Outcome:
    """One of ours calls, and then once more."""
    began = progress.reach("resolve")
    try:
        record = await caller.resolve(callee)
    except ResolveError as error:
        return Outcome(f"resolve: {error}", gave_up=trio.current_time() - began)
    resolved = progress.reach("connect")
    try:
        connection = await caller.open_connection(callee, record=record)
    except ConnectError as error:
        return Outcome(str(error), resolve=resolved - began, gave_up=trio.current_time() - resolved)
    connected, path = progress.reach("close"), connection.path
    await connection.aclose()
    await trio.sleep(PAUSE)
    again = progress.reach("connect again")
    try:
        await (await caller.open_connection(callee, record=record)).aclose()
    except ConnectError as error:
        return Outcome(path, connected - resolved, resolved - began, not_again=str(error))
    return Outcome(path, connected - resolved, resolved - began, trio.current_time() - again)


async def call_from_reference(
    caller: ReferenceNode, local: str, callee: str, paths: list[str], hang_up: Callable[[], None], progress: Progress
) -> Outcome:
    """The reference calls, and then once more; `paths` says what the callee saw, if it is ours."""
    began = progress.reach("resolve")
    answer = await caller.post_any(f"/resolve/{callee}")
    if not answer.is_success:
        return Outcome(f"resolve: {answer.text}", gave_up=trio.current_time() - began)
    resolved = progress.reach("connect")
    answer = await caller.post_any(f"/connect/{callee}", {"local_aid": local})
    connected = progress.reach("close")
    if not answer.is_success:
        return Outcome(answer.text, resolve=resolved - began, gave_up=connected - resolved)
    hang_up()
    await trio.sleep(PAUSE)
    again = progress.reach("connect again")
    answer = await caller.post_any(f"/connect/{callee}", {"local_aid": local})
    return Outcome(
        paths[0] if paths else "unknown",
        connected - resolved,
        resolved - began,
        warm=trio.current_time() - again if answer.is_success else None,
        not_again="" if answer.is_success else answer.text,
    )


@asynccontextmanager
async def ours_ours(world: NatWorld, progress: Progress) -> AsyncIterator[Call]:
    """Ours calls ours."""
    progress.reach("preparing: both join")
    async with world.hosts("a", "b") as (a, b), trio.open_nursery() as nursery:
        await nursery.start(b.serve, close_soon)
        yield partial(call_from_ours, a, b.address)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def ours_reference(world: NatWorld, progress: Progress, release: str) -> AsyncIterator[Call]:
    """Ours calls the reference."""
    progress.reach("preparing: both join")
    async with world.host("a") as a, world.reference("b", release) as b:
        progress.reach("preparing: the callee's record is published")
        with world.listen("b") as service:
            agent = await b.add_agent(service)
            await world.wait_published(agent.aid)
            yield partial(call_from_ours, a, Address.parse(agent.aid))


@asynccontextmanager
async def reference_ours(world: NatWorld, progress: Progress, release: str) -> AsyncIterator[Call]:
    """The reference calls ours."""
    progress.reach("preparing: both join")
    async with world.host("b") as b, world.reference("a", release) as a, trio.open_nursery() as nursery:
        caller, agent = await a.add_agent(), Identity.generate(os.urandom)
        b.register_agent(agent)
        if world.joins("b"):
            progress.reach("preparing: the callee's record is published")
            await b.publish()
        connections: list[AgentConnection] = []
        paths: list[str] = []

        async def serve(connection: AgentConnection) -> None:
            connections.append(connection)
            paths.append(connection.path)
            await connection.wait_closed()

        def hang_up() -> None:
            for connection in connections:
                connection.close()

        await nursery.start(b.serve, serve)
        yield partial(call_from_reference, a, caller.aid, str(agent.address), paths, hang_up)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def reference_reference(world: NatWorld, progress: Progress, release: str) -> AsyncIterator[Call]:
    """The reference calls its like."""
    progress.reach("preparing: both join")
    async with world.reference("b", release) as b, world.reference("a", release) as a:
        progress.reach("preparing: the callee's record is published")
        caller = await a.add_agent()
        with world.listen("b") as service:
            agent = await b.add_agent(service)
            await world.wait_published(agent.aid)
            yield partial(call_from_reference, a, caller.aid, agent.aid, [], lambda: None)


CONTENDERS: Mapping[str, Callable[[NatWorld, Progress], AbstractAsyncContextManager[Call]]] = {
    OURS: ours_ours,
    **{f"ours_to_{release}": partial(ours_reference, release=release) for release in RELEASES},
    **{f"{release}_to_ours": partial(reference_ours, release=release) for release in RELEASES},
    **{release: partial(reference_reference, release=release) for release in RELEASES},
}


def _open_lab(**hosts: object) -> contextlib.AbstractContextManager[NatLab]:
    lab: contextlib.AbstractContextManager[NatLab] = load_nat_lab().Lab({"hosts": hosts, "pool": list(POOL)})
    return lab


async def _run(attempt: Attempt, directory: Path) -> Outcome:
    progress = Progress()
    with trio.CancelScope(deadline=progress.since + PREPARATION) as scope:
        async with (
            open_nat_world(
                _open_lab,
                directory,
                attempt.caller,
                attempt.callee,
                turn=attempt.turn,
                helper=True,
                loss=attempt.loss,
                delay_ms=attempt.delay_ms,
            ) as world,
            CONTENDERS[attempt.contender](world, progress) as call,
        ):
            scope.deadline = progress.reach("begin") + PATIENCE
            world.let_them_meet()
            return await call(progress)
    waited = trio.current_time() - progress.since
    return Outcome(f"{progress.stage}: no end after {waited:.0f} s", gave_up=waited)


def make_attempt(attempt: Attempt) -> Outcome:
    """Make one attempt in a lab of its own. Runs in a process of its own, so that several can run side by side."""
    before = _processor_time()
    # What the daemons log goes nowhere; only the outcome counts.
    with (
        tempfile.TemporaryDirectory() as directory,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        try:
            outcome = trio.run(_run, attempt, Path(directory))
        except* A2alError as group:
            outcome = Outcome(f"preparing: {'; '.join(map(repr, _leaves(group)))}")
    used, total = (after - earlier for after, earlier in zip(_processor_time(), before, strict=True))
    return attrs.evolve(outcome, busy=round(used / max(total, 1), 3))


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _processor_time() -> tuple[int, int]:
    """Ticks that all processors together have worked, and have passed, since the machine started (proc(5))."""
    user, nice, system, idle, waiting, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    )
    used = user + nice + system + sum(interrupts)
    return used, used + idle + waiting
