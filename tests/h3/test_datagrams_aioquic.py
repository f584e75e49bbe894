"""HTTP datagrams between us and aioquic, in both roles, over real loopback sockets."""

from __future__ import annotations

import pytest

from a2al_trio.h3 import (
    H3Config,
    RequestHead,
    ResponseHead,
    open_h3_client,
    open_h3_server,
    open_http_datagrams,
)
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import QuicConfig, open_quic
from tests.quic.tls_support import client_tls, credentials, server_tls

pytest.importorskip("aioquic")

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, HeadersReceived
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived

from tests.interop.aioquic_peer import AioquicConnection, configuration, open_aioquic

LOOPBACK = SocketAddress("127.0.0.1", 0)
CONFIG = QuicConfig(max_datagram_frame_size=1500)
CONNECT = RequestHead(b"CONNECT", b"example.test", b"/", protocol=b"test-datagrams")
FIELDS = [
    (b":method", b"CONNECT"),
    (b":protocol", b"test-datagrams"),
    (b":scheme", b"https"),
    (b":authority", b"example.test"),
    (b":path", b"/"),
]


class TheirHttp:
    """aioquic's HTTP/3 on one connection; notes which requests or answers began, and takes every CONNECT."""

    def __init__(self) -> None:
        self.http: H3Connection | None = None
        self.answered: list[int] = []

    def on(self, connection: AioquicConnection) -> H3Connection:
        if self.http is None:
            # WebTransport is what makes it announce extended CONNECT and datagrams.
            self.http = H3Connection(connection.quic, enable_webtransport=True)
        return self.http

    def handle(self, connection: AioquicConnection, stream_id: int, data: bytes, end: bool) -> None:
        http = self.on(connection)
        for event in http.handle_event(StreamDataReceived(data=data, end_stream=end, stream_id=stream_id)):
            if isinstance(event, HeadersReceived):
                self.answered.append(event.stream_id)
                if (b":method", b"CONNECT") in event.headers:
                    http.send_headers(event.stream_id, [(b":status", b"200")])

    async def receive(self, connection: AioquicConnection) -> tuple[int, bytes]:
        """Wait for a datagram."""
        await connection.until(lambda: bool(connection.datagrams))
        [event] = self.on(connection).handle_event(DatagramFrameReceived(data=connection.datagrams.pop(0)))
        assert isinstance(event, DatagramReceived)
        return event.stream_id, event.data


async def test_our_client_and_their_server() -> None:
    theirs = TheirHttp()
    config = configuration(
        is_client=False, credentials=credentials(), alpn_protocols=["h3"], max_datagram_frame_size=65536
    )
    async with (
        open_udp(LOOPBACK) as their_socket,
        open_aioquic(their_socket, config, handler=theirs.handle) as peer,
        open_udp(LOOPBACK) as socket,
        open_quic(socket, CONFIG) as endpoint,
        await endpoint.connect(
            their_socket.local_address, tls=client_tls(alpn=("h3",)), server_name="example.test"
        ) as connection,
        open_h3_client(connection) as client,
    ):
        theirs.on(await peer.accepted())
        peer.flush()
        async with await client.request(RequestHead(b"GET", b"example.test", b"/"), end=True):
            await peer.connections[0].until(lambda: 0 in theirs.answered)
        await connection.ping()  # their settings came before
        async with await client.request(CONNECT) as exchange:
            assert (await exchange.receive_response()).status == 200
            async with open_http_datagrams(exchange) as datagrams:
                for payload in (b"", b"ping", bytes(1000)):
                    await datagrams.send(payload)
                    assert await theirs.receive(peer.connections[0]) == (exchange.stream_id, payload)
                    theirs.on(peer.connections[0]).send_datagram(exchange.stream_id, b"echo " + payload)
                    peer.flush()
                    assert await datagrams.receive() == b"echo " + payload


async def test_their_client_and_our_server() -> None:
    theirs = TheirHttp()
    config = configuration(
        is_client=True, server_name="example.test", alpn_protocols=["h3"], max_datagram_frame_size=65536
    )
    async with (
        open_udp(LOOPBACK) as socket,
        open_quic(socket, CONFIG, server=server_tls(alpn=("h3",))) as endpoint,
        open_udp(LOOPBACK) as their_socket,
        open_aioquic(their_socket, config, handler=theirs.handle) as peer,
    ):
        connection = await peer.connected(endpoint.local_address)
        http = theirs.on(connection)
        peer.flush()
        async with open_h3_server(await endpoint.accept(), H3Config(extended_connect=True)) as server:
            stream_id = connection.quic.get_next_available_stream_id()
            http.send_headers(stream_id, FIELDS)
            peer.flush()
            async with await server.accept() as exchange:
                assert (await exchange.receive_head()).protocol == b"test-datagrams"
                await exchange.send_response(ResponseHead(200))
                await connection.until(lambda: stream_id in theirs.answered)
                async with open_http_datagrams(exchange) as datagrams:
                    for payload in (b"", b"ping", bytes(1000)):
                        http.send_datagram(stream_id, payload)
                        peer.flush()
                        assert await datagrams.receive() == payload
                        await datagrams.send(b"echo " + payload)
                        assert await theirs.receive(connection) == (stream_id, b"echo " + payload)
