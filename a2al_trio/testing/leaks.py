"""Finding what is left behind: tasks and sockets that outlive their block, and cancellation at any instant.

async with no_leaks():
    with cancelled_after(steps=17):
        async with open_host(...) as host:
            ...
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

__all__ = ["Leak", "cancelled_after", "no_leaks", "open_sockets", "running_tasks"]

DESCRIPTORS = Path("/proc/self/fd")


class Leak(AssertionError):
    """Something outlived the block that made it; the message lists what."""


def running_tasks() -> frozenset[trio.lowlevel.Task]:
    """Every task of this run below the root, except Trio's own."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: set[trio.lowlevel.Task] = set()
    # The root's nursery holds Trio's system tasks and the main task, which is the one with an outer nursery.
    main = [task for nursery in root.child_nurseries for task in nursery.child_tasks]
    waiting = [task for task in main if not _is_system(task)]
    while waiting:
        task = waiting.pop()
        found.add(task)
        waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return frozenset(found)


def _is_system(task: trio.lowlevel.Task) -> bool:
    module = getattr(getattr(task.coro, "cr_code", None), "co_filename", "")
    return f"{os.sep}trio{os.sep}" in module


def open_sockets() -> frozenset[str]:
    """The kernel sockets this process has open; always empty where there is no /proc."""
    found = set()
    for entry in DESCRIPTORS.iterdir() if sys.platform == "linux" else ():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # the directory's own descriptor
        if target.startswith("socket:"):
            found.add(target)
    return frozenset(found)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raise `Leak` if the block ends, in whatever way, with more tasks or sockets than it began with."""
    tasks, sockets = running_tasks(), open_sockets()
    try:
        yield
    finally:
        await _settled()
        left = [f"task {task.name}" for task in running_tasks() - tasks]
        left += sorted(open_sockets() - sockets)
        if left:
            raise Leak("left behind: " + ", ".join(left))


async def _settled() -> None:
    # A task that has just been cancelled may need a few steps more to end.
    with trio.CancelScope(shield=True):
        for _ in range(3):
            await trio.lowlevel.checkpoint()


class _Countdown(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self.steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self._scope.deadline = trio.current_time()
            self._scope.cancel()


@contextmanager
def cancelled_after(steps: int) -> Iterator[trio.CancelScope]:
    """Cancel the block when all tasks together have run that many times, for trying every instant in turn.

    The scope's `cancelled_caught` says whether the block was cut short, and its `deadline` when that was; if it
    was not, there are no later instants.
    """
    with trio.CancelScope() as scope:
        countdown = _Countdown(scope, steps)
        trio.lowlevel.add_instrument(countdown)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(countdown)
