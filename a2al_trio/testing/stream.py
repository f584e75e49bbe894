"""TCP between the hosts of a `SimNet`, as far as applications see it: ordered bytes after the latency of the path.

Every NAT lets TCP out and nothing in. Loss only delays; while a link of the path is broken nothing arrives, and
it is tried again ever more seldom. There is no rate limit.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable

import attrs
import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.fabric import HostNode, NatNode
from a2al_trio.testing.link import LinkDirection

__all__ = ["SimListener", "SimStream", "TcpRoute", "connect", "find_route"]

WINDOW = 64 * 1024  # bytes under way in one direction
FIRST_RETRY, LAST_RETRY = 0.2, 10.0
CONNECT_LIMIT = 20.0


@attrs.frozen(eq=False)
class TcpRoute:
    """The way from one host to another: as whom the first is seen, and the links passed."""

    source_host: str
    target: HostNode
    links: tuple[LinkDirection, ...]

    @property
    def latency(self) -> float:
        """Seconds one way."""
        return sum(direction.link.latency for direction in self.links)

    @property
    def is_open(self) -> bool:
        """Whether anything arrives at present."""
        return all(direction.link.loss < 1 for direction in self.links)

    async def pass_one_way(self, sent_at: float) -> None:
        """Wait until what was sent then arrives, with all its retransmissions."""
        await trio.sleep_until(sent_at + self.latency)
        retry = FIRST_RETRY
        while not self.is_open:
            await trio.sleep(retry)
            retry = min(2 * retry, LAST_RETRY)


def find_route(host: HostNode, destination: str) -> TcpRoute | None:
    """The way of a TCP connection; None if the address does not exist or a NAT is in front of it."""
    ipv6 = ":" in destination
    own = [address for address in host.hosts if (":" in address) == ipv6]
    if destination in host.hosts or destination in ("127.0.0.1", "::1"):
        return TcpRoute(destination, host, ())
    if not own:
        return None
    source, segment, links = own[0], host.segment, [host.up]
    while True:
        node = segment.member(destination)
        if isinstance(node, HostNode):
            return TcpRoute(source, node, (*links, node.down))
        gateway = segment.gateway
        if gateway is None or isinstance(node, NatNode):
            return None
        source = source if ipv6 else gateway.hosts[0]
        links.append(gateway.up)
        segment = gateway.segment


class _Pipe:
    """One direction of a connection."""

    def __init__(self, route: TcpRoute) -> None:
        self.route = route
        self._chunks: deque[tuple[float, bytes]] = deque()  # with the time of sending; b"" is the end
        self._size = 0
        self._changed = trio.Event()
        self.is_reset = False
        self.ended = False

    def wake(self) -> None:
        """Let waiting tasks look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def put(self, data: bytes) -> None:
        """Send some, waiting while the window is full."""
        view = memoryview(data)
        while view:
            self._check()
            if self.ended:
                raise trio.BrokenResourceError("the stream was ended meanwhile")
            room = WINDOW - self._size
            if room <= 0:
                await self._changed.wait()
                continue
            part, view = bytes(view[:room]), view[room:]
            self._append(part)

    def end(self) -> None:
        """Send the end, unless it was sent already."""
        if not self.ended:
            self.ended = True
            self._append(b"")

    def reset(self) -> None:
        """Break the connection for both ends."""
        self.is_reset = True
        self.wake()

    def _append(self, chunk: bytes) -> None:
        self._chunks.append((trio.current_time(), chunk))
        self._size += len(chunk)
        self.wake()

    def _check(self) -> None:
        if self.is_reset:
            raise trio.BrokenResourceError("the connection was reset")

    async def get(self, limit: int) -> bytes:
        """Take what has arrived, waiting for at least one byte or the end."""
        while not self._chunks:
            self._check()
            await self._changed.wait()
        await self.route.pass_one_way(self._chunks[0][0])
        self._check()
        at, chunk = self._chunks[0]
        if not chunk:
            return b""
        if len(chunk) > limit:
            self._chunks[0] = (at, chunk[limit:])
            chunk = chunk[:limit]
        else:
            self._chunks.popleft()
        self._size -= len(chunk)
        self.wake()
        return chunk


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a simulated TCP connection."""

    def __init__(self, sending: _Pipe, receiving: _Pipe, local: SocketAddress, peer: SocketAddress) -> None:
        self._sending = sending
        self._receiving = receiving
        self._closed = False
        self._sender_busy = False
        self._receiver_busy = False
        self.local_address = local
        self.peer_address = peer
        """The other end, as seen from here: behind a NAT it is the NAT's address."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        if self._sending.ended:
            raise trio.ClosedResourceError("send_eof was called")
        if self._sender_busy:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sender_busy = True
        try:
            await self._sending.put(bytes(data))
        except trio.BrokenResourceError:
            self._require_open()
            raise
        finally:
            self._sender_busy = False

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await trio.lowlevel.checkpoint()
        self._require_open()

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        self._sending.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`."""
        await trio.lowlevel.checkpoint()
        self._require_open()
        if self._receiver_busy:
            raise trio.BusyResourceError("another task is receiving from this stream")
        limit = WINDOW if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        self._receiver_busy = True
        try:
            return await self._receiving.get(limit)
        except trio.BrokenResourceError:
            self._require_open()
            raise
        finally:
            self._receiver_busy = False

    def _require_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")

    def reset(self) -> None:
        """Break the connection, as a host that restarts; both ends raise `trio.BrokenResourceError`."""
        self._sending.reset()
        self._receiving.reset()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        if not self._closed:
            self._closed = True
            self._sending.end()
            self._sending.wake()
            # The peer learns with its next send that nobody reads any more.
            self._receiving.reset()
        await trio.lowlevel.checkpoint()


class SimListener(trio.abc.Listener[SimStream]):
    """A listening TCP socket of a simulated host."""

    def __init__(self, local: SocketAddress, unbind: Callable[[], object]) -> None:
        self.local_address = local
        self._unbind = unbind
        self._send, self._receive = trio.open_memory_channel[SimStream](64)

    async def accept(self) -> SimStream:
        """See `trio.abc.Listener`."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError("this listener is closed") from None

    async def aclose(self) -> None:
        """Stop listening; connections live on."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Stop listening at once."""
        self._unbind()
        self._send.close()

    def connect(self, route: TcpRoute, back: TcpRoute, port: int) -> SimStream:
        """Make a connection to this listener and return the dialler's end; raises OSError if too many wait."""
        there, here = _Pipe(route), _Pipe(back)
        source = SocketAddress(route.source_host, port)
        try:
            self._send.send_nowait(SimStream(here, there, self.local_address, source))
        except trio.WouldBlock:
            raise ConnectionRefusedError(f"{self.local_address} has no room for another connection") from None
        return SimStream(there, here, SocketAddress(back.target.hosts[0], port), self.local_address)


async def connect(
    host: HostNode, destination: SocketAddress, port: int, listeners: Callable[[HostNode], SimListener | None]
) -> SimStream:
    """Connect from a host; raises OSError as a real connect does."""
    route = find_route(host, destination.host)
    if route is None:
        await trio.sleep(CONNECT_LIMIT)
        raise TimeoutError(f"no answer from {destination}")
    back = TcpRoute(destination.host, host, route.links)
    with trio.move_on_after(CONNECT_LIMIT) as limit:
        await route.pass_one_way(trio.current_time())
        await back.pass_one_way(trio.current_time())
    if limit.cancelled_caught:
        raise TimeoutError(f"no answer from {destination}")
    listener = listeners(route.target)
    if listener is None:
        raise ConnectionRefusedError(f"nobody listens on {destination}")
    return listener.connect(route, back, port)
