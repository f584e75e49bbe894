"""Our HTTP/3 against aioquic's, in both roles, over real loopback sockets."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import pytest
import trio

from a2al_trio.errors import StreamReset
from a2al_trio.h3 import ClientExchange, ErrorCode, H3Server, RequestHead, ResponseHead, open_h3_client, open_h3_server
from a2al_trio.h3.frames import FrameType, encode_frame
from a2al_trio.host import WebAgent
from a2al_trio.host.access import AccessList
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import open_quic
from a2al_trio.quic.varint import encode_varint
from tests.quic.tls_support import client_tls, credentials, server_tls

pytest.importorskip("aioquic")

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.events import StreamDataReceived

from tests.http.world import open_loopback_hosts
from tests.interop.aioquic_peer import AioquicConnection, configuration, open_aioquic

LOOPBACK = SocketAddress("127.0.0.1", 0)
CONTENT = bytes(range(256)) * 2048


class TheirHttp:
    """aioquic's HTTP/3 on the connections of a peer; keeps what came on each stream."""

    def __init__(self) -> None:
        self.http: dict[AioquicConnection, H3Connection] = {}
        self.headers: dict[int, list[list[tuple[bytes, bytes]]]] = {}
        self.content: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    def on(self, connection: AioquicConnection) -> H3Connection:
        if connection not in self.http:
            self.http[connection] = H3Connection(connection.quic)
        return self.http[connection]

    def handle(self, connection: AioquicConnection, stream_id: int, data: bytes, end: bool) -> None:
        http = self.on(connection)
        for event in http.handle_event(StreamDataReceived(data=data, end_stream=end, stream_id=stream_id)):
            self.take(http, event)

    def has_all(self, stream_id: int) -> bool:
        return stream_id in self.ended

    def take(self, http: H3Connection, event: H3Event) -> None:
        match event:
            case HeadersReceived():
                self.headers.setdefault(event.stream_id, []).append(event.headers)
            case DataReceived():
                self.content.setdefault(event.stream_id, bytearray()).extend(event.data)
        if getattr(event, "stream_ended", False):
            self.ended.add(event.stream_id)  # type: ignore[attr-defined]


class EchoServer(TheirHttp):
    """Answers each complete request with its fields, content and a trailer."""

    def take(self, http: H3Connection, event: H3Event) -> None:
        super().take(http, event)
        if getattr(event, "stream_ended", False):
            stream_id: int = event.stream_id  # type: ignore[attr-defined]
            fields = [field for field in self.headers[stream_id][0] if not field[0].startswith(b":")]
            content = bytes(self.content.get(stream_id, b""))
            http.send_headers(stream_id, [(b":status", b"103"), (b"link", b"</early>")])
            http.send_headers(stream_id, [(b":status", b"200"), (b"content-length", b"%d" % len(content)), *fields])
            http.send_data(stream_id, content, end_stream=False)
            http.send_headers(stream_id, [(b"x-sum", hashlib.sha256(content).hexdigest().encode())], end_stream=True)


async def test_our_client_and_their_server() -> None:
    theirs = EchoServer()
    config = configuration(is_client=False, credentials=credentials(), alpn_protocols=["h3"])
    async with (
        open_udp(LOOPBACK) as their_socket,
        open_aioquic(their_socket, config, handler=theirs.handle),
        open_udp(LOOPBACK) as socket,
        open_quic(socket) as endpoint,
        await endpoint.connect(
            their_socket.local_address, tls=client_tls(alpn=("h3",)), server_name="example.test"
        ) as connection,
        open_h3_client(connection) as client,
    ):

        async def send(exchange: ClientExchange) -> None:
            for start in range(0, len(CONTENT), 50_000):
                await exchange.send_data(CONTENT[start : start + 50_000])
            await exchange.send_end()

        async with (
            await client.request(RequestHead(b"POST", b"example.test", b"/up")) as exchange,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send, exchange)
            assert (await exchange.receive_head()).status == 103
            assert (await exchange.receive_response()).status == 200
            assert await exchange.receive_all(limit=len(CONTENT)) == CONTENT
            assert exchange.trailers == ((b"x-sum", hashlib.sha256(CONTENT).hexdigest().encode()),)

        async def ask(number: int) -> None:
            fields = ((b"x-number", b"%d" % (number % 7)), (b"x-agent", b"the same text in every request"))
            head = RequestHead(b"GET", b"example.test", b"/some/path", fields)
            async with await client.request(head, end=True) as exchange:
                response = await exchange.receive_response()
                assert response.headers[1:] == fields
                assert await exchange.receive_all(limit=0) == b""

        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, number)


