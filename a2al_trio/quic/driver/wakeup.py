"""The cheapest way to let one task wait for another: no event object, no channel, nothing kept between waits."""

from __future__ import annotations

import trio

__all__ = ["Wakeup"]


class Wakeup:
    """Lets at most one task wait at a time; the caller checks its condition again after every wake-up.

    A wake-up that finds nobody waiting is lost on purpose: whoever waits has looked at the condition in the same
    tick, so nothing can change in between.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        """Who waits."""

    async def wait(self) -> None:
        """Wait for the next `wake`; a checkpoint, and cancel-safe."""
        self.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Let the waiting task, if any, run in the next tick."""
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
