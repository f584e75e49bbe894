"""`UdpSocket`: a kernel UDP socket as a `DatagramSocket`, fast where the system allows it.

One socket serves IPv4 and IPv6. Reads drain the socket into one reused buffer, whole runs at a time where the
kernel coalesces datagrams; runs are sent with one call where it segments them. Everything the network can do
to a UDP socket (ICMP errors, unreachable networks, datagrams too big for the path) is counted in `stats`, never
raised: datagrams are allowed to get lost.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import MAX_READ, ReceiveBuffer
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.net.socket_options import (
    ANCILLARY_SIZE,
    Arrival,
    SocketFeatures,
    apply_options,
    control_messages,
    decode_control,
)

__all__ = ["SocketStats", "UdpSocket", "open_udp"]

MAX_READS = 64  # reads of one receive(), so that a flood cannot keep other tasks waiting
MAX_SEGMENTS = 64  # of one segmenting send; older kernels refuse more
MAX_RUN = 65535 - 48  # what a segmenting send may hold with IPv6 and UDP headers
CACHE_SIZE = 4096  # addresses and control messages remembered in their other form
DUAL_STACK = SocketAddress("::", 0)
WILDCARDS = ("::", "0.0.0.0")
NO_CONTROL = Arrival()

ControlMessages = list[tuple[int, int, bytes]]
Way = tuple[tuple[str | int, ...] | None, ControlMessages]
"""Where single datagrams go, None if the socket cannot reach it, and what goes along with each."""


@attrs.define
class SocketStats:
    """Datagrams (for `receive_errors`: reads) that came to grief, and how often the socket was full."""

    receive_errors: int = 0
    too_big: int = 0
    unreachable: int = 0
    full: int = 0


class UdpSocket:
    """A bound UDP socket; made by `open_udp` or `UdpSocket.bind`.

    Implements `BufferedSocket` and `InterruptibleSocket`.
    """

    def __init__(self, sock: socket.socket, features: SocketFeatures) -> None:
        self._sock = sock
        self._ipv6 = sock.family == socket.AF_INET6
        self._dual = self._ipv6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        self.features = features
        self.stats = SocketStats()
        self._segments = features.segments
        self._has_control = features.coalesces or features.packet_info or features.ecn
        self._closed = False
        self._saturated = False
        self._buffer: ReceiveBuffer | None = None
        self._sources: dict[tuple[object, ...], SocketAddress] = {}
        self._ways: dict[tuple[SocketAddress, int, str | None], Way] = {}
        self._arrivals: dict[tuple[tuple[int, int, bytes], ...], Arrival] = {}
        self._controls: dict[tuple[bool, int, int, str | None], ControlMessages] = {}
        self._local_address = self._source(sock.getsockname())
        self._host = None if self._local_address.host in WILDCARDS else self._local_address.host

    @classmethod
    def bind(cls, address: SocketAddress | None = None) -> UdpSocket:
        """Bind a socket to `address`; port 0 means a free one.

        None, or the host `::`, means all addresses of both families (of IPv4 alone where there is no IPv6).
        Raises ConfigurationError, saying what to change, if that cannot be.
        """
        address = address or DUAL_STACK
        try:
            sock = _bound(address)
        except OSError as error:
            no_ipv6 = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
            if address.host != "::" or not no_ipv6:
                raise _bind_error(address, error) from error
            return cls.bind(SocketAddress("0.0.0.0", address.port))
        return cls(sock, apply_options(sock, packet_info=address.host in WILDCARDS))

    @property
    def local_address(self) -> SocketAddress:
        """What it is bound to; the host is `::` or `0.0.0.0` when that is all addresses."""
        return self._local_address

    # --- receiving

    def receive(self) -> Coroutine[Any, Any, list[Received]]:
        """See `DatagramSocket`."""
        return self._receive(self._read_all)

    def receive_first(self) -> Coroutine[Any, Any, list[Received]]:
        """See `InterruptibleSocket`."""
        return self._receive(self._read_first)

    async def _receive(self, read: Callable[[], list[Received]]) -> list[Received]:
        while True:
            if self._closed or self._saturated:
                await self.wait_readable()
                read = self._read_all
            else:
                try:
                    await trio.lowlevel.wait_readable(self._sock)
                except trio.ClosedResourceError:
                    if self._closed:
                        raise
                    return []  # interrupted
            if batch := read():
                return batch

    def interrupt(self) -> None:
        """See `InterruptibleSocket`."""
        if not self._closed:
            # What Trio offers for sockets that are about to be closed wakes those who wait, and does nothing else.
            trio.lowlevel.notify_closing(self._sock)

    async def wait_readable(self) -> None:
        """See `BufferedSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        if self._saturated:
            # The last read stopped at its bound, so there is more: looking is cheaper than being told.
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._sock)

    def _make_buffer(self) -> ReceiveBuffer:
        # Who only lends the socket to others, which bring buffers of their own, needs none.
        buffer = self._buffer = ReceiveBuffer()
        return buffer

    def _read_all(self) -> list[Received]:
        buffer = self._buffer or self._make_buffer()
        buffer.used = 0
        return self.read_nowait(buffer)

    def _read_first(self) -> list[Received]:
        """Read once: all there is when a request or an answer is on its way."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        arrival, data = NO_CONTROL, (self._buffer or self._make_buffer()).view
        try:
            if self._has_control:
                size, control, _, raw = self._sock.recvmsg_into((data,), ANCILLARY_SIZE)
                arrival = self._arrivals.get(tuple(control)) or self._arrival(tuple(control))
            else:
                size, raw = self._sock.recvfrom_into(data)
        except BlockingIOError:
            return []
        except OSError:
            self.stats.receive_errors += 1
            return []
        if not size:
            return []
        source, local_host = self._sources.get(raw) or self._source(raw), self._host or arrival.local_host
        return [Received(data[:size], arrival.segment_size or size, source, arrival.ecn, local_host)]

    def read_nowait(self, buffer: ReceiveBuffer) -> list[Received]:
        """See `BufferedSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        batch: list[Received] = []
        view, used, last_start = buffer.view, buffer.used, buffer.size - MAX_READ
        sources, arrivals, has_control, host = self._sources, self._arrivals, self._has_control, self._host
        self._saturated = True
        for _ in range(MAX_READS):
            if used > last_start:
                break
            try:
                if has_control:
                    size, control, _, raw = self._sock.recvmsg_into((view[used:],), ANCILLARY_SIZE)
                    arrival = arrivals.get(tuple(control)) or self._arrival(tuple(control))
                else:
                    size, raw = self._sock.recvfrom_into(view[used:])
                    arrival = NO_CONTROL
            except BlockingIOError:
                self._saturated = False
                break
            except OSError:
                # What ICMP reported of an earlier datagram, on systems that tell (as ECONNRESET on Windows).
                self.stats.receive_errors += 1
                continue
            if size:
                batch.append(
                    Received(
                        view[used : used + size],
                        arrival.segment_size or size,
                        sources.get(raw) or self._source(raw),
                        arrival.ecn,
                        host or arrival.local_host,
                    )
                )
                used += size
        buffer.used = used
        return batch

    def _arrival(self, control: tuple[tuple[int, int, bytes], ...]) -> Arrival:
        if len(self._arrivals) >= CACHE_SIZE:
            self._arrivals.clear()
        arrival = self._arrivals[control] = decode_control(control)
        return arrival

    def _source(self, raw: tuple[object, ...]) -> SocketAddress:
        if len(self._sources) >= CACHE_SIZE:
            self._sources.clear()
        host, port = str(raw[0]), raw[1]
        assert isinstance(port, int)
        if len(raw) == 4 and isinstance(raw[3], int) and raw[3] and "%" not in host:
            host = f"{host}%{_interface_name(raw[3])}"
        source = self._sources[raw] = SocketAddress.of(host, port)
        return source

    # --- sending

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        data, segment_size = transmit.data, transmit.segment_size
        way = transmit.destination, transmit.ecn, transmit.source_host
        address, control = self._ways.get(way) or self._find_way(*way)
        size = len(data)
        if address is None:
            self.stats.unreachable += -(-size // segment_size)
            return size
        if size <= segment_size:
            return size if self._send_one(data, address, control) else 0
        view, sent = memoryview(data), 0
        step = segment_size * max(1, min(MAX_SEGMENTS, MAX_RUN // segment_size)) if self._segments else segment_size
        while sent < size:
            chunk = view[sent : sent + step]
            if len(chunk) > segment_size and self._segments:
                taken = self._send_run(chunk, address, control, transmit)
            else:
                taken = len(chunk) if self._send_one(chunk, address, control) else 0
            sent += taken
            if taken < len(chunk):
                return sent
        return sent

    def _send_one(
        self, datagram: bytes | bytearray | memoryview, address: tuple[str | int, ...], control: ControlMessages
    ) -> bool:
        """Send a datagram, or lose it; False if the socket is full."""
        try:
            if control:
                self._sock.sendmsg((datagram,), control, 0, address)
            else:
                self._sock.sendto(datagram, address)
        except BlockingIOError:
            self.stats.full += 1
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self.stats.too_big += 1
            else:
                self.stats.unreachable += 1
        return True

    def _send_run(
        self, run: memoryview, address: tuple[str | int, ...], control: ControlMessages, transmit: Transmit
    ) -> int:
        """Send several datagrams with one call; returns the bytes taken. `control` is for each alone."""
        segment_size = transmit.segment_size
        run_control = self._control(transmit.destination, transmit.ecn, transmit.source_host, segment_size)
        try:
            self._sock.sendmsg((run,), run_control, 0, address)
        except BlockingIOError:
            self.stats.full += 1
            return 0
        except OSError as error:
            # EIO: the route's device cannot do it (checksum offload is off); EINVAL: not with these sizes.
            if error.errno == errno.EIO:
                self._segments = False
            for start in range(0, len(run), segment_size):
                if not self._send_one(run[start : start + segment_size], address, control):
                    return start
        return len(run)

    def _control(
        self, destination: SocketAddress, ecn: int, source_host: str | None, segment_size: int
    ) -> ControlMessages:
        key = (destination.is_ipv6, segment_size, ecn, source_host)
        control = self._controls.get(key)
        if control is None:
            if len(self._controls) >= CACHE_SIZE:
                self._controls.clear()
            control = self._controls[key] = control_messages(
                destination,
                segment_size=segment_size,
                ecn=ecn if self.features.ecn else 0,
                source_host=source_host if self.features.packet_info else None,
            )
        return control

    def _find_way(self, destination: SocketAddress, ecn: int, source_host: str | None) -> Way:
        """Work out what the kernel wants to know of a single datagram."""
        if len(self._ways) >= CACHE_SIZE:
            self._ways.clear()
        address = self._kernel_address(destination)
        way = self._ways[destination, ecn, source_host] = (
            address, [] if address is None else self._control(destination, ecn, source_host, 0)
        )  # fmt: skip
        return way

    def _kernel_address(self, destination: SocketAddress) -> tuple[str | int, ...] | None:
        """Return the form the kernel takes, None if the socket has not got that family."""
        host, port = destination
        if not self._ipv6:
            return None if ":" in host else (host, port)
        if ":" not in host:
            return (f"::ffff:{host}", port) if self._dual else None
        host, _, scope = host.partition("%")
        return (host, port, 0, _interface_index(scope)) if scope else (host, port)

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this socket is closed")
        try:
            await trio.lowlevel.wait_writable(self._sock)
        except trio.ClosedResourceError:
            if self._closed:
                raise  # otherwise it was `interrupt`, and the caller finds out by trying

    def close(self) -> None:
        """See `DatagramSocket`."""
        if not self._closed:
            self._closed = True
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


@asynccontextmanager
async def open_udp(address: SocketAddress | None = None) -> AsyncIterator[UdpSocket]:
    """Bind a UDP socket as `UdpSocket.bind` does and close it at the end of the block."""
    sock = UdpSocket.bind(address)
    try:
        yield sock
    finally:
        sock.close()


def _bound(address: SocketAddress) -> socket.socket:
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets others take the port without it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        host, _, scope = address.host.partition("%")
        sock.bind((host, address.port, 0, _interface_index(scope)) if scope else (host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_error(address: SocketAddress, error: OSError) -> ConfigurationError:
    match error.errno:
        case errno.EADDRINUSE:
            fix = "another program has the port; stop it, or choose another port (0 takes any free one)"
        case errno.EACCES | errno.EPERM:
            fix = "this user may not; choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            fix = f"this machine has no address {address.host}; choose one of its own, or :: for all"
        case _:
            fix = error.strerror or str(error)
    return ConfigurationError(f"cannot open UDP {address}: {fix}")


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _interface_index(scope: str) -> int:
    if scope.isdigit():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        return 0
