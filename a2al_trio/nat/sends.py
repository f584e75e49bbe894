"""To whom a socket has sent of late: those whose answers a NAT lets through, so that they are no test of it."""

from __future__ import annotations

from collections import OrderedDict

import trio

from a2al_trio.nat.probe import COLD_AFTER
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Received, Transmit

__all__ = ["SendLog"]

MAX_HOSTS = 4096


class SendLog:
    """A datagram socket that remembers to which hosts it has sent, and when; the rest it leaves to another one."""

    def __init__(self, socket: DatagramSocket) -> None:
        self._socket = socket
        self._sent: OrderedDict[str, float] = OrderedDict()
        self.last_sent_at = trio.current_time()
        """When something was sent last, to whomever."""

    def is_cold(self, host: str) -> bool:
        """Whether nothing was sent there for so long that no NAT expects an answer.

        When more hosts were sent to than are remembered, those forgotten count as warm for as long.
        """
        now = trio.current_time()
        sent_at = self._sent.get(host)
        if sent_at is None:
            forgotten = len(self._sent) >= MAX_HOSTS
            return not forgotten or now - next(iter(self._sent.values())) >= COLD_AFTER
        return now - sent_at >= COLD_AFTER

    @property
    def local_address(self) -> SocketAddress:
        """See `DatagramSocket`."""
        return self._socket.local_address

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`."""
        return await self._socket.receive()

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`."""
        sent = self._socket.send_nowait(transmit)
        host = transmit.destination.host
        self.last_sent_at = self._sent[host] = trio.current_time()
        self._sent.move_to_end(host)
        if len(self._sent) > MAX_HOSTS:
            self._sent.popitem(last=False)
        return sent

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        await self._socket.wait_writable()

    def close(self) -> None:
        """See `DatagramSocket`."""
        self._socket.close()
