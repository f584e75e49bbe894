"""One UDP socket for QUIC, the DHT and STUN, or two sockets in the split layout (spec 04 §2).

One task reads and hands out; it never waits for a plane. A plane whose user does not keep up loses datagrams,
counted in its `dropped`, and none of the others notices (spec 04 §17 D12).

QUIC is the fast path: its packets are not copied. The plane has two receive buffers, one whose views its user
works on and one being filled; they change places at every `receive`. DHT and STUN datagrams, few and small, are
copied.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.lowlevel

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import MAX_READ, BufferedSocket, ReceiveBuffer
from a2al_trio.net.datagram import DatagramSocket, Received, Transmit
from a2al_trio.net.demux import Plane, split
from a2al_trio.net.socket import open_udp
from a2al_trio.scopes import open_service_nursery

__all__ = ["Mux", "MuxPlane", "open_mux", "open_mux_over"]

MAX_QUEUED = 2048  # datagrams waiting in a plane (spec 04 §2.3)
MAX_QUEUED_BYTES = 2 * 1024 * 1024  # of copied datagrams, which may be up to 64 KiB each


class MuxPlane:
    """The part of a muxed socket that one protocol sees; implements `InterruptibleSocket`.

    Sending goes straight to the socket. Closing it only stops this plane; the mux closes the socket.
    """

    def __init__(self, socket: DatagramSocket) -> None:
        self._socket = socket
        self._pending: list[Received] = []
        self._queued = 0
        self._queued_bytes = 0
        self._receiver: trio.lowlevel.Task | None = None
        self._closed = False
        self.dropped = 0

    @property
    def local_address(self) -> SocketAddress:
        """The address of the shared socket."""
        return self._socket.local_address

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this plane is closed")
        if self._receiver is not None:
            raise trio.BusyResourceError("another task is receiving from this plane")
        if self._pending:
            await trio.lowlevel.checkpoint()
        else:
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._closed:
            raise trio.ClosedResourceError("this plane is closed")
        return self._take()

    receive_first = receive
    """Planes are handed whole batches anyway."""

    def interrupt(self) -> None:
        """See `InterruptibleSocket`."""
        self._wake()

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._receiver is not None:
            # Cheaper than an event: the mux is on the path of every QUIC packet.
            trio.lowlevel.reschedule(self._receiver)
            self._receiver = None

    def _take(self) -> list[Received]:
        batch, self._pending = self._pending, []
        self._queued = self._queued_bytes = 0
        return batch

    def put(self, received: Received) -> None:
        """Queue a copy of a run, or drop it; wakes the receiver."""
        size = len(received.data)
        count = -(-size // received.segment_size)
        if self._closed or self._queued + count > MAX_QUEUED or self._queued_bytes + size > MAX_QUEUED_BYTES:
            self.dropped += count
            return
        self._queued += count
        self._queued_bytes += size
        self._pending.append(self._kept(received))
        self._wake()

    def _kept(self, received: Received) -> Received:
        received.data = memoryview(bytes(received.data))
        return received

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this plane is closed")
        return self._socket.send_nowait(transmit)

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this plane is closed")
        await self._socket.wait_writable()

    def close(self) -> None:
        """Stop this plane; datagrams for it are dropped from now on."""
        self._closed = True
        self._pending.clear()
        self._wake()


class _QuicPlane(MuxPlane):
    """The plane whose runs stay where they were read."""

    def __init__(self, socket: DatagramSocket) -> None:
        super().__init__(socket)
        self.filling = ReceiveBuffer()
        self._lent = ReceiveBuffer()

    @property
    def has_room(self) -> bool:
        """Whether the mux may read into `filling`."""
        if not self._pending:
            self.filling.used = 0  # nothing in it is for us
        return self.filling.has_room

    def drop(self, received: Received) -> None:
        """Count a run that there was no room for."""
        self.dropped += -(-len(received.data) // received.segment_size)

    def _take(self) -> list[Received]:
        # Being asked again says that what was lent last time is free.
        self._lent.used = 0
        self.filling, self._lent = self._lent, self.filling
        return super()._take()

    def _kept(self, received: Received) -> Received:
        return received


class _Reader:
    """The planes of one socket and the task that feeds them."""

    def __init__(self, socket: BufferedSocket) -> None:
        self._socket = socket
        self._spill = ReceiveBuffer(2 * MAX_READ)
        self.quic = _QuicPlane(socket)
        self.dht = MuxPlane(socket)
        self.stun = MuxPlane(socket)

    async def run(self) -> None:
        quic, planes = self.quic, {Plane.DHT: self.dht, Plane.STUN: self.stun}
        while True:
            try:
                await self._socket.wait_readable()
            except trio.ClosedResourceError:
                self.close()
                return
            has_room = quic.has_room
            buffer = quic.filling if has_room else self._spill
            for received in self._socket.read_nowait(buffer):
                for plane, part in split(received):
                    if plane is Plane.QUIC:
                        (quic.put if has_room else quic.drop)(part)
                    elif plane is not Plane.NONE:
                        planes[plane].put(part)
            self._spill.used = 0

    def close(self) -> None:
        for plane in (self.quic, self.dht, self.stun):
            plane.close()


@attrs.frozen
class Mux:
    """The sockets of a host, one per protocol, whatever they share underneath; made by `open_mux`."""

    quic: MuxPlane
    dht: MuxPlane
    stun: MuxPlane
    relayed: bool = False
    """Whether all this runs over a relay: the address others see is the relay's."""


@asynccontextmanager
async def open_mux(bind: SocketAddress | None = None, *, quic_bind: SocketAddress | None = None) -> AsyncIterator[Mux]:
    """Bind one socket for everything, or with `quic_bind` a second one for QUIC, and share them out.

    Addresses are as for `open_udp`. STUN is served on the socket of QUIC, whose address it is asked for.
    Raises ConfigurationError if a socket cannot be bound.
    """
    async with open_udp(bind) as socket:
        if quic_bind is None:
            async with open_mux_over(socket) as mux:
                yield mux
        else:
            async with open_udp(quic_bind) as quic_socket, open_mux_over(socket, quic_socket) as mux:
                yield mux


@asynccontextmanager
async def open_mux_over(socket: BufferedSocket, quic_socket: BufferedSocket | None = None) -> AsyncIterator[Mux]:
    """Share out open sockets, which stay the caller's to close; simulated ones will do."""
    shared = _Reader(socket)
    quic = shared if quic_socket is None else _Reader(quic_socket)
    readers = {shared, quic}
    async with open_service_nursery("UDP mux") as nursery:
        for reader in readers:
            nursery.start_soon(reader.run)
        try:
            yield Mux(quic=quic.quic, dht=shared.dht, stun=quic.stun)
        finally:
            for reader in readers:
                reader.close()
