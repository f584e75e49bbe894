"""Reused memory for received datagrams."""

from __future__ import annotations

from typing import Protocol

from a2al_trio.net.datagram import DatagramSocket, Received

__all__ = ["MAX_READ", "BufferedSocket", "ReceiveBuffer"]

MAX_READ = 65536
"""The most one read can return: a full UDP datagram, or a coalesced run of them."""


class ReceiveBuffer:
    """A block of memory that reads fill from the front.

    Pages that were never reached cost nothing, and a reader that keeps up only ever touches the first ones,
    so a generous size is free.
    """

    __slots__ = ("size", "used", "view")

    def __init__(self, size: int = 1024 * 1024) -> None:
        if size < MAX_READ:
            raise ValueError(f"a receive buffer must hold one read of {MAX_READ} bytes, not {size}")
        self.view = memoryview(bytearray(size))
        self.size = size
        self.used = 0

    @property
    def has_room(self) -> bool:
        """Whether another read fits."""
        return self.size - self.used >= MAX_READ


class BufferedSocket(DatagramSocket, Protocol):
    """A socket that can read into memory of its caller, who thereby decides how long the views stay valid."""

    async def wait_readable(self) -> None:
        """Wait until `read_nowait` is worth calling; raises as `receive` does."""

    def read_nowait(self, buffer: ReceiveBuffer) -> list[Received]:
        """Read what is there, up to a bound, behind what `buffer` holds; empty if there is nothing after all."""
