"""HTTP/3 on a QUIC connection: the unidirectional streams, and the exchanges of either side."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import trio

from a2al_trio.errors import CloseCause, ConfigurationError, ConnectionLost, Refused, StreamReset, StreamStopped
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.core import H3Core, StreamType
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import Unblocked, Unwanted
from a2al_trio.h3.exchange import ClientExchange, ServerExchange
from a2al_trio.h3.fields import RequestHead
from a2al_trio.quic import QuicConnection, QuicReceiveStream, QuicSendStream, QuicStream
from a2al_trio.quic.varint import encode_varint
from a2al_trio.scopes import open_service_nursery

__all__ = ["H3Client", "H3Server", "H3Session", "open_h3_client", "open_h3_server"]

logger = logging.getLogger(__name__)


class H3Session:
    """What both sides share: the core, and the tasks that keep its unidirectional streams."""

    def __init__(self, connection: QuicConnection, core: H3Core) -> None:
        self.connection = connection
        self.core = core
        self.failure: H3Error | None = None
        """The error of the peer for which the connection was closed, if any."""
        self._streams: dict[StreamType, QuicSendStream] = {}
        self._unsent: dict[StreamType, bytearray] = {}
        self._blocked: dict[int, trio.Event] = {}
        self._full = trio.Event()

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

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        nursery.start_soon(self._guard, self._send_output)
        nursery.start_soon(self._guard, self._receive_unidirectional, nursery)
        nursery.start_soon(self._wake_at_end)

    async def _guard(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Run a task up to the end of the connection, which those who use it find out about themselves."""
        try:
            await task(*arguments)
        except H3Error as error:
            self.fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

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

    async def _receive_unidirectional(self, nursery: trio.Nursery) -> None:
        while True:
            stream = await self.connection.accept_unidirectional_stream()
            nursery.start_soon(self._guard, self._receive_stream, stream)

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
                        if (waiting := self._blocked.get(stream_id)) is not None:
                            waiting.set()
                    case Unwanted():
                        stream.stop(ErrorCode.STREAM_CREATION_ERROR)
                        await stream.aclose()
                        return
            self.flush()
            if not data:
                return


class H3Client:
    """Our side of a connection on which we make requests; `open_h3_client` makes one."""

    def __init__(self, session: H3Session) -> None:
        self._session = session

    @property
    def going_away(self) -> bool:
        """Whether the server has announced that it takes no further requests."""
        return self._session.core.peer_goaway is not None

    @property
    def takes_extended_connect(self) -> bool:
        """Whether the server has said that it takes requests with a `protocol` (RFC 9220 §3)."""
        return self._session.core.takes_extended_connect

    async def request(self, head: RequestHead, content: bytes = b"", *, end: bool = False) -> ClientExchange:
        """Begin a request with the first of its content, waiting while the server allows no more.

        `end` says that no more content comes.

        Raises:
            Refused: the server is going away; make another connection.
            LocalProtocolError: the head is malformed, or larger than the server takes.
            H3Error, ConnectionLost, trio.ClosedResourceError: the connection has ended.
        """
        session = self._session
        fields = session.core.head_fields(head)
        try:
            stream = await session.connection.open_stream()
        except (trio.ClosedResourceError, ConnectionLost):
            if session.failure is not None:
                raise session.failure from None
            raise
        exchange = ClientExchange(session, stream)
        if self.going_away:
            await exchange.abandon()
            raise Refused("the HTTP/3 server is going away")
        try:
            await exchange._begin(fields, content, end=end)
        except BaseException:
            await exchange.abandon()
            raise
        return exchange


