"""`SimSocket`: the socket of a simulated host, behind the same port as real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import ReceiveBuffer
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.testing.fabric import HostNode
from a2al_trio.testing.link import Packet

__all__ = ["SimSocket"]

MAX_RUN = 64  # datagrams handed over together, as the kernel's receive offload does
MAX_READS = 64  # runs returned by one receive()
MAX_DATAGRAM = 65507
RECEIVE_BUFFER = 4 * 1024 * 1024
LOOPBACK = {"127.0.0.1": False, "::1": True}


class SimSocket:
    """A bound UDP socket of a simulated host; implements `BufferedSocket` and `InterruptibleSocket`.

    It is stricter than the kernel where that finds mistakes: the views of one `receive` are overwritten at the
    next. `dropped` counts datagrams that came while 4 MiB were waiting to be received.
    """

    def __init__(
        self,
        node: HostNode,
        local_address: SocketAddress,
        *,
        send_buffer: int | None,
        unbind: Callable[[SimSocket], None],
    ) -> None:
        self._node = node
        self._local_address = local_address
        self._send_buffer = send_buffer
        self._unbind = unbind
        self._inbox: deque[Packet] = deque()
        self._inbox_bytes = 0
        self._arrived = trio.Event()
        self._receiving = self._interrupted = False
        self._closing = trio.Event()
        self._handed_out: list[bytearray] = []
        self.dropped = 0

    @property
    def local_address(self) -> SocketAddress:
        """What it was bound to; the host is a wildcard if it was bound to all addresses."""
        return self._local_address

    @property
    def address(self) -> SocketAddress:
        """Where others on the same network reach it: the bound address, or the first one of the host."""
        bound = self._local_address
        return bound if bound.host not in ("0.0.0.0", "::") else SocketAddress(self._node.hosts[0], bound.port)

    def deliver(self, packet: Packet) -> None:
        """Take a packet off the wire; empty datagrams are ignored, as by real sockets."""
        if not packet.data:
            return
        if self._inbox_bytes + len(packet.data) > RECEIVE_BUFFER:
            self.dropped += 1
            return
        self._inbox.append(packet)
        self._inbox_bytes += len(packet.data)
        self._arrived.set()

    @property
    def _closed(self) -> bool:
        return self._closing.is_set()

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`."""
        for old in self._handed_out:
            old[:] = bytes([0xDD]) * len(old)
        self._handed_out = []
        await self.wait_readable()
        batch: list[Received] = []
        while self._inbox and len(batch) < MAX_READS:
            run = self._take_run(MAX_RUN * MAX_DATAGRAM)
            data = bytearray().join(packet.data for packet in run)
            self._handed_out.append(data)
            batch.append(self._received(run, memoryview(data)))
        return batch

    receive_first = receive

    def interrupt(self) -> None:
        """See `InterruptibleSocket`."""
        self._interrupted = self._receiving
        self._arrived.set()

    def read_nowait(self, buffer: ReceiveBuffer) -> list[Received]:
        """See `BufferedSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        batch: list[Received] = []
        while self._inbox and len(batch) < MAX_READS and buffer.has_room:
            start = buffer.used
            run = self._take_run(buffer.size - start)
            for packet in run:
                buffer.view[buffer.used : buffer.used + len(packet.data)] = packet.data
                buffer.used += len(packet.data)
            batch.append(self._received(run, buffer.view[start : buffer.used]))
        return batch

    async def wait_readable(self) -> None:
        """See `BufferedSocket`."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this socket")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not (self._inbox or self._closed or self._interrupted):
                self._arrived = trio.Event()
                await self._arrived.wait()
        finally:
            self._receiving = self._interrupted = False
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")

    def _take_run(self, room: int) -> list[Packet]:
        # Equally long datagrams of one flow, the last one possibly shorter.
        first = self._inbox[0]
        flow = (first.source, first.destination, first.ecn)
        run: list[Packet] = []
        while self._inbox and len(run) < MAX_RUN:
            packet, size = self._inbox[0], len(self._inbox[0].data)
            if (packet.source, packet.destination, packet.ecn) != flow or size > len(first.data):
                break
            if size > room:
                break
            run.append(self._inbox.popleft())
            room -= size
            self._inbox_bytes -= size
            if size < len(first.data):
                break
        return run

    @staticmethod
    def _received(run: list[Packet], data: memoryview) -> Received:
        first = run[0]
        return Received(data, len(first.data), first.source, ecn=first.ecn, local_host=first.destination.host)

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`; datagrams to a family the host lacks vanish."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        now = trio.current_time()
        source = self._source(transmit)
        data, size, sent = bytes(transmit.data), transmit.segment_size, 0
        while True:
            if self._is_full(now):
                return sent
            datagram = data[sent : sent + size]
            if source is not None and len(datagram) <= MAX_DATAGRAM:
                self._node.send(Packet(source, transmit.destination, datagram, transmit.ecn), now)
            sent += len(datagram)
            if sent >= len(data):
                return sent

    def _source(self, transmit: Transmit) -> SocketAddress | None:
        ipv6 = transmit.destination.is_ipv6
        if transmit.source_host and transmit.source_host not in (*self._node.hosts, *LOOPBACK):
            return None  # systems refuse to send from an address that is not theirs
        wanted = transmit.source_host or self._local_address.host
        for host in (wanted, *self._node.hosts):
            if host in ("0.0.0.0", "::") or (":" in host) != ipv6:
                continue
            if host in self._node.hosts or host in LOOPBACK:
                loopback = transmit.destination.host in LOOPBACK and self._local_address.host in ("0.0.0.0", "::")
                return SocketAddress(transmit.destination.host if loopback else host, self._local_address.port)
        return None

    def _is_full(self, now: float) -> bool:
        return self._send_buffer is not None and self._node.up.backlog(now) >= self._send_buffer

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        await trio.lowlevel.checkpoint()
        if self._is_full(trio.current_time()):
            with trio.move_on_at(self._node.up.drained_at((self._send_buffer or 0) // 2)):
                await self._closing.wait()
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")

    def close(self) -> None:
        """See `DatagramSocket`."""
        if not self._closed:
            self._closing.set()
            self._unbind(self)
            self._arrived.set()
