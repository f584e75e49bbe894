"""The datagram port: what protocol drivers need of a socket, real, simulated, multiplexed or an ICE path.

The unit is a run of datagrams, not one datagram: a kernel with segmentation offload hands over and takes many at
once, and everything above gains by treating them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import attrs

from a2al_trio.net.address import SocketAddress

__all__ = ["DatagramSocket", "InterruptibleSocket", "Received", "Transmit"]


@attrs.define(eq=False)
class Received:
    """Datagrams from one source, taken by one read.

    `data` holds them back to back: each is `segment_size` bytes long, the last may be shorter. `ecn` is the
    two-bit codepoint they arrived with (RFC 3168 §5), `local_host` the address they were sent to when known.
    """

    data: memoryview
    segment_size: int
    source: SocketAddress
    ecn: int = 0
    local_host: str | None = None

    def datagrams(self) -> Iterator[memoryview]:
        """Yield the datagrams one by one."""
        data, size = self.data, self.segment_size
        if len(data) <= size:
            yield data
            return
        for start in range(0, len(data), size):
            yield data[start : start + size]


@attrs.define(eq=False)
class Transmit:
    """Datagrams for one destination, laid out as in `Received`; `source_host` picks the local address."""

    data: bytes | bytearray | memoryview
    segment_size: int
    destination: SocketAddress
    ecn: int = 0
    source_host: str | None = None


class DatagramSocket(Protocol):
    """A bound datagram socket. Network trouble (ICMP errors, full queues) is never an exception here."""

    @property
    def local_address(self) -> SocketAddress:
        """The address the socket is bound to."""

    async def receive(self) -> list[Received]:
        """Wait for at least one datagram and return all that are there, up to a bound, without waiting more.

        The views are valid until the next call. Raises `trio.ClosedResourceError` once the socket is closed
        and `trio.BusyResourceError` if another task is receiving.
        """

    def send_nowait(self, transmit: Transmit) -> int:
        """Send as much of the run as the socket takes; returns the bytes taken, always whole datagrams.

        Less than all means the socket is full: keep the rest and await `wait_writable`. The buffer may be
        reused as soon as this returns. Raises `trio.ClosedResourceError`.
        """

    async def wait_writable(self) -> None:
        """Wait until `send_nowait` is worth calling again."""

    def close(self) -> None:
        """Close at once; waiting tasks get `trio.ClosedResourceError`. Closing twice does nothing."""


@runtime_checkable
class InterruptibleSocket(DatagramSocket, Protocol):
    """A socket that tasks can take turns in reading, since whoever reads can be told to stop."""

    async def receive_first(self) -> list[Received]:
        """As `receive`, but content with one read: for those who expect one datagram and no second."""

    def interrupt(self) -> None:
        """Let a task that is in `receive` return now, with an empty list if nothing has arrived."""