async def serve(server: H3Server) -> None:
    """Answer with the request's own fields and content, or fail if the path says so."""

    async def answer(exchange: Any) -> None:
        async with exchange:
            head = await exchange.receive_head()
            await exchange.send_response(ResponseHead(200, head.headers))
            if head.path == b"/fail":
                exchange.reset(0x102)
                return
            async for chunk in exchange:
                await exchange.send_data(chunk)
            await exchange.send_end([(b"x-done", b"yes")])

    async with trio.open_nursery() as nursery:
        async for exchange in server:
            nursery.start_soon(answer, exchange)


async def test_their_client_and_our_server() -> None:
    theirs = TheirHttp()
    config = configuration(is_client=True, server_name="example.test", alpn_protocols=["h3"])
    async with (
        open_udp(LOOPBACK) as socket,
        open_quic(socket, server=server_tls(alpn=("h3",))) as endpoint,
        open_udp(LOOPBACK) as their_socket,
        open_aioquic(their_socket, config, handler=theirs.handle) as peer,
    ):
        connection = await peer.connected(endpoint.local_address)
        http = theirs.on(connection)
        peer.flush()
        async with open_h3_server(await endpoint.accept()) as server, trio.open_nursery() as nursery:
            nursery.start_soon(serve, server)
            for number in range(40):
                stream_id = connection.quic.get_next_available_stream_id()
                fields = [(b"x-number", b"%d" % (number % 5)), (b"x-agent", b"the same text in every request")]
                pseudo = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
                http.send_headers(stream_id, pseudo + fields)
                content = CONTENT if number == 20 else b"%d" % number
                http.send_data(stream_id, content, end_stream=True)
                peer.flush()
                await connection.until(partial(theirs.has_all, stream_id))
                assert theirs.headers[stream_id] == [[(b":status", b"200"), *fields], [(b"x-done", b"yes")]]
                assert theirs.content[stream_id] == content
            stream_id = connection.quic.get_next_available_stream_id()
            http.send_headers(stream_id, [*pseudo[:3], (b":path", b"/fail")], end_stream=True)
            peer.flush()
            await connection.until(lambda: connection.resets.get(stream_id) == 0x102)
            next_stream_id = connection.quic.get_next_available_stream_id()
            nursery.cancel_scope.cancel()
        end = await connection.until_terminated()
        assert end.error_code == ErrorCode.NO_ERROR
        # aioquic's HTTP/3 has no event for it.
        goaway = encode_frame(FrameType.GOAWAY, encode_varint(next_stream_id))
        assert sum(received.endswith(goaway) for received in connection.received.values()) == 1


async def test_their_server_resets_a_request() -> None:
    class Resetting(TheirHttp):
        def take(self, http: H3Connection, event: H3Event) -> None:
            [connection] = self.http
            connection.quic.reset_stream(event.stream_id, 0x10B)  # type: ignore[attr-defined]

    config = configuration(is_client=False, credentials=credentials(), alpn_protocols=["h3"])
    async with (
        open_udp(LOOPBACK) as their_socket,
        open_aioquic(their_socket, config, handler=Resetting().handle),
        open_udp(LOOPBACK) as socket,
        open_quic(socket) as endpoint,
        await endpoint.connect(
            their_socket.local_address, tls=client_tls(alpn=("h3",)), server_name="example.test"
        ) as connection,
        open_h3_client(connection) as client,
        await client.request(RequestHead(b"GET", b"example.test"), end=True) as exchange,
    ):
        with pytest.raises(StreamReset) as reset:
            await exchange.receive_response()
        assert reset.value.code == 0x10B


async def test_their_client_calls_an_agent_without_an_aid() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(scope["extensions"]["a2al.peer"]["aid"]).encode()})

    theirs = TheirHttp()
    async with open_loopback_hosts() as (callee, _), open_udp(LOOPBACK) as their_socket, trio.open_nursery() as nursery:
        web = [WebAgent(agent=callee.address, client_cert="optional")]
        callee.access = AccessList(anonymous=True)
        await nursery.start(partial(callee.serve_asgi, app, web=web))
        config = configuration(is_client=True, server_name=str(callee.address), alpn_protocols=["h3"])
        async with open_aioquic(their_socket, config, handler=theirs.handle) as peer:
            connection = await peer.connected(callee.quic_address)
            http = theirs.on(connection)
            stream_id = connection.quic.get_next_available_stream_id()
            fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]
            http.send_headers(stream_id, fields, end_stream=True)
            peer.flush()
            await connection.until(partial(theirs.has_all, stream_id))
            assert theirs.content[stream_id] == b"None"
        nursery.cancel_scope.cancel()
