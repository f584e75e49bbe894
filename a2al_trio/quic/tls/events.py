"""What a handshake tells the connection it belongs to."""

from __future__ import annotations

import attrs

from a2al_trio.quic.tls.codepoints import Level
from a2al_trio.quic.tls.suites import CipherSuite
from a2al_trio.quic.tls.tickets import SessionTicket

__all__ = ["EarlyDataDecided", "HandshakeComplete", "KeysReady", "PeerParameters", "TicketReceived", "TlsEvent"]


@attrs.frozen
class KeysReady:
    """A traffic secret exists, and packets of its level and direction can be protected from now on."""

    level: Level
    sending: bool
    suite: CipherSuite
    secret: bytes = attrs.field(repr=False)


@attrs.frozen
class PeerParameters:
    """The server's transport parameters, as sent; they are not authenticated before `HandshakeComplete`.

    A server learns the client's through its `transport_parameters` callback instead.
    """

    data: bytes


@attrs.frozen
class EarlyDataDecided:
    """A client that sent 0-RTT data learns whether the server took it; if not, it must be sent again."""

    accepted: bool


@attrs.frozen
class HandshakeComplete:
    """Our side of the handshake is done; on the server this also confirms it (RFC 9001 §4.1.2)."""


@attrs.frozen
class TicketReceived:
    """The server offers to resume this session later."""

    ticket: SessionTicket


TlsEvent = KeysReady | PeerParameters | EarlyDataDecided | HandshakeComplete | TicketReceived
