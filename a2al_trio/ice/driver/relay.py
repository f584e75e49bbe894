"""A TURN allocation as a datagram socket, over UDP, TCP or TLS to the server (RFC 8656).

It serves as a base of ICE, and just as well as the one socket of a host whose network lets no UDP through.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import trio

from a2al_trio.ice.channel_data import StreamReader
from a2al_trio.ice.driver.credentials import current_credentials
from a2al_trio.ice.driver.network import IceNetwork, SystemNetwork
from a2al_trio.ice.errors import RelayFailed, StunDecodeError
from a2al_trio.ice.servers import ServerAddress, TurnServer
from a2al_trio.ice.turn import Allocated, AllocationFailed, RelayedDatagram, TurnClient
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Received, Transmit
from a2al_trio.scopes import open_service_nursery

__all__ = ["RelaySocket", "open_relay"]

_INBOX_BYTES: Final = 1_000_000
_OUTBOX_BYTES: Final = 65_536
_BATCH: Final = 64
_GOODBYE: Final = 0.2


class _UdpLink:
    """Messages to and from the server as datagrams."""

    def __init__(self, socket: DatagramSocket, server: SocketAddress) -> None:
        self._socket = socket
        self._server = server
        self._outbox: deque[Transmit] = deque()
        self._queued = trio.Event()
        self._drained = trio.Event()

    def send_nowait(self, messages: Sequence[bytes]) -> None:
        for size, group in itertools.groupby(messages, len):
            self._outbox.append(Transmit(b"".join(group), size, self._server))
        self._write()

    def _write(self) -> None:
        while self._outbox:
            run = self._outbox[0]
            taken = self._socket.send_nowait(run)
            if taken < len(run.data):
                run.data = run.data[taken:]
                self._queued.set()
                return
            self._outbox.popleft()

    @property
    def is_full(self) -> bool:
        return bool(self._outbox)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.is_full:
            await self._drained.wait()

    async def receive(self) -> list[bytes]:
        found: list[bytes] = []
        for received in await self._socket.receive():
            if received.source == self._server:
                found.extend(bytes(datagram) for datagram in received.datagrams())
        return found

    async def run_writer(self) -> None:
        """Send what the socket had no room for."""
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            while self._outbox:
                await self._socket.wait_writable()
                self._write()
            self._drained.set()
            self._drained = trio.Event()

    async def flushed(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._socket.close()
        await trio.lowlevel.checkpoint()


class _StreamLink:
    """Messages to and from the server on a stream, with a bounded queue in front of it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = StreamReader()
        self._outbox = bytearray()
        self._queued = trio.Event()
        self._drained = trio.Event()
        self._writing = False
        self._broken = False

    def send_nowait(self, messages: Sequence[bytes]) -> None:
        if not self._broken:
            for message in messages:
                self._outbox += message
            self._queued.set()

    @property
    def is_full(self) -> bool:
        return len(self._outbox) >= _OUTBOX_BYTES

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.is_full:
            await self._drained.wait()

    async def receive(self) -> list[bytes]:
        while True:
            data = await self._stream.receive_some()
            if not data:
                raise trio.BrokenResourceError("the TURN server closed the connection")
            messages = self._reader.feed(data)
            if messages:
                return messages

    async def run_writer(self) -> None:
        """Write until the stream breaks, which the reader will report."""
        try:
            while True:
                await self._queued.wait()
                self._queued = trio.Event()
                while self._outbox:
                    data, self._outbox, self._writing = bytes(self._outbox), bytearray(), True
                    await self._stream.send_all(data)
                    self._writing = False
                    self._note_drained()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken, self._writing = True, False
            self._outbox.clear()
            self._note_drained()
            await trio.aclose_forcefully(self._stream)

    def _note_drained(self) -> None:
        self._drained.set()
        self._drained = trio.Event()

    async def flushed(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._outbox or self._writing:
            await self._drained.wait()

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


_Link: TypeAlias = _UdpLink | _StreamLink


class RelaySocket:
    """The relayed address as a `DatagramSocket`: what is sent leaves from there. Made by `open_relay`."""

    def __init__(self, client: TurnClient, link: _Link, server: ServerAddress, relayed: SocketAddress) -> None:
        self.server = server
        self._client = client
        self._link = link
        self._relayed = relayed
        self._inbox: deque[Received] = deque()
        self._inbox_bytes = 0
        self._arrived = trio.Event()
        self._lost = trio.Event()
        self._reason = ""
        self._timer = trio.CancelScope()
        self._closed = False
        self._receiving = False

    @property
    def local_address(self) -> SocketAddress:
        """The relayed address."""
        return self._relayed

    async def wait_lost(self) -> str:
        """Wait until the allocation ends otherwise than by closing, and return why; nothing passes any more."""
        await self._lost.wait()
        return self._reason

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`; a lost allocation is silence."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this relay")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._inbox and not self._closed:
                await self._arrived.wait()
        finally:
            self._receiving = False
        if self._closed:
            raise trio.ClosedResourceError("this relay is closed")
        batch = [self._inbox.popleft() for _ in range(min(_BATCH, len(self._inbox)))]
        self._inbox_bytes -= sum(len(received.data) for received in batch)
        if not self._inbox:
            self._arrived = trio.Event()
        return batch

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this relay is closed")
        view, size, taken = memoryview(transmit.data), transmit.segment_size, 0
        now = trio.current_time()
        room = _OUTBOX_BYTES if not self._link.is_full else 0
        while taken < len(view) and room > 0:
            datagram = view[taken : taken + size]
            self._client.send(transmit.destination, datagram, now)
            taken += len(datagram)
            room -= len(datagram)
        self._flush()
        return taken

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        if self._closed:
            raise trio.ClosedResourceError("this relay is closed")
        await self._link.wait_writable()

    def close(self) -> None:
        """Stop using it; leaving `open_relay` gives the allocation back."""
        self._closed = True
        self._arrived.set()

    # --- driving the client -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._link.send_nowait(list(self._client.messages()))
        while (event := self._client.next_event()) is not None:
            match event:
                case RelayedDatagram(peer, data):
                    self._take(peer, data)
                case AllocationFailed(reason):
                    self._lose(reason)
                case Allocated():
                    pass  # taken by open_relay
        timeout = self._client.next_timeout()
        self._timer.deadline = float("inf") if timeout is None else timeout

    def _take(self, peer: SocketAddress, data: memoryview) -> None:
        if len(data) and self._inbox_bytes + len(data) <= _INBOX_BYTES:
            self._inbox.append(Received(data, len(data), peer))
            self._inbox_bytes += len(data)
            self._arrived.set()

    def _lose(self, reason: str) -> None:
        if not self._lost.is_set():
            self._reason = f"{self.server}: {reason}"
            self._lost.set()

    async def _run_receiver(self) -> None:
        try:
            while True:
                for message in await self._link.receive():
                    self._client.receive(message, trio.current_time())
                self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError, StunDecodeError, OSError) as error:
            self._lose(str(error) or "the connection broke")

    async def _run_timer(self) -> None:
        while not self._lost.is_set():
            timeout = self._client.next_timeout()
            with trio.CancelScope(deadline=float("inf") if timeout is None else timeout) as self._timer:
                await trio.sleep_forever()
            self._client.handle_timeout(trio.current_time())
            self._flush()


@asynccontextmanager
async def open_relay(
    server: TurnServer, *, network: IceNetwork | None = None, ipv6: bool = False
) -> AsyncIterator[RelaySocket]:
    """Allocate an address at a TURN server; `ipv6` asks for an IPv6 one.

    Raises `RelayFailed` if there is none to be had (within 8 s or so of silence), `ConfigurationError` for a bad URI.
    Leaving the block gives the allocation back.
    """
    network = network or SystemNetwork()
    address = server.address
    credentials = await current_credentials(server)
    target = address
    for last in (False, True):
        async with _open_link(target, network) as link, open_service_nursery(f"relay at {address}") as nursery:
            nursery.start_soon(link.run_writer)
            client = TurnClient(
                credentials.username,
                credentials.password,
                entropy=os.urandom,
                reliable=isinstance(link, _StreamLink),
                ipv6=ipv6,
            )
            allocated = await _allocate(client, link)
            if isinstance(allocated, Allocated):
                relay = RelaySocket(client, link, address, allocated.relayed)
                nursery.start_soon(relay._run_receiver)
                nursery.start_soon(relay._run_timer)
                try:
                    yield relay
                finally:
                    relay.close()
                    await _say_goodbye(client, link)
                return
            if last or allocated.redirect is None:
                raise RelayFailed(f"{address}: {allocated.reason}")
            target = ServerAddress(
                allocated.redirect.host, allocated.redirect.port, True, target.transport, target.secure
            )


@asynccontextmanager
async def _open_link(address: ServerAddress, network: IceNetwork) -> AsyncIterator[_Link]:
    link: _Link
    try:
        if address.transport == "tcp":
            link = _StreamLink(await network.open_stream(address.host, address.port, tls=address.secure))
        else:
            found = await network.resolve(address.host, address.port)
            if not found:
                raise RelayFailed(f"{address} has no address")
            link = _UdpLink(network.bind("::" if found[0].is_ipv6 else "0.0.0.0"), found[0])
    except (OSError, trio.BrokenResourceError) as error:
        raise RelayFailed(f"{address} cannot be reached: {error}") from error
    try:
        yield link
    finally:
        with trio.CancelScope(shield=True):
            await link.aclose()


async def _allocate(client: TurnClient, link: _Link) -> Allocated | AllocationFailed:
    client.start(trio.current_time())
    while True:
        link.send_nowait(list(client.messages()))
        while (event := client.next_event()) is not None:
            if isinstance(event, (Allocated, AllocationFailed)):
                return event
        timeout = client.next_timeout()
        messages: list[bytes] = []
        try:
            with trio.move_on_at(float("inf") if timeout is None else timeout):
                messages = await link.receive()
        except (OSError, trio.BrokenResourceError, StunDecodeError) as error:
            return AllocationFailed(str(error) or "the connection broke")
        for message in messages:
            client.receive(message, trio.current_time())
        client.handle_timeout(trio.current_time())


async def _say_goodbye(client: TurnClient, link: _Link) -> None:
    """Release the allocation (RFC 8656 §8); the answer is not waited for."""
    client.close(trio.current_time())
    link.send_nowait(list(client.messages()))
    with trio.move_on_after(_GOODBYE, shield=True):
        await link.flushed()
