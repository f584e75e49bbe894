"""HTTP/3 for Trio (RFC 9114, QPACK with the dynamic table by RFC 9204), on a QUIC connection with ALPN "h3".

    async with await endpoint.connect(address, tls=tls, server_name="example.org") as connection:
        async with open_h3_client(connection) as client:
            async with await client.request(RequestHead(b"GET", b"example.org", b"/"), end=True) as exchange:
                response = await exchange.receive_response()
                async for chunk in exchange:
                    ...

A server iterates over `open_h3_server(connection)` and answers each exchange with `send_response`, `send_data` and
`send_end`; `a2al_trio.http.h3_asgi.serve_h3_asgi` does it for an ASGI application, whose WebSockets come by extended
CONNECT (RFC 9220). Requests of that kind may have datagrams (RFC 9297):

    async with open_http_datagrams(exchange) as datagrams:
        await datagrams.send(b"as fast as it gets, or not at all")
        async for payload in datagrams:
            ...

They travel in QUIC datagrams if the QuicConfig of both sides sets `max_datagram_frame_size`, and in capsules on the
stream of the request otherwise. Server push is not spoken.

Needs pylsqpack (`pip install 'a2al-trio[h3]'`). The protocol itself is the pure core in `core.py`.
"""

from __future__ import annotations

from a2al_trio.h3.client import H3Client, open_h3_client
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.core import H3Core
from a2al_trio.h3.datagram_flow import HttpDatagrams, open_http_datagrams
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.exchange import ClientExchange, ServerExchange
from a2al_trio.h3.fields import RequestHead, ResponseHead
from a2al_trio.h3.server import H3Server, open_h3_server

__all__ = [
    "ClientExchange",
    "ErrorCode",
    "H3Client",
    "H3Config",
    "H3Core",
    "H3Error",
    "H3Server",
    "HttpDatagrams",
    "RequestHead",
    "ResponseHead",
    "ServerExchange",
    "open_h3_client",
    "open_h3_server",
    "open_http_datagrams",
]
