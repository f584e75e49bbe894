"""The only clever concurrency in the package: a nursery that services own, and the race of attempts.

`open_service_nursery` gives every `open_*` context manager the same life: background tasks outlive the body (also
a cancelled body), so that it can say goodbye through the layers below it, and errors surface as one exception.
`race` is the only race: Happy Eyeballs, direct against ICE, and hub attempts are all calls of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import attrs
import trio

from a2al_trio.errors import A2alError, AttemptFailure, ConnectError, ServiceCrashed

__all__ = ["Attempt", "open_service_nursery", "open_tasks", "race"]

T = TypeVar("T")


@asynccontextmanager
async def open_service_nursery(name: str) -> AsyncIterator[trio.Nursery]:
    """Open a nursery for the background tasks of the service called `name`.

    The tasks are shielded from cancellation until the body has left the block; then they are cancelled. A body
    that wants to say goodbye does so in its own `finally`, under `trio.move_on_after(grace, shield=True)`: the
    tasks, and those of services opened before this one, still run then.

    An error of the body surfaces as itself. If a background task raises, the body is cancelled and
    `ServiceCrashed` surfaces, with the group of what was raised as its cause; `KeyboardInterrupt` and
    `SystemExit` stay themselves.
    """
    crash: list[BaseExceptionGroup[BaseException]] = []
    body_error: BaseException | None = None
    body_scope = trio.CancelScope()
    opened: list[trio.Nursery] = []
    is_open = trio.Event()

    async def keep_background() -> None:
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as background:
                    opened.append(background)
                    is_open.set()
                    await trio.sleep_forever()
            except BaseExceptionGroup as group:
                crash.append(group)
                body_scope.cancel()

    try:
        async with trio.open_nursery() as outer:
            # Not `outer.start`: cancelled at the wrong instant, it would wait for the shielded task for ever.
            outer.start_soon(keep_background)
            with trio.CancelScope(shield=True):
                await is_open.wait()
            [background] = opened
            try:
                with body_scope:
                    yield background
            except BaseException as error:
                body_error = error
                raise
            finally:
                background.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if body_error is None:
            raise _only(group) from None
    if crash:
        raise _crashed(name, crash[0], body_error)
    if body_error is not None:
        # The nursery wrapped it in a group that is none of the caller's business (trio issue 2611).
        raise body_error


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that work towards one result: errors of one kind surface as the first of them, bare."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        first, *others = _leaves(group)
        if any(type(other) is not type(first) for other in others):
            raise
        raise first from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _crashed(name: str, group: BaseExceptionGroup[BaseException], body_error: BaseException | None) -> BaseException:
    leaves = list(_leaves(group))
    for leaf in leaves:
        if isinstance(leaf, (KeyboardInterrupt, SystemExit)):
            return leaf
    reasons = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves)
    crashed = ServiceCrashed(f"{name} crashed: {reasons}")
    crashed.__cause__ = group
    if body_error is not None and not isinstance(body_error, trio.Cancelled):
        crashed.add_note(f"meanwhile the body raised {type(body_error).__name__}: {body_error}")
    return crashed


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found.extend(_leaves(error))
        else:
            found.append(error)
    return found


@attrs.frozen
class Attempt(Generic[T]):
    """One way to a goal: what it is called in errors, and an async function that returns an owned resource."""

    name: str
    run: Callable[[], Awaitable[T]]


async def race(
    attempts: Sequence[Attempt[T]],
    *,
    stagger: float,
    discard: Callable[[T], object],
    goal: str = "reach the peer",
) -> T:
    """Run `attempts` in order, the next one `stagger` seconds after the last or as soon as one fails.

    The first success cancels the rest and is returned; the caller owns it. Successes that come too late, or
    while the race ends in an error, are handed to `discard` (which must not wait). An attempt fails by
    raising `A2alError` or `OSError`; anything else is a bug and propagates. If all fail, `ConnectError` names
    each with its reason, in the order they were started.
    """
    winners: list[T] = []
    failures: dict[int, AttemptFailure] = {}
    failed = trio.Event()

    async def run(index: int, attempt: Attempt[T], scope: trio.CancelScope) -> None:
        try:
            winners.append(await attempt.run())
        except (A2alError, OSError) as error:
            failures[index] = AttemptFailure(attempt.name, error)
            failed.set()
        else:
            scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for index, attempt in enumerate(attempts):
                if index:
                    with trio.move_on_after(stagger):
                        await failed.wait()
                failed = trio.Event()
                nursery.start_soon(run, index, attempt, nursery.cancel_scope)
    except BaseException as error:
        for winner in winners:
            discard(winner)
        if isinstance(error, BaseExceptionGroup):
            raise _only(error) from None
        raise
    if winners:
        for late in winners[1:]:
            discard(late)
        return winners[0]
    raise _lost(goal, tuple(failures[index] for index in sorted(failures)))


def _lost(goal: str, failures: tuple[AttemptFailure, ...]) -> ConnectError:
    if not failures:
        return ConnectError(f"cannot {goal}: there is nothing to try")
    error = ConnectError(f"cannot {goal}", failures)
    causes = [failure.error for failure in failures if isinstance(failure.error, Exception)]
    error.__cause__ = ExceptionGroup("all attempts failed", causes)
    return error
