"""Who reads the socket: a task that waits for what arrives there, rather than one that would have to wake it.

Handing what was read to another task costs a turn of Trio's loop, about a tenth of what a small request costs. So the
first task that waits reads while it waits, for everybody. When it has what it waited for it goes its way, and the
endpoint's own task stands in until some task waits again.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from a2al_trio.net.datagram import DatagramSocket, Received
from a2al_trio.quic.driver.wakeup import Wakeup

__all__ = ["Reading"]


class Reading:
    """Waiting and reading on one socket. `take` is called with all that was read; it returns whether it woke tasks.

    What goes wrong with the socket or in `take` is not the fault of the task that happens to read: `stand_in` raises
    it, and the reader goes on waiting.
    """

    __slots__ = ("_deputy", "_failure", "_relief", "_resumed", "_scope", "_socket", "_take", "_taking", "reader")

    def __init__(self, socket: DatagramSocket, take: Callable[[list[Received]], int]) -> None:
        self._socket = socket
        self._take = take
        self.reader: trio.lowlevel.Task | None = None
        """Who reads now."""
        self._scope = trio.CancelScope()
        self._resumed = False
        self._taking = False
        self._relief = Wakeup()
        self._deputy: trio.lowlevel.Task | None = None
        self._failure: BaseException | None = None

    async def stand_in(self) -> None:
        """Read whenever no other task does; never returns."""
        this = self._deputy = trio.lowlevel.current_task()
        while self._failure is None:
            if self.reader is None:
                self.reader = this
            if self.reader is not this:
                await self._relief.wait()
            elif await self._read() == 1:
                # The task that was woken runs before or after this one in the next tick; if it waits again, it reads.
                self.reader = None
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
        raise self._failure

    async def read_until_resumed(self, abort: Callable[[object], trio.lowlevel.Abort]) -> None:
        """Read for everybody until this task is given to `resume`; a checkpoint, and cancel-safe.

        For a task that finds no `reader`. The others wait with `trio.lowlevel.wait_task_rescheduled`, and `abort` means
        what it means there.
        """
        self.reader = trio.lowlevel.current_task()
        self._resumed = False
        woken = 0
        try:
            with trio.CancelScope() as self._scope:
                while not self._resumed and self._failure is None:
                    woken = await self._read()
        except trio.Cancelled as cancelled:
            # As in Trio, whoever was resumed in time has not been cancelled; the next checkpoint will see to it.
            if not self._resumed:
                abort(cancelled)
                raise
        finally:
            # Where many wait, to hand out what was read is a task's whole work.
            self.reader = self._deputy if woken > 1 else None
            self._relief.wake()
        if not self._resumed:
            await trio.lowlevel.wait_task_rescheduled(abort)

    def resume(self, task: trio.lowlevel.Task) -> None:
        """Let a task that waits run in the next tick."""
        if task is not self.reader:
            trio.lowlevel.reschedule(task)
            return
        self._resumed = True
        if not self._taking:
            self._scope.cancel()

    async def _read(self) -> int:
        try:
            batches = await self._socket.receive()
            self._taking = True
            return self._take(batches)
        except trio.Cancelled:
            raise
        except BaseException as error:
            self._failure = error
            return 0
        finally:
            self._taking = False
