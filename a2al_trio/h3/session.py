"""What both sides of HTTP/3 on a QUIC connection share: the core, its unidirectional streams, and going away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from a2al_trio.errors import CloseCause, ConfigurationError, ConnectionLost, Refused, StreamReset, StreamStopped
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.core import H3Core, StreamType
from a2al_trio.h3.datagram_flow import DatagramRouter
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import GoAway, Unblocked, Unwanted
from a2al_trio.h3.head_timer import HeadTimer
from a2al_trio.quic import QuicConnection, QuicReceiveStream, QuicSendStream
from a2al_trio.quic.varint import encode_varint
from a2al_trio.scopes import open_service_nursery

if TYPE_CHECKING:
    from a2al_trio.h3.exchange import ClientExchange, ServerExchange

__all__ = ["GOING_AWAY", "H3Session", "open_session"]

GOING_AWAY = "the HTTP/3 server is going away and does not process the request"


class H3Session:
    """The core of a connection, and the tasks that keep its unidirectional streams."""

    def __init__(self, connection: QuicConnection, core: H3Core, nursery: trio.Nursery) -> None:
        self.connection = connection
        self.core = core
        self.failure: H3Error | None = None
        """The error of the peer for which the connection was closed, if any."""
        self.requests: dict[int, ClientExchange | ServerExchange] = {}
        """Those a client has under way, by their streams; a server's too if there may be datagrams for them."""
        self.head_timer = HeadTimer()
        """Keeps the time for a server's requests, once it runs."""
        self._until_going_away: set[trio.CancelScope] = set()
        self._streams: dict[StreamType, QuicSendStream] = {}
        self._unsent: dict[StreamType, bytearray] = {}
        self._blocked: dict[int, trio.Event] = {}
        self._full = trio.Event()
        self.datagrams = DatagramRouter(self)
        self._nursery = nursery
        self.start(self._send_output)
        self.start(self._receive_unidirectional)
        if core.offers_datagrams:
            self.start(self.datagrams.run)
        nursery.start_soon(self._wake_at_end)

    def start(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a task up to the end of the connection, which those who use it find out about themselves."""
        self._nursery.start_soon(self._guard, task, *arguments)

    async def _guard(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await task(*arguments)
        except H3Error as error:
            self.fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def flush(self) -> None:
        """Send the output of the core, if there is any that should not wait.

        It is done at once, so that it shares a datagram with what the caller sends next.
        """
        if not self.core.has_output or not self._streams or self.connection.close_reason is not None:
            return
        for kind, data in self.core.take_output():
            unsent = self._unsent[kind]
            if not unsent:
                try:
                    accepted = self._streams[kind].send_nowait(data)
                except StreamStopped:
                    self.fail(H3Error(ErrorCode.CLOSED_CRITICAL_STREAM, "the peer stopped a stream that we need"))
                    return
                data = data[accepted:]
            if data:
                unsent += data
                self._full.set()
                if len(unsent) > self.core.config.held_size:
                    self.fail(H3Error(ErrorCode.EXCESSIVE_LOAD, "the peer does not read our QPACK streams"))
                    return

    def fail(self, error: H3Error) -> None:
        """Close the connection because of what the peer did."""
        if self.failure is None:
            self.failure = error
            self.connection.close(error.code, str(error))

    async def wait_unblocked(self, stream_id: int) -> None:
        """Wait until the stream waits for the dynamic table no more, or the connection has ended."""
        while self.core.is_blocked(stream_id):
            if (end := self.connection.close_reason) is not None:
                if end.by is CloseCause.LOCAL:
                    raise trio.ClosedResourceError("the connection was closed here")
                raise ConnectionLost(end.by, end.code, end.reason)
            event = self._blocked.setdefault(stream_id, trio.Event())
            try:
                await event.wait()
            finally:
                self._blocked.pop(stream_id, None)

    def unblock(self, stream_id: int) -> None:
        """Let whoever waits by `wait_unblocked` look again."""
        if (waiting := self._blocked.get(stream_id)) is not None:
            waiting.set()

    # --- going away (RFC 9114 §5.2) ------------------------------------------------------------------------------

    @property
    def going_away(self) -> bool:
        """Whether the peer has said that it is."""
        return self.core.peer_goaway is not None

    @contextmanager
    def until_going_away(self) -> Iterator[None]:
        """Leave the block when the server goes away."""
        with trio.CancelScope() as scope:
            self._until_going_away.add(scope)
            try:
                yield
            finally:
                self._until_going_away.discard(scope)

    def left(self) -> None:
        """One of the `requests` was removed while the peer is going away."""
        if self.core.is_client:
            self._close_if_drained()

    def _take_goaway(self, identifier: int) -> None:
        for exchange in [exchange for stream_id, exchange in self.requests.items() if stream_id >= identifier]:
            exchange.give_up(Refused(GOING_AWAY), ErrorCode.REQUEST_CANCELLED)
        for scope in self._until_going_away:
            scope.cancel()
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        if not self.requests:
            self.connection.close(ErrorCode.NO_ERROR)

    # --- unidirectional streams ----------------------------------------------------------------------------------

    async def _wake_at_end(self) -> None:
        await self.connection.wait_closed()
        for event in self._blocked.values():
            event.set()

    async def _send_output(self) -> None:
        """Open our streams, and send on them what `flush` could not."""
        streams: dict[StreamType, QuicSendStream] = {}
        for kind in (StreamType.CONTROL, StreamType.ENCODER, StreamType.DECODER):
            streams[kind] = await self.connection.open_unidirectional_stream()
            await streams[kind].send_all(encode_varint(kind))
            self._unsent[kind] = bytearray()
        self._streams = streams
        while True:
            self.flush()
            self._full = trio.Event()
            for kind, unsent in self._unsent.items():
                while unsent:
                    await streams[kind].wait_send_all_might_not_block()
                    del unsent[: streams[kind].send_nowait(bytes(unsent))]
            await self._full.wait()

    async def _receive_unidirectional(self) -> None:
        while True:
            self.start(self._receive_stream, await self.connection.accept_unidirectional_stream())

    async def _receive_stream(self, stream: QuicReceiveStream) -> None:
        while True:
            try:
                data = await stream.receive_some()
            except StreamReset:
                self.core.unidirectional_reset(stream.stream_id)
                return
            for event in self.core.receive_unidirectional(stream.stream_id, data, end=not data):
                match event:
                    case Unblocked(stream_id=stream_id):
                        self.unblock(stream_id)
                    case GoAway(identifier=identifier) if self.core.is_client:
                        self._take_goaway(identifier)
                    case Unwanted():
                        stream.stop(ErrorCode.STREAM_CREATION_ERROR)
                        await stream.aclose()
                        return
            self.flush()
            if not data:
                return


@asynccontextmanager
async def open_session(
    connection: QuicConnection, config: H3Config | None, *, is_client: bool
) -> AsyncIterator[H3Session]:
    """Start a session; leaving the block closes the connection."""
    if connection.alpn != "h3":
        raise ConfigurationError(f'HTTP/3 needs a connection with alpn=("h3",) on both sides, not {connection.alpn!r}')
    core = H3Core(is_client=is_client, config=config, datagrams=connection.takes_datagrams)
    async with open_service_nursery("HTTP/3") as nursery:
        session = H3Session(connection, core, nursery)
        try:
            yield session
        finally:
            connection.close(ErrorCode.NO_ERROR)
