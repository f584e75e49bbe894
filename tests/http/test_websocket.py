"""WebSockets served by AID, called with trio-websocket over an agent stream, on a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection

from a2al_trio.http.websocket import LEAVE_LIMIT, MESSAGE_LIMIT
from tests.http.world import CALLEE, CALLER, World, open_world

Clock = trio.testing.MockClock


class Chat:
    """An application with several WebSockets, and what it saw of their ends."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.left: list[tuple[int, str]] = []
        self.app.websocket("/echo")(self.echo)
        self.app.websocket("/refuse")(self.refuse)
        self.app.websocket("/fail")(self.fail)
        self.app.websocket("/close")(self.close)
        self.app.websocket("/deaf")(self.deaf)
        self.app.websocket("/careless")(self.careless)
        self.app.websocket("/late")(self.late)

    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=next(iter(websocket.scope["subprotocols"]), None))
        await websocket.send_text(websocket.scope["extensions"]["a2al.peer"]["aid"])
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"], message["reason"])
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        except WebSocketDisconnect as gone:
            self.left.append((gone.code, gone.reason))

    async def refuse(self, websocket: WebSocket) -> None:
        raise WebSocketException(code=1008)

    async def fail(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("no such luck")

    async def close(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("bye")
        await websocket.close(4000, "done")

    async def deaf(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await trio.sleep_forever()
        finally:
            self.left.append((0, f"{trio.current_time():.0f}"))

    async def careless(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        finally:
            self.left.append((0, ""))

    async def late(self, websocket: WebSocket) -> None:
        await trio.sleep(1)
        try:
            await websocket.send({"type": "websocket.accept"})
            await websocket.send_text("hello")
        finally:
            self.left.append((0, ""))


@asynccontextmanager
async def open_websocket(world: World, path: str, *protocols: str) -> AsyncIterator[WebSocketConnection]:
    async with world.caller.connect(CALLEE.address) as connection, trio.open_nursery() as nursery:
        stream: Any = await connection.open_stream()  # the library's types know TCP only
        websocket = await trio_websocket.wrap_client_stream(
            nursery, stream, str(CALLEE.address), path, subprotocols=protocols, max_message_size=2 * MESSAGE_LIMIT
        )
        try:
            yield websocket
        finally:
            nursery.cancel_scope.cancel()


async def test_messages_go_both_ways_and_the_caller_is_proven(autojump_clock: Clock) -> None:
    chat = Chat()
    async with open_world(chat.app) as world, open_websocket(world, "/echo", "chat", "other") as websocket:
        assert websocket.subprotocol == "chat"
        assert await websocket.get_message() == str(CALLER.address)
        for message in ("text", b"bytes", "", "ä" * 100_000, bytes(500_000)):
            await websocket.send_message(message)
            assert await websocket.get_message() == message
        await websocket.ping(b"there?")
        await websocket.aclose(4001, "enough")
        await trio.sleep(1)
        assert chat.left == [(4001, "enough")]


async def test_both_sides_may_close_and_refuse(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    chat = Chat()
    async with open_world(chat.app) as world:
        async with open_websocket(world, "/close") as websocket:
            assert await websocket.get_message() == "bye"
            with pytest.raises(ConnectionClosed, match="done"):
                await websocket.get_message()
        for path in ("/refuse", "/nothing"):
            with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected, check=lambda error: error.status_code == 403)):
                async with open_websocket(world, path):
                    raise AssertionError("it was refused")
        async with open_websocket(world, "/fail") as websocket:
            with pytest.raises(ConnectionClosed, match="1011"):
                await websocket.get_message()
    assert "no such luck" in caplog.text


async def test_a_message_that_is_too_big_ends_the_connection(autojump_clock: Clock) -> None:
    chat = Chat()
    async with open_world(chat.app) as world, open_websocket(world, "/echo") as websocket:
        await websocket.get_message()
        with pytest.raises(ConnectionClosed, match="1009"):
            await websocket.send_message(bytes(MESSAGE_LIMIT + 1))
            await websocket.get_message()
        await trio.sleep(1)
        assert chat.left == [(1009, "message too big")]


@pytest.mark.parametrize("path", ["/echo", "/deaf"])
async def test_a_lost_caller_ends_the_application(autojump_clock: Clock, path: str) -> None:
    chat = Chat()
    async with open_world(chat.app) as world:
        async with world.caller.connect(CALLEE.address) as connection, trio.open_nursery() as nursery:
            stream: Any = await connection.open_stream()  # the library's types know TCP only
            await trio_websocket.wrap_client_stream(nursery, stream, str(CALLEE.address), path)
            nursery.cancel_scope.cancel()
        await trio.sleep(LEAVE_LIMIT + 1)
        assert len(chat.left) == 1


@pytest.mark.parametrize("path", ["/careless", "/late"])
async def test_no_caller_fills_the_log_by_going_away(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    chat = Chat()
    async with open_world(chat.app) as world:
        async with world.caller.connect(CALLEE.address) as connection:
            stream = await connection.open_stream()
            await stream.send_all(
                b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n" % path.encode()
            )
            await trio.sleep(0.5)
        await trio.sleep(LEAVE_LIMIT + 1)
        assert len(chat.left) == 1
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_nonsense_instead_of_frames_ends_the_connection(autojump_clock: Clock) -> None:
    chat = Chat()
    async with (
        open_world(chat.app) as world,
        world.caller.connect(CALLEE.address) as connection,
        await connection.open_stream() as stream,
    ):
        await stream.send_all(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n\xff\xff\xff\xff"
        )
        answer = await stream.receive_all(limit=10_000)
        assert answer.startswith(b"HTTP/1.1 101")
        await trio.sleep(LEAVE_LIMIT + 1)
        assert len(chat.left) == 1
