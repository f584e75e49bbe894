"""What a QUIC endpoint core tells its driver.

Events are hints, not data: bytes stay in the core until the driver reads them, so nothing is lost or buffered
twice, and a stream that received a hundred packets in one batch causes one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from a2al_trio.net.address import SocketAddress

if TYPE_CHECKING:
    from a2al_trio.errors import CloseCause
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.tls import SessionTicket

__all__ = [
    "ConnectionEarly",
    "ConnectionEnded",
    "ConnectionReady",
    "DatagramsReadable",
    "NewTokenReceived",
    "PathChanged",
    "PingAcknowledged",
    "QuicEvent",
    "StreamOpened",
    "StreamReadable",
    "StreamWritable",
    "StreamsAvailable",
    "TicketReceived",
]


@attrs.frozen(eq=False)
class ConnectionEarly:
    """A server's connection shows itself before its handshake is complete: it has accepted 0-RTT data.

    Until `ConnectionReady` follows, what arrives may be an attacker's repetition (RFC 8446 §8, RFC 8470).
    """

    connection: QuicConnectionCore


@attrs.frozen(eq=False)
class ConnectionReady:
    """The handshake is complete; on a server this is when a connection without early data first shows itself."""

    connection: QuicConnectionCore


@attrs.frozen(eq=False)
class ConnectionEnded:
    """The connection is over, the last event of a connection; also comes instead of `ConnectionReady`.

    A server reports only connections that had shown themselves. See `QuicConnectionCore.close_reason`.
    """

    connection: QuicConnectionCore
    by: CloseCause
    code: int
    reason: str


@attrs.frozen(eq=False)
class StreamOpened:
    """The peer opened a stream; streams are reported in the order of their numbers."""

    connection: QuicConnectionCore
    stream_id: int


@attrs.frozen(eq=False)
class StreamReadable:
    """`read` has something new to tell: data, the end, or a reset. Not repeated until `read` ran dry."""

    connection: QuicConnectionCore
    stream_id: int


@attrs.frozen(eq=False)
class StreamWritable:
    """`write` accepts bytes again after it had refused some, or raises because the peer stopped reading."""

    connection: QuicConnectionCore
    stream_id: int


@attrs.frozen(eq=False)
class StreamsAvailable:
    """`open_stream` works again after it had returned None."""

    connection: QuicConnectionCore
    unidirectional: bool


@attrs.frozen(eq=False)
class DatagramsReadable:
    """`receive_datagram` has something; not repeated until it ran dry."""

    connection: QuicConnectionCore


@attrs.frozen(eq=False)
class PathChanged:
    """The peer is reached at another address now (RFC 9000 §9)."""

    connection: QuicConnectionCore
    peer_address: SocketAddress


@attrs.frozen(eq=False)
class PingAcknowledged:
    """The peer has acknowledged what `ping` had sent."""

    connection: QuicConnectionCore


@attrs.frozen(eq=False)
class TicketReceived:
    """A TLS session ticket arrived, for a later `connect(..., ticket=)` to the same server."""

    connection: QuicConnectionCore
    ticket: SessionTicket


@attrs.frozen(eq=False)
class NewTokenReceived:
    """An address validation token arrived, for a later `connect(..., token=)` (RFC 9000 §8.1.3)."""

    connection: QuicConnectionCore
    token: bytes


QuicEvent = (
    ConnectionEarly
    | ConnectionReady
    | ConnectionEnded
    | StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamsAvailable
    | DatagramsReadable
    | PathChanged
    | PingAcknowledged
    | TicketReceived
    | NewTokenReceived
)
