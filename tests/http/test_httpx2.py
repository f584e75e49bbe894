"""Agents called with httpx2: what the transport for httpx does, in the other library's terms."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import trio
from httpx2.websockets import WebSocketDisconnect, WebSocketNetworkError

from a2al_trio.errors import RecordNotFound, StreamReset
from a2al_trio.http.asgi import Receive, Scope, Send
from tests.host.world import identity
from tests.http.world import CALLEE, open_world

Clock = trio.testing.MockClock
URL = f"a2al://{CALLEE.address}"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back method, header and body; on some paths do worse."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        return await talk(scope, receive, send)
    if scope["path"] == "/never":
        await trio.sleep_forever()
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    headers = dict(scope["headers"])
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-had", headers.get(b"x-sent", b""))]})
    await send({"type": "http.response.body", "body": scope["method"].encode() + body, "more_body": True})
    if scope["path"] == "/broken":
        raise RuntimeError("broken off on purpose")
    await send({"type": "http.response.body", "body": b"!"})


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one message."""
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    if scope["path"] == "/broken":
        raise RuntimeError("broken off on purpose")
    await send({"type": "websocket.send", "text": f"{message['text']}!"})
    await send({"type": "websocket.close"})


async def parts() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield bytes(1000)


@pytest.mark.parametrize("http3", [True, False])
async def test_requests_and_answers_pass_whole(autojump_clock: Clock, http3: bool) -> None:
    async with open_world(app, http3=http3) as world, world.caller.httpx2_client(base_url=URL) as client:
        response = await client.put("/?a=b", content=b"small", headers={"x-sent": "this"})
        assert (response.status_code, response.headers["x-had"], response.content) == (201, "this", b"PUTsmall!")
        assert response.http_version == ("HTTP/3" if http3 else "HTTP/1.1")
        assert (await client.post("/", content=parts())).content == b"POST" + bytes(100_000) + b"!"
        async with client.stream("GET", "/") as streamed:
            assert b"".join([part async for part in streamed.aiter_raw()]) == b"GET!"
        async with client.stream("POST", "/", content=parts()):
            pass  # what is not read is abandoned


@pytest.mark.parametrize("http3", [True, False])
async def test_errors_have_the_names_of_httpx2(autojump_clock: Clock, http3: bool) -> None:
    async with open_world(app, http3=http3) as world, world.caller.httpx2_client() as client:
        with pytest.raises(httpx2.ConnectError) as nobody:
            await client.get(f"a2al://{identity(99).address}")
        assert isinstance(nobody.value.__cause__, RecordNotFound)
        assert nobody.value.request.url.host == str(identity(99).address).lower()
        with pytest.raises(httpx2.UnsupportedProtocol, match="not an AID"):
            await client.get("https://example.test")
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(f"{URL}/never", timeout=2)
        with pytest.raises(httpx2.ReadError) as broken:
            await client.get(f"{URL}/broken")
        assert isinstance(broken.value.__cause__, StreamReset)


@pytest.mark.parametrize("scheme", ["a2al", "ws"])
async def test_websockets(autojump_clock: Clock, scheme: str) -> None:
    async with open_world(app) as world, world.caller.httpx2_client() as client:
        async with client.websocket(f"{scheme}://{CALLEE.address}/news") as socket:
            await socket.send_text("hello")
            assert await socket.receive_text() == "hello!"
            with pytest.raises(WebSocketDisconnect):
                await socket.receive_text()
        async with client.websocket(f"{scheme}://{CALLEE.address}/broken") as socket:
            await socket.send_text("hello")
            with pytest.raises(WebSocketDisconnect) as ended:
                await socket.receive_text()
            assert ended.value.code == 1011


async def test_a_websocket_of_an_agent_that_vanishes(autojump_clock: Clock) -> None:
    async with (
        open_world(app) as world,
        world.caller.httpx2_client() as client,
        client.websocket(f"{URL}/news") as socket,
    ):
        for connection in world.callee.connections:
            connection.close(0, "gone")
        with pytest.raises(WebSocketNetworkError):
            await socket.receive_text()
