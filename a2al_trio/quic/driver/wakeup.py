"""The cheapest ways to let tasks wait for another: no event object, no channel, nothing kept between waits."""

from __future__ import annotations

import trio

__all__ = ["Line", "Wakeup"]


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

    def wake(self) -> bool:
        """Let the waiting task run in the next tick; returns whether there is one."""
        task, self.task = self.task, None
        if task is None:
            return False
        trio.lowlevel.reschedule(task)
        return True


class Line:
    """Lets tasks wait in a line, first come, first served; conditions are checked as with `Wakeup`."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: list[trio.lowlevel.Task] = []  # short; an empty deque would be half a kilobyte

    async def wait(self) -> None:
        """Wait until it is our turn; a checkpoint, and cancel-safe."""
        task, tasks = trio.lowlevel.current_task(), self._tasks
        tasks.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> bool:
        """Let the first in the line run in the next tick; returns whether there is one."""
        if not self._tasks:
            return False
        trio.lowlevel.reschedule(self._tasks.pop(0))
        return True

    def wake_all(self) -> None:
        """Let all of them run in the next tick."""
        while self.wake():
            pass
