"""WebSockets over HTTP/3 (RFC 9220): what an application says and hears, and what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from a2al_trio.errors import LocalProtocolError
from a2al_trio.h3 import ClientExchange, ErrorCode, H3Client, H3Core, H3Error, RequestHead, ResponseHead
from a2al_trio.h3.frames import FrameType, Setting, decode_settings, encode_frame, encode_settings
from a2al_trio.http import Application
from a2al_trio.http.asgi import Receive, Scope, Send
from tests.h3.test_core import CONTROL, pair, plain, server
from tests.http.test_h3_asgi import open_client

Clock = trio.testing.MockClock
CHAT = RequestHead(
    b"CONNECT", b"a.test", b"/chat?room=1", ((b"sec-websocket-protocol", b"a, b"),), protocol=b"websocket"
)


def talking(scopes: list[Scope], *, codes: list[int] | None = None) -> Application:
    """Says everything back, until the other side ends or asks it to."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise NotImplementedError
        scopes.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"X-Kind", b"test")]})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "end":
                await send({"type": "websocket.close", "code": 3001})
                return
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
        if codes is not None:
            codes.append(message["code"])

    return app


@attrs.define
class Talk:
    """The client's side of a WebSocket."""

    exchange: ClientExchange
    frames: Connection = attrs.field(factory=lambda: Connection(ConnectionType.CLIENT))

    async def say(self, event: Event) -> None:
        await self.exchange.send_data(self.frames.send(event))

    async def hear(self) -> list[Event]:
        while True:
            data = await self.exchange.receive_some()
            self.frames.receive_data(data or None)
            if events := list(self.frames.events()):
                return events


@asynccontextmanager
async def open_talk(client: H3Client, head: RequestHead = CHAT) -> AsyncIterator[tuple[ResponseHead, Talk]]:
    await trio.sleep(1)  # until the settings have come
    async with await client.request(head) as exchange:
        yield await exchange.receive_response(), Talk(exchange)


async def test_an_application_talks_over_http3(autojump_clock: Clock) -> None:
    scopes: list[Scope] = []
    async with open_client(talking(scopes)) as client, open_talk(client) as (response, talk):
        assert response.status == 200
        assert dict(response.headers) == {b"x-kind": b"test", b"sec-websocket-protocol": b"b"}
        await talk.say(TextMessage("hello"))
        assert await talk.hear() == [TextMessage("hello")]
        await talk.say(BytesMessage(bytes(100_000)))
        size = 0
        while size < 100_000:
            size += sum(len(event.data) for event in await talk.hear() if isinstance(event, BytesMessage))
        await talk.say(Ping(b"there?"))
        assert await talk.hear() == [Pong(b"there?")]
        await talk.say(TextMessage("end"))
        assert await talk.hear() == [CloseConnection(3001, "")]
    [scope] = scopes
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "wss", "3")
    assert (scope["path"], scope["query_string"], scope["subprotocols"]) == ("/chat", b"room=1", ["a", "b"])
    assert "method" not in scope


async def test_an_application_hears_how_it_ended(autojump_clock: Clock) -> None:
    codes: list[int] = []
    async with open_client(talking([], codes=codes)) as client:
        async with open_talk(client) as (_, talk):
            await talk.say(CloseConnection(4000, "enough"))
            assert await talk.hear() == [CloseConnection(4000, "enough")]
        async with open_talk(client) as (_, talk):
            talk.exchange.reset()
        await trio.sleep(10)
    assert codes == [4000, 1006]


async def test_requests_that_get_no_websocket(autojump_clock: Clock) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise NotImplementedError
        if scope["path"] == "/words":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"tea"})
        await send({"type": "websocket.close"}) if scope["path"] == "/close" else None

    async with open_client(refuse) as client:
        for path, status, body in ((b"/words", 418, b"no tea"), (b"/close", 403, b""), (b"/", 403, b"")):
            async with open_talk(client, attrs.evolve(CHAT, path=path)) as (response, talk):
                assert response.status == status
                assert await talk.exchange.receive_all(limit=100) == body
        for head, status in (
            (attrs.evolve(CHAT, protocol=b"connect-udp"), 501),
            (attrs.evolve(CHAT, headers=((b"sec-websocket-version", b"8"),)), 400),
            (RequestHead(b"CONNECT", b"a.test:80"), 501),
        ):
            async with open_talk(client, head) as (response, _):
                assert response.status == status


# --- the protocol -------------------------------------------------------------------------------------------------


def test_a_client_asks_only_a_server_that_has_said_so() -> None:
    client, _ = pair()
    with pytest.raises(LocalProtocolError, match="RFC 9220"):
        client.head_section(CHAT)


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"GET"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":protocol", b"web socket"), (b":scheme", b"https"), (b":path", b"/")],
        [(b":method", b"CONNECT"), (b":protocol", b"websocket")],
    ],
)
def test_a_protocol_is_named_as_it_must_be(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(H3Error) as error:
        server().receive_request(0, plain([*fields, (b":authority", b"a.test")]))
    assert error.value.code is ErrorCode.MESSAGE_ERROR


def test_the_setting_is_yes_or_no() -> None:
    payload = encode_settings({Setting.ENABLE_CONNECT_PROTOCOL: 2})
    with pytest.raises(H3Error) as error:
        H3Core(is_client=True).receive_unidirectional(CONTROL + 1, b"\x00" + payload)
    assert error.value.code is ErrorCode.SETTINGS_ERROR
    assert decode_settings(encode_frame(FrameType.SETTINGS, b"\x08\x01")[2:]) == {8: 1}
