"""What the application is told of a connection, and when: events of the connection's parts, on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.events import (
    ConnectionEarly,
    ConnectionEnded,
    ConnectionReady,
    DatagramsReadable,
    NewTokenReceived,
    PathChanged,
    PingAcknowledged,
    QuicEvent,
    StreamOpened,
    StreamReadable,
    StreamsAvailable,
    StreamWritable,
    TicketReceived,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2al_trio.net.address import SocketAddress
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.router import Router
    from a2al_trio.quic.tls import SessionTicket

__all__ = ["Reports"]


class Reports:
    """Makes the events of one connection; a server's connection shows itself with early data, or when it is ready."""

    __slots__ = ("_connection", "_emit", "_held", "_router", "_shown")

    def __init__(self, connection: QuicConnectionCore, router: Router) -> None:
        self._connection = connection
        self._router = router
        self._shown = connection.is_client
        self._held: list[QuicEvent] = []
        self._emit: Callable[[QuicEvent], None] = router.emit if self._shown else self._held.append

    def _show(self) -> None:
        self._shown = True
        self._emit = self._router.emit

    # The connection

    def on_early(self) -> None:
        """0-RTT data was accepted, and the application can answer it."""
        self._show()
        self._emit(ConnectionEarly(self._connection))

    def on_ready(self, event: ConnectionReady) -> None:
        """The handshake is complete."""
        self._show()
        self._emit(event)
        for held in self._held:
            self._emit(held)
        self._held.clear()

    def on_ended(self, event: ConnectionEnded) -> None:
        """The connection is over; nobody needs to hear of one that was never shown."""
        if self._shown:
            self._emit(event)

    def on_path_changed(self, address: SocketAddress) -> None:
        """The peer is reached at another address now, or from another one of ours."""
        self._emit(PathChanged(self._connection, address))

    def on_ping_acked(self) -> None:
        """What `ping` had sent arrived."""
        self._emit(PingAcknowledged(self._connection))

    def on_ticket(self, ticket: SessionTicket) -> None:
        """A session ticket arrived."""
        self._emit(TicketReceived(self._connection, ticket))

    def on_new_token(self, token: bytes) -> None:
        """An address validation token arrived."""
        self._emit(NewTokenReceived(self._connection, token))

    def on_datagrams_readable(self) -> None:
        """A DATAGRAM frame waits to be taken, after none did."""
        self._emit(DatagramsReadable(self._connection))

    # Streams (StreamObserver)

    def on_stream_opened(self, stream_id: int) -> None:
        """The peer opened a stream."""
        self._emit(StreamOpened(self._connection, stream_id))

    def on_stream_readable(self, stream_id: int) -> None:
        """A stream has something to read."""
        self._emit(StreamReadable(self._connection, stream_id))

    def on_stream_writable(self, stream_id: int) -> None:
        """A stream has room, or the peer stopped reading it."""
        self._emit(StreamWritable(self._connection, stream_id))

    def on_streams_available(self, unidirectional: bool) -> None:
        """The peer lets us open more streams."""
        self._emit(StreamsAvailable(self._connection, unidirectional))
