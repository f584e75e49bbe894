"""TLS 1.3 for QUIC (RFC 8446, RFC 9001): sans-IO, client and server."""

from __future__ import annotations

from a2al_trio.quic.tls.client import TlsClient
from a2al_trio.quic.tls.codepoints import AlertDescription, ClientAuthentication, Level, NamedGroup
from a2al_trio.quic.tls.config import ClientOffer, ClientTls, Credentials, ServerTls
from a2al_trio.quic.tls.engine import Engine
from a2al_trio.quic.tls.errors import PeerRejected, TlsAlert
from a2al_trio.quic.tls.events import (
    EarlyDataDecided,
    HandshakeComplete,
    KeysReady,
    PeerParameters,
    TicketReceived,
    TlsEvent,
)
from a2al_trio.quic.tls.server import TlsServer
from a2al_trio.quic.tls.suites import CipherSuite
from a2al_trio.quic.tls.tickets import SessionTicket, TicketKeys

__all__ = [
    "AlertDescription",
    "CipherSuite",
    "ClientAuthentication",
    "ClientOffer",
    "ClientTls",
    "Credentials",
    "EarlyDataDecided",
    "Engine",
    "HandshakeComplete",
    "KeysReady",
    "Level",
    "NamedGroup",
    "PeerParameters",
    "PeerRejected",
    "ServerTls",
    "SessionTicket",
    "TicketKeys",
    "TicketReceived",
    "TlsAlert",
    "TlsClient",
    "TlsEvent",
    "TlsServer",
]
