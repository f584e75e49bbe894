"""The driver of pure protocol cores: binds a `Machine` to a `DatagramSocket` and Trio's clock.

Two tasks, one that receives and one that waits for timers or for a full socket. Every input is followed by a
drain with no checkpoint in between, so a machine is never seen half way. Commands are called on the machine
directly, followed by `flush()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from a2al_trio.machine import Machine
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.scopes import open_service_nursery

__all__ = ["Drive", "open_drive"]

EventT = TypeVar("EventT")

NEVER = float("inf")


class Drive(Generic[EventT]):
    """A machine that is being driven; made by `open_drive`."""

    def __init__(self, machine: Machine[EventT], socket: DatagramSocket, on_event: Callable[[EventT], None]) -> None:
        self._machine = machine
        self._socket = socket
        self._on_event = on_event
        # The timer task sleeps in this scope; moving its deadline is how it is told of an earlier timeout.
        self._sleep = trio.CancelScope()
        self._transmits: Iterator[Transmit] = iter(())
        self._unsent: Transmit | None = None
        self._flushing = False

    def flush(self) -> None:
        """Send what the machine has to send, deliver its events and note its timeout; call it after commands.

        Never waits. When the socket is full the rest is sent as soon as there is room, while the machine keeps
        what it has not been asked for yet. From within `on_event` it does nothing: the drain in progress goes
        on until there is nothing left.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            self._send()
            while (event := self._machine.next_event()) is not None:
                self._on_event(event)
                self._send()
        finally:
            self._flushing = False
        if self._unsent is not None:
            self._sleep.cancel()
        else:
            timeout = self._machine.next_timeout()
            self._sleep.deadline = NEVER if timeout is None else timeout

    def _send(self) -> None:
        resumed = self._unsent is not None
        if not resumed:
            self._transmits = iter(self._machine.datagrams_to_send(trio.current_time()))
        while True:
            transmit = self._unsent or next(self._transmits, None)
            if transmit is None:
                if not resumed:
                    return
                # That was left over from when the socket was full; more may have come up since.
                resumed = False
                self._transmits = iter(self._machine.datagrams_to_send(trio.current_time()))
                continue
            sent = self._socket.send_nowait(transmit)
            if sent < len(transmit.data):
                transmit.data = memoryview(transmit.data)[sent:]
                self._unsent = transmit
                return
            self._unsent = None

    async def receive(self) -> None:
        """Feed the machine what arrives, for ever."""
        while True:
            batch = await self._socket.receive()
            now = trio.current_time()
            for received in batch:
                self._machine.receive_datagrams(received, now)
            self.flush()

    async def keep_time(self) -> None:
        """Tell the machine when its timeouts are due, and go on sending when a full socket has room."""
        while True:
            if self._unsent is not None:
                await self._socket.wait_writable()
            else:
                timeout = self._machine.next_timeout()
                with trio.CancelScope(deadline=NEVER if timeout is None else timeout) as self._sleep:
                    await trio.sleep_forever()
            now = trio.current_time()
            due = self._machine.next_timeout()
            if due is not None and due <= now:
                self._machine.handle_timeout(now)
            self.flush()


@asynccontextmanager
async def open_drive(
    machine: Machine[EventT], socket: DatagramSocket, on_event: Callable[[EventT], None]
) -> AsyncIterator[Drive[EventT]]:
    """Drive `machine` over `socket`, which stays the caller's, until the block ends.

    `on_event` is called with each event, synchronously and possibly from within `flush()`. A last flush sends
    what the machine was told to say when the block ends.
    """
    drive = Drive(machine, socket, on_event)
    async with open_service_nursery("protocol driver") as nursery:
        nursery.start_soon(drive.receive)
        nursery.start_soon(drive.keep_time)
        drive.flush()
        try:
            yield drive
        finally:
            drive.flush()