class H3Server:
    """Our side of a connection on which we answer requests; `open_h3_server` makes one."""

    def __init__(self, session: H3Session) -> None:
        self._session = session
        self._next_stream_id = 0

    async def accept(self) -> ServerExchange:
        """Wait for the next request. Its head may not have come yet.

        Raises H3Error, ConnectionLost or trio.ClosedResourceError when the connection has ended.
        """
        session = self._session
        while True:
            try:
                stream = await session.connection.accept_stream()
            except (trio.ClosedResourceError, ConnectionLost):
                if session.failure is not None:
                    raise session.failure from None
                raise
            exchange = self._exchange(stream)
            if session.core.goaway is None:
                return exchange
            exchange.reset(ErrorCode.REQUEST_REJECTED)
            await exchange.aclose()

    async def serve(self, handler: Callable[[ServerExchange], Awaitable[object]]) -> None:
        """Run `handler` for every request, side by side, until the client closes the connection without an error.

        The tasks are used again, so a handler finds the context variables as the one before it left them. A request
        that ends by the client's doing ends its handler quietly; any other error propagates. Raises as `accept` does.
        """
        session = self._session

        async def handle(stream: QuicStream) -> None:
            exchange = self._exchange(stream)
            if session.core.goaway is not None:
                exchange.reset(ErrorCode.REQUEST_REJECTED)
                return
            try:
                await handler(exchange)
                exchange._end(failed=False)  # the stream itself is closed by who gave it to us
            except H3Error as error:
                exchange._end(failed=True)
                logger.debug("a request of %s ended: %s", session.connection.peer_address, error)
            except BaseException:
                exchange._end(failed=True)
                raise

        try:
            await session.connection.serve(handle)
        except (trio.ClosedResourceError, ConnectionLost) as error:
            if session.failure is not None:
                raise session.failure from None
            if not (isinstance(error, ConnectionLost) and _is_goodbye(error)):
                raise

    def _exchange(self, stream: QuicStream) -> ServerExchange:
        self._next_stream_id = max(self._next_stream_id, stream.stream_id + 4)
        return ServerExchange(self._session, stream)

    def go_away(self) -> None:
        """Take no further requests: the client is told, and later ones are rejected (RFC 9114 §5.2)."""
        self._session.core.send_goaway(self._next_stream_id)
        self._session.flush()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerExchange:
        """The next request; the iteration ends when the client closes the connection without an error."""
        try:
            return await self.accept()
        except ConnectionLost as lost:
            if _is_goodbye(lost):
                raise StopAsyncIteration from None
            raise


def _is_goodbye(lost: ConnectionLost) -> bool:
    return lost.by is CloseCause.PEER_APP and lost.code in (0, ErrorCode.NO_ERROR)


@asynccontextmanager
async def _open_session(
    connection: QuicConnection, config: H3Config | None, *, is_client: bool
) -> AsyncIterator[H3Session]:
    if connection.alpn != "h3":
        raise ConfigurationError(f'HTTP/3 needs a connection with alpn=("h3",) on both sides, not {connection.alpn!r}')
    session = H3Session(connection, H3Core(is_client=is_client, config=config))
    async with open_service_nursery("HTTP/3") as nursery:
        session.start(nursery)
        if is_client:
            nursery.start_soon(session._guard, _refuse_streams, session)
        try:
            yield session
        finally:
            connection.close(ErrorCode.NO_ERROR)


async def _refuse_streams(session: H3Session) -> None:
    await session.connection.accept_stream()
    raise H3Error(ErrorCode.STREAM_CREATION_ERROR, "a server opened a bidirectional stream")


@asynccontextmanager
async def open_h3_client(connection: QuicConnection, config: H3Config | None = None) -> AsyncIterator[H3Client]:
    """Make HTTP/3 requests on a connection whose ALPN is "h3"; leaving the block closes the connection."""
    async with _open_session(connection, config, is_client=True) as session:
        yield H3Client(session)


@asynccontextmanager
async def open_h3_server(connection: QuicConnection, config: H3Config | None = None) -> AsyncIterator[H3Server]:
    """Answer HTTP/3 requests on a connection whose ALPN is "h3"; leaving the block closes the connection."""
    async with _open_session(connection, config, is_client=False) as session:
        yield H3Server(session)
