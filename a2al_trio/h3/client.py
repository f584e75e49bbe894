"""The side of an HTTP/3 connection that makes requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from a2al_trio.errors import ConnectionLost, Refused
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.exchange import ENDS, ClientExchange
from a2al_trio.h3.fields import RequestHead
from a2al_trio.h3.session import GOING_AWAY, H3Session, open_session
from a2al_trio.quic import QuicConnection, QuicStream

__all__ = ["H3Client", "open_h3_client"]

CROWD = 100
"""Requests under way from which on another may have to wait: servers should allow so many (RFC 9114 §6.1)."""


class H3Client:
    """Our side of a connection on which we make requests; `open_h3_client` makes one.

    When the server goes away (RFC 9114 §5.2), requests it does not process raise Refused wherever they are; the others
    go on, and the connection is closed when all have been left.
    """

    def __init__(self, session: H3Session) -> None:
        self._session = session

    @property
    def going_away(self) -> bool:
        """Whether the server has announced that it takes no further requests."""
        return self._session.going_away

    @property
    def takes_extended_connect(self) -> bool:
        """Whether the server has said that it takes requests with a `protocol` (RFC 9220 §3)."""
        return self._session.core.takes_extended_connect

    async def request(self, head: RequestHead, content: bytes = b"", *, end: bool = False) -> ClientExchange:
        """Begin a request with the first of its content, waiting while the server allows no more.

        `end` says that no more content comes.

        Raises:
            Refused: the server is going away and does not process the request; make another connection.
            LocalProtocolError: the head is malformed, or larger than the server takes.
            H3Error, ConnectionLost, trio.ClosedResourceError: the connection has ended.
        """
        session, core = self._session, self._session.core
        if core.peer_goaway is not None:
            raise Refused(GOING_AWAY)
        section = core.head_section(head)
        try:
            requests = session.requests
            stream = await (session.connection.open_stream() if len(requests) < CROWD else self._wait_for_stream())
        except (trio.ClosedResourceError, ConnectionLost):
            if session.failure is not None:
                raise session.failure from None
            if core.peer_goaway is not None:
                raise Refused(GOING_AWAY) from None
            raise
        exchange = requests[stream.stream_id] = ClientExchange(session, stream, head.protocol != b"")
        try:
            if core.peer_goaway is not None:
                raise Refused(GOING_AWAY)
            if len(content) != section.announced:
                await exchange._send(exchange._encode(section), content, end=end)
                return exchange
            exchange._sent_all = end
            data = section.opening + content
            try:
                # There is room for as much in a new stream, as a rule, and opening it was a checkpoint.
                sent = stream.send_nowait(data, end=end)
                if sent < len(data):
                    await stream.send_all(data[sent:], end=end)
            except ENDS as error:
                exchange._settle(error)
                raise
        except BaseException:
            await exchange.abandon()
            raise
        return exchange

    async def _wait_for_stream(self) -> QuicStream:
        """Open a stream when that may take a while, and the server may go away meanwhile."""
        with self._session.until_going_away():
            return await self._session.connection.open_stream()
        raise Refused(GOING_AWAY)


async def _refuse_streams(session: H3Session) -> None:
    await session.connection.accept_stream()
    raise H3Error(ErrorCode.STREAM_CREATION_ERROR, "a server opened a bidirectional stream")


@asynccontextmanager
async def open_h3_client(connection: QuicConnection, config: H3Config | None = None) -> AsyncIterator[H3Client]:
    """Make HTTP/3 requests on a connection whose ALPN is "h3"; leaving the block closes the connection."""
    async with open_session(connection, config, is_client=True) as session:
        session.start(_refuse_streams, session)
        yield H3Client(session)
