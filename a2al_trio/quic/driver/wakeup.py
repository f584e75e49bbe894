"""The cheapest ways to let tasks wait for another: no event object, no channel, nothing kept between waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from a2al_trio.quic.driver.reading import Reading

__all__ = ["GO_ON", "Line", "ReadersWakeup", "Wakeup"]

ResultT = TypeVar("ResultT")


class _GoOn(outcome.Outcome[None]):
    """What a task that waits is told: nothing.

    Trio makes an object for that each time. This one can be told again and again, which spares every request two.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        return None

    def send(self, gen: Generator[ResultT, None, object]) -> ResultT:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[ResultT, None]) -> ResultT:
        return await agen.asend(None)


GO_ON = _GoOn()


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
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> bool:
        """Let the waiting task run in the next tick; returns whether there is one."""
        task, self.task = self.task, None
        if task is None:
            return False
        trio.lowlevel.reschedule(task, GO_ON)
        return True


class ReadersWakeup(Wakeup):
    """A `Wakeup` whose task reads the socket while it waits if nobody else does, see `Reading`."""

    __slots__ = ("_reading",)

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self._reading = reading

    async def wait(self) -> None:
        """Wait for the next `wake`; a checkpoint, and cancel-safe."""
        self.task = trio.lowlevel.current_task()
        if self._reading.is_free:
            await self._reading.read_until_resumed(self._abort)
        else:
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wake(self) -> bool:
        """Let the waiting task run in the next tick; returns whether there is one."""
        task, self.task = self.task, None
        if task is None:
            return False
        self._reading.resume(task)
        return True


class Line:
    """Lets tasks wait in a line, first come, first served; conditions are checked as with `Wakeup`.

    One of them may read the socket meanwhile, see `Reading`.
    """

    __slots__ = ("_reading", "_tasks")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._tasks: list[trio.lowlevel.Task] = []  # short; an empty deque would be half a kilobyte

    async def wait(self) -> None:
        """Wait until it is our turn; a checkpoint, and cancel-safe."""
        task, tasks = trio.lowlevel.current_task(), self._tasks
        tasks.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        if self._reading.is_free:
            await self._reading.read_until_resumed(abort)
        else:
            await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> bool:
        """Let the first in the line run in the next tick; returns whether there is one."""
        if not self._tasks:
            return False
        self._reading.resume(self._tasks.pop(0))
        return True

    def wake_reader_or_first(self) -> bool:
        """Where it does not matter who goes first: the task that reads the socket can go on at once."""
        reader, tasks = self._reading.reader, self._tasks
        if reader is not None and reader in tasks:
            tasks.remove(reader)
            self._reading.resume(reader)
            return True
        return self.wake()

    def wake_all(self) -> None:
        """Let all of them run in the next tick."""
        while self.wake():
            pass
