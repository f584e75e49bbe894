"""Datagrams that belong to a request (RFC 9297): in QUIC datagrams where those are had, in capsules otherwise."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import trio

from a2al_trio.errors import ConnectionLost, LocalProtocolError, StreamReset
from a2al_trio.h3.datagrams import CapsuleReader, CapsuleType, encode_capsule, encode_datagram
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.quic.varint import varint_size
from a2al_trio.scopes import open_service_nursery

if TYPE_CHECKING:
    from a2al_trio.h3.exchange import ClientExchange, ServerExchange
    from a2al_trio.h3.session import H3Session

__all__ = ["DatagramRouter", "HttpDatagrams", "open_http_datagrams"]

CAPACITY = 64
"""Datagrams of one request that wait to be received; then capsules are not read, and QUIC datagrams are dropped."""
EARLY = 32
"""Datagrams kept of requests for which nobody has opened their datagrams yet (RFC 9297 §2.1); the oldest goes first."""
LARGEST = 64 * 1024
"""Largest datagram taken from a capsule, in bytes."""


class HttpDatagrams:
    """The datagrams of one request, in both directions; `open_http_datagrams` makes one.

    One task may send and one may receive at a time.
    """

    def __init__(self, exchange: ClientExchange | ServerExchange, session: H3Session) -> None:
        self._exchange = exchange
        self._session = session
        self._arrived: deque[bytes] = deque()
        self._end: Exception | None = None
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def max_unreliable_size(self) -> int | None:
        """Bytes of the largest payload that travels in a QUIC datagram now; None if the peer takes no such datagrams.

        They are taken from when the peer's settings have come, if the QuicConfig of both sides allows them.
        """
        largest = self._session.connection.max_datagram_size - varint_size(self._exchange.stream_id >> 2)
        return largest if self._session.core.takes_datagrams and largest >= 0 else None

    async def send(self, payload: bytes) -> None:
        """Send a datagram; one that fits in no QUIC datagram goes as a capsule, and waits while the peer takes none.

        QUIC datagrams may be lost, may overtake each other, and are dropped if more are sent than the path takes.

        Raises as `send_data` of the exchange does.
        """
        largest = self.max_unreliable_size
        if largest is None or len(payload) > largest:
            await self._exchange.send_data(encode_capsule(CapsuleType.DATAGRAM, payload))
            return
        await trio.lowlevel.checkpoint()
        self._exchange.require_sending()
        self._session.connection.send_datagram(encode_datagram(self._exchange.stream_id, payload))

    async def receive(self) -> bytes:
        """Wait for a datagram.

        Raises:
            trio.EndOfChannel: the peer has completed its message.
            H3Error, StreamReset, ConnectionLost, trio.ClosedResourceError: as for the exchange.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._arrived:
            if self._end is not None:
                raise self._end
            await self._changed.park()
        payload = self._arrived.popleft()
        self._changed.unpark_all()
        return payload

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def _take(self, payload: bytes) -> None:
        """One came in a QUIC datagram."""
        if len(self._arrived) < CAPACITY and self._end is None:
            self._arrived.append(payload)
            self._changed.unpark_all()

    async def _read_capsules(self) -> None:
        """Read the content of the message to its end."""
        exchange = self._exchange
        reader = CapsuleReader(exchange.stream_id, limit=LARGEST)
        try:
            while content := await exchange.receive_some():
                for payload in reader.receive(content):
                    while len(self._arrived) >= CAPACITY:
                        await self._changed.park()
                    self._arrived.append(payload)
                    self._changed.unpark_all()
            reader.finish()
            self._end = trio.EndOfChannel("the peer has completed its message")
        except H3Error as error:
            if error.stream_id is not None:
                exchange.give_up(error, error.code)
            self._end = error
        except (StreamReset, ConnectionLost, trio.ClosedResourceError) as error:
            self._end = error
        self._changed.unpark_all()


class DatagramRouter:
    """Hands the QUIC datagrams of a connection to the requests they belong to."""

    def __init__(self, session: H3Session) -> None:
        self._session = session
        self._flows: dict[int, HttpDatagrams] = {}
        self._early: deque[tuple[int, bytes]] = deque(maxlen=EARLY)

    async def run(self) -> None:
        """Receive them; raises H3Error for one that cannot be read."""
        session = self._session
        while True:
            stream_id, payload = session.core.receive_datagram(await session.connection.receive_datagram())
            flow, exchange = self._flows.get(stream_id), session.requests.get(stream_id)
            if flow is not None:
                flow._take(payload)
            elif exchange is None or exchange.is_tunnel is not False:
                self._early.append((stream_id, payload))
            else:
                error = H3Error(ErrorCode.DATAGRAM_ERROR, "a datagram for a request that has none", stream_id)
                exchange.give_up(error, error.code)

    def join(self, stream_id: int, flow: HttpDatagrams) -> None:
        """From here on the datagrams of a request are for `flow`, and so are those that came early."""
        self._flows[stream_id] = flow
        for early in [early for early in self._early if early[0] == stream_id]:
            self._early.remove(early)
            flow._take(early[1])

    def leave(self, stream_id: int) -> None:
        """Nobody wants the datagrams of a request any more."""
        self._flows.pop(stream_id, None)


@asynccontextmanager
async def open_http_datagrams(exchange: ClientExchange | ServerExchange) -> AsyncIterator[HttpDatagrams]:
    """Send and receive datagrams that belong to an extended CONNECT request which has been answered with success.

    Both sides have to know from `protocol` that the request has datagrams. The content of the exchange is capsules from
    here on, so send and receive none yourself. QUIC datagrams are used if the QuicConfig of both sides has a
    `max_datagram_frame_size`.

    Raises LocalProtocolError for a request that is no extended CONNECT, or whose heads have not been exchanged.
    """
    session = exchange._session
    if not exchange.is_tunnel or not exchange._head_received or not exchange._head_sent:
        raise LocalProtocolError("datagrams belong to extended CONNECT requests, once request and response have begun")
    flow = HttpDatagrams(exchange, session)
    async with open_service_nursery("HTTP datagrams") as nursery:
        session.datagrams.join(exchange.stream_id, flow)
        try:
            nursery.start_soon(flow._read_capsules)
            yield flow
        finally:
            session.datagrams.leave(exchange.stream_id)
            nursery.cancel_scope.cancel()
