"""A nominated path as a datagram socket: what QUIC runs on."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from a2al_trio.ice.driver.gather import Base
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit

__all__ = ["IcePath"]

_INBOX_BYTES: Final = 1_000_000
_BATCH: Final = 64


class IcePath:
    """A `DatagramSocket` with one peer at its other end. Made by an ICE session.

    Both addresses are those of the pair first selected and stay when the agents move to another pair, so that what
    runs on the path sees no migration. The destination of what is sent does not matter. Data that arrives before the
    path is selected is kept until then, and what is sent before is lost. When the path is lost it falls silent; the
    session says why.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._remote = SocketAddress("0.0.0.0", 0)
        self._local_address = SocketAddress("0.0.0.0", 0)
        self._peer_address = SocketAddress("0.0.0.0", 0)
        self._inbox: deque[Received] = deque()
        self._inbox_bytes = 0
        self._arrived = trio.Event()
        self._moved = trio.Event()
        self._selected = trio.Event()
        self._closed = False
        self._receiving = False
        self.relayed = False
        self.description = ""
        self.dropped = 0

    @property
    def local_address(self) -> SocketAddress:
        """Our end of the pair first selected."""
        return self._local_address

    @property
    def peer_address(self) -> SocketAddress:
        """The peer's end of the pair first selected: the source of everything received."""
        return self._peer_address

    def move(self, base: Base, remote: SocketAddress, *, relayed: bool, description: str) -> None:
        """Use another pair from now on; called by the session."""
        if not self.description:
            self._local_address, self._peer_address = base.address, remote
        self._base, self._remote = base, remote
        self.relayed, self.description = relayed, description
        self._selected.set()
        self._moved.set()
        self._moved = trio.Event()

    def detach(self) -> None:
        """There is no pair any more: what is sent is lost; called by the session."""
        self._base = None
        self._moved.set()

    def deliver(self, received: Received, data: bytes | memoryview) -> None:
        """Take data from the peer; what does not fit is dropped, as by a socket; called by the session."""
        if self._inbox_bytes + len(data) > _INBOX_BYTES:
            self.dropped += 1
            return
        # the view dies with the next read of the socket, and early data may wait long
        view = memoryview(bytes(data))
        self._inbox.append(Received(view, received.segment_size, received.source, received.ecn))
        self._inbox_bytes += len(view)
        self._arrived.set()

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this path")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._closed and not (self._inbox and self.description):
                await (self._arrived if self.description else self._selected).wait()
        finally:
            self._receiving = False
        if self._closed:
            raise trio.ClosedResourceError("this path is closed")
        batch = [self._inbox.popleft() for _ in range(min(_BATCH, len(self._inbox)))]
        for received in batch:
            self._inbox_bytes -= len(received.data)
            received.source = self._peer_address
        if not self._inbox:
            self._arrived = trio.Event()
        return batch

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`; the destination is always the peer."""
        if self._closed:
            raise trio.ClosedResourceError("this path is closed")
        if self._base is None:
            return len(transmit.data)
        run = Transmit(transmit.data, transmit.segment_size, self._remote, transmit.ecn)
        try:
            return self._base.socket.send_nowait(run)
        except trio.ClosedResourceError:
            return len(transmit.data)  # the base is gone, and the agent is about to move

    async def wait_writable(self) -> None:
        """See `DatagramSocket`; moving to another pair ends the wait too."""
        if self._closed:
            raise trio.ClosedResourceError("this path is closed")
        base = self._base
        if base is None:
            await trio.lowlevel.checkpoint()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_moved, nursery.cancel_scope)
            try:
                await base.socket.wait_writable()
            except trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()  # the base is gone; the next send will use another or be lost
            nursery.cancel_scope.cancel()

    async def _wait_moved(self, scope: trio.CancelScope) -> None:
        await self._moved.wait()
        scope.cancel()

    def close(self) -> None:
        """See `DatagramSocket`."""
        self._closed = True
        self._base = None
        for event in (self._arrived, self._moved, self._selected):
            event.set()
