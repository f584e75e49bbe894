"""QUIC for Trio: complete, fast and usable alone.

`open_quic` runs an endpoint on any `DatagramSocket` (for most programs that of `a2al_trio.net.socket.open_udp`); the
endpoint connects and accepts; connections carry streams that are ordinary `trio.abc.HalfCloseableStream`s. Certificates
are judged by a `verify_peer` callback: a `TrustStore` has the usual ones (roots, dates, host names), `pinned` accepts
known certificates only.

    async with open_udp() as socket, open_quic(socket) as endpoint:
        tls = ClientTls(alpn=("echo",), verify_peer=TrustStore.from_pem(roots, clock=time.time).verify_server)
        async with await endpoint.connect(address, tls=tls, server_name="example.org") as connection:
            async with await connection.open_stream() as stream:
                await stream.send_all(b"hello")
                await stream.send_eof()
                print(await stream.receive_all(limit=1000))

A server passes `server=ServerTls(...)` to `open_quic` and runs `endpoint.serve(handler)`. `QuicConfig.observe` takes a
`QlogWriter` for every connection, `keylog` of either TLS setting the lines Wireshark wants.

The protocol itself is a pure core without IO in the modules beside this one (RFC 9000, 9001, 9002, 9221, 9369).
"""

from __future__ import annotations

from a2al_trio.quic.config import QuicConfig, RetryPolicy
from a2al_trio.quic.congestion import CongestionController, CongestionFactory
from a2al_trio.quic.congestion_bbr import Bbr
from a2al_trio.quic.congestion_cubic import Cubic
from a2al_trio.quic.congestion_reno import NewReno
from a2al_trio.quic.driver.connection import CloseReason, QuicConnection
from a2al_trio.quic.driver.endpoint import QuicEndpoint, open_quic
from a2al_trio.quic.driver.stream import QuicReceiveStream, QuicSendStream, QuicStream
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.qlog import ConnectionObserver, ObserverFactory, QlogWriter
from a2al_trio.quic.stats import ConnectionStats
from a2al_trio.quic.tls import CipherSuite, NamedGroup, SessionTicket
from a2al_trio.quic.tls.certificate import TrustStore, pinned
from a2al_trio.quic.tls.config import ClientAuthentication, ClientOffer, ClientTls, Credentials, PeerRejected, ServerTls
from a2al_trio.quic.tls.tickets import TicketKeys

__all__ = [
    "VERSION_1",
    "VERSION_2",
    "Bbr",
    "CipherSuite",
    "ClientAuthentication",
    "ClientOffer",
    "ClientTls",
    "CloseReason",
    "CongestionController",
    "CongestionFactory",
    "ConnectionObserver",
    "ConnectionStats",
    "Credentials",
    "Cubic",
    "NamedGroup",
    "NewReno",
    "ObserverFactory",
    "PeerRejected",
    "QlogWriter",
    "QuicConfig",
    "QuicConnection",
    "QuicEndpoint",
    "QuicReceiveStream",
    "QuicSendStream",
    "QuicStream",
    "RetryPolicy",
    "ServerTls",
    "SessionTicket",
    "TicketKeys",
    "TrustStore",
    "open_quic",
    "pinned",
]
