"""Who reads the socket: a task that waits for what arrives there, rather than one that would have to wake it.

Handing what was read to another task costs a turn of Trio's loop, about a tenth of what a small request costs. So a
task that waits alone reads while it waits. When it has what it waited for it goes its way, and the endpoint's own task
stands in until some task waits again. Where many wait the endpoint's task reads: it wakes many in one turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from a2al_trio.net.datagram import DatagramSocket, InterruptibleSocket, Received
from a2al_trio.quic.driver.wakeup import GO_ON, Wakeup

__all__ = ["Reading"]

LITTLE = 1500
"""Bytes of a lone datagram after which another one is expected."""


class Reading:
    """Waiting and reading on one socket.

    `take` is called with all that was read; it returns how many tasks it woke. `follow_up` is called in the tick after
    a reader went its way, when it and the tasks it woke have had their turn.

    What goes wrong with the socket or in `take` is not the fault of the task that happens to read: `stand_in` raises
    it, and the reader goes on waiting.
    """

    __slots__ = (
        "_expects_little", "_failure", "_follow_up", "_interrupt", "_receive", "_receive_first", "_relief", "_resumed",
        "_take", "_taking", "is_free", "reader", "relief_due",
    )  # fmt: skip

    def __init__(
        self, socket: DatagramSocket, take: Callable[[list[Received]], int], follow_up: Callable[[], object]
    ) -> None:
        self._receive = self._receive_first = socket.receive
        self._take = take
        self._follow_up = follow_up
        self._interrupt: Callable[[], None] | None = None
        if isinstance(socket, InterruptibleSocket):
            self._interrupt, self._receive_first = socket.interrupt, socket.receive_first
        self._expects_little = False
        self.is_free = False
        """Whether a task that is about to wait should call `read_until_resumed`."""
        self.reader: trio.lowlevel.Task | None = None
        """The waiting task that reads, if one does."""
        self._resumed = False
        self._taking = False
        self._relief = Wakeup()
        self.relief_due = False
        """Whether `follow_up` is about to be called."""
        self._failure: BaseException | None = None

    async def stand_in(self) -> None:
        """Read whenever no other task does; never returns."""
        while self._failure is None:
            if self.reader is not None:
                await self._relief.wait()
                self.relief_due = False
                self._follow_up()
            self.is_free = False
            if self.reader is None and await self._read(self._receive) == 1 and self._interrupt is not None:
                # The task that was woken runs before or after this one in the next tick; if it waits again, it reads.
                self.is_free = True
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
        raise self._failure

    async def read_until_resumed(self, abort: Callable[[object], trio.lowlevel.Abort]) -> None:
        """Read for everybody until this task is given to `resume`; a checkpoint, and cancel-safe.

        The others wait with `trio.lowlevel.wait_task_rescheduled`, and `abort` means what it means there.
        """
        self.reader = trio.lowlevel.current_task()
        self.is_free = self._resumed = False
        woken = 0
        try:
            while not self._resumed and self._failure is None:
                woken = await self._read(self._receive_first if self._expects_little else self._receive)
                if woken and not self._resumed:
                    break  # it is others who have something to do: they read when they wait again
        except trio.Cancelled as cancelled:
            # As in Trio, whoever was resumed in time has not been cancelled; the next checkpoint will see to it.
            if not self._resumed:
                abort(cancelled)
                raise
        finally:
            self.reader = None
            self.is_free = woken <= 1
            self.relief_due = self._relief.wake() or self.relief_due
        if not self._resumed:
            await trio.lowlevel.wait_task_rescheduled(abort)

    def resume(self, task: trio.lowlevel.Task) -> None:
        """Let a task that waits run in the next tick."""
        if task is not self.reader:
            trio.lowlevel.reschedule(task, GO_ON)
            return
        self._resumed = True
        if not self._taking and self._interrupt is not None:
            self._interrupt()

    async def _read(self, receive: Callable[[], Awaitable[list[Received]]]) -> int:
        try:
            batches = await receive()
            if not batches:
                return 0  # interrupted
            self._expects_little = len(batches) == 1 and len(batches[0].data) <= LITTLE
            self._taking = True
            return self._take(batches)
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._failure = error
            return 0
        finally:
            self._taking = False
