"""The side of an HTTP/3 connection that answers requests."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import trio

from a2al_trio.errors import CloseCause, ConnectionLost
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.exchange import ServerExchange
from a2al_trio.h3.session import H3Session, open_session
from a2al_trio.quic import QuicConnection, QuicStream

__all__ = ["H3Server", "open_h3_server"]

logger = logging.getLogger(__name__)

GOODBYE = 0.5
"""Seconds a client has to hear that we go away, and to end the connection itself, before we do."""


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
            if self._takes(exchange):
                return exchange
            await exchange.abandon(ErrorCode.REQUEST_REJECTED)

    async def serve(self, handler: Callable[[ServerExchange], Awaitable[object]]) -> None:
        """Run `handler` for every request, side by side, until the client closes the connection without an error.

        The tasks are used again, so a handler finds the context variables as the one before it left them. A request
        that ends by the client's doing ends its handler quietly; any other error propagates. Raises as `accept` does.
        """
        session, core = self._session, self._session.core

        async def handle(stream: QuicStream) -> None:
            exchange = self._exchange(stream)
            if core.goaway is not None and not self._takes(exchange):
                exchange.reset(ErrorCode.REQUEST_REJECTED)
                return
            try:
                await handler(exchange)
                exchange._end(None)  # the stream itself is closed by who gave it to us
            except H3Error as error:
                exchange._end(error)
                logger.debug("a request of %s ended: %s", session.connection.peer_address, error)
            except BaseException as error:
                exchange._end(error)
                raise

        try:
            await session.connection.serve(handle)
        except (trio.ClosedResourceError, ConnectionLost) as error:
            if session.failure is not None:
                raise session.failure from None
            if not (isinstance(error, ConnectionLost) and _is_goodbye(error)):
                raise

    def _takes(self, exchange: ServerExchange) -> bool:
        """Whether the request is not among those that were refused by going away."""
        limit = self._session.core.goaway
        return limit is None or exchange.stream_id < limit

    def _exchange(self, stream: QuicStream) -> ServerExchange:
        stream_id, session = stream.stream_id, self._session
        if stream_id >= self._next_stream_id:
            self._next_stream_id = stream_id + 4
        exchange = ServerExchange(session, stream)
        if session.core.offers_datagrams:
            session.requests[stream_id] = exchange
        return exchange

    def go_away(self) -> None:
        """Take no further requests: the client is told, and later ones are rejected (RFC 9114 §5.2)."""
        self._session.core.send_goaway(self._next_stream_id)
        self._session.flush()

    async def _say_goodbye(self) -> None:
        """Go away, and let the client end the connection when it has what was sent to it."""
        self.go_away()
        with trio.move_on_after(GOODBYE, shield=True):
            await self._session.connection.wait_closed()

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
async def open_h3_server(connection: QuicConnection, config: H3Config | None = None) -> AsyncIterator[H3Server]:
    """Answer HTTP/3 requests on a connection whose ALPN is "h3".

    Leaving the block says goodbye: the client is told from which request on none was processed, so that it makes those
    elsewhere (RFC 9114 §5.2), and the connection is closed when the client has heard it, half a second later at most.
    """
    async with open_session(connection, config, is_client=False) as session:
        session.start(session.head_timer.run)
        server = H3Server(session)
        try:
            yield server
        finally:
            await server._say_goodbye()
