"""A connection between two agents (spec 04 §1): authenticated on both sides, carrying the application's streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.service_streams import Offers, start_service_stream
from a2al_trio.host.session import KeptSession
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import CloseReason, ConnectionStats, QuicConnection, QuicStream

__all__ = ["AgentConnection"]

T = TypeVar("T")

TAKING_LIMIT = 1.0
"""Seconds an acceptor has for taking a connection that is closed at once."""


class AgentConnection(trio.abc.AsyncResource):
    """One (local agent, remote agent) pair, with any number of streams.

    Leaving `async with` closes it with code 0, which ends the peer's `async for stream in connection`. The side
    that received the last data closes first; the other awaits `wait_closed()`: closing drops what the peer has
    not read yet.
    """

    def __init__(
        self,
        quic: QuicConnection,
        *,
        local: Address,
        remote: Address,
        incoming: trio.MemoryReceiveChannel[QuicStream] | None = None,
        offers: Offers | None = None,
        path: Callable[[], str] | None = None,
        background: trio.Nursery | None = None,
    ) -> None:
        self._quic = quic
        self._incoming = incoming
        self._offers = offers
        self._path = path
        self._background = background
        self._kept: KeptSession[Any] | None = None
        self.local = local
        """The agent on this side."""
        self.remote = remote
        """The agent on the other side, as its certificate proves."""

    @property
    def incoming(self) -> bool:
        """Whether the other side dialled."""
        return self._incoming is not None

    def __repr__(self) -> str:
        return f"<AgentConnection {self.local} to {self.remote} at {self.peer_address}>"

    @property
    def alpn(self) -> str | None:
        """What the connection speaks: `a2al-quic-1`, whose streams are the application's, or `h3`."""
        return self._quic.alpn

    @property
    def peer_address(self) -> SocketAddress:
        """Where the peer's packets come from now."""
        return self._quic.peer_address

    @property
    def path(self) -> str:
        """How the peer is reached now, in words.

        It begins with `direct` (`direct 192.0.2.1:4121`), `ICE` (through NATs) or `relayed` (over a TURN server).
        """
        return self._path() if self._path is not None else f"direct {self._quic.peer_address}"

    @property
    def stats(self) -> ConnectionStats:
        """Round-trip time, window, loss and bytes so far."""
        return self._quic.stats

    @property
    def peer_certificates(self) -> tuple[bytes, ...]:
        """The peer's certificate chain, DER, leaf first."""
        return self._quic.peer_certificates

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the connection ended, or None while it lives."""
        return self._quic.close_reason

    async def ping(self) -> None:
        """Wait for a sign of life from the peer, asking for it; raises as `open_stream` does.

        Takes a round trip or, if the peer is gone, until the connection ends: 20 s, over a path that ICE found 30 s.
        For less, put it in a cancel scope.
        """
        await self._quic.ping()

    async def open_stream(self) -> QuicStream:
        """Open a stream in both directions; waits while the peer's stream limit is reached.

        Raises ConnectionLost if the connection has ended or ends meanwhile.
        """
        return await self._quic.open_stream()

    async def open_service_stream(self, token: str = "") -> QuicStream:
        """Open a stream and have it admitted by the peer, with a ticket if it asks for one (spec 08 §4).

        Needed where the other side speaks first, as in SSH or SMTP, or asks for a ticket; takes a round trip more
        than `open_stream`. A peer that does not know admission gets a raw stream, and no ticket.

        Raises Refused with the peer's reason, WireEncodeError for a token over 256 bytes, and ConnectionLost.
        """
        admitted = await self.wait_service_streams()
        stream = await self._quic.open_stream()
        if admitted:
            try:
                await start_service_stream(stream, token)
            except BaseException:
                stream.reset(0)
                stream.stop(0)
                raise
        return stream

    async def wait_service_streams(self) -> bool:
        """Whether the peer takes streams with admission, and mail; waits until it has told (spec 08 §4)."""
        if self._offers is None:
            await trio.lowlevel.checkpoint()
            return False
        await self._offers.wait_known()
        return self._offers.service_streams

    async def session(self, open_session: Callable[[QuicConnection], AbstractAsyncContextManager[T]]) -> T:
        """The session of the protocol that has this connection to itself, such as HTTP/3.

        `open_session` is called for the first who asks; the host keeps what it yields until the connection ends.
        """
        if self._kept is None:
            if self._background is None:
                raise ConfigurationError("this connection carries agent streams; use open_stream")
            self._kept = KeptSession(self._quic, self._background, open_session)
        session: T = await self._kept.get()
        return session

    async def accept_stream(self) -> QuicStream:
        """Wait for the next stream the peer opens; raises ConnectionLost when the connection is over."""
        if self._incoming is not None:
            with contextlib.suppress(trio.EndOfChannel):
                return await self._incoming.receive()
        return await self._quic.accept_stream()

    def __aiter__(self) -> Self:
        """Yield the streams the peer opens until it closes with code 0; raises ConnectionLost on any other end."""
        return self

    async def __anext__(self) -> QuicStream:
        if self._incoming is not None:
            with contextlib.suppress(trio.EndOfChannel):
                return await self._incoming.receive()
        return await anext(self._quic)

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close at once, telling the peer; closing twice does nothing."""
        self._quic.close(code, reason)

    async def wait_closed(self) -> CloseReason:
        """Wait until the connection has ended on either side's wish; returns why."""
        await self._quic.wait_closed()
        reason = self._quic.close_reason
        assert reason is not None, "a closed connection has a reason"
        return reason

    async def aclose(self) -> None:
        """Close with code 0.

        A peer that was met through a hub is given a moment to take the connection first: newer reference nodes which
        lose one before that answer no other call of the pair for half a minute.
        """
        try:
            await trio.lowlevel.checkpoint()
            if self._path is not None and self._offers is not None and self.close_reason is None:
                with trio.move_on_after(TAKING_LIMIT):
                    await self._offers.wait_known()
        finally:
            self._quic.close(0, "")
