"""Requests and services cancelled at any instant leave nothing behind; neither does any nonsense."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.testing import cancelled_after, open_simnet
from tests.http.world import CALLEE, open_hosts, open_world

Clock = trio.testing.MockClock
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


class Counting:
    """Sends every body back in pieces and knows how many requests it is at."""

    def __init__(self) -> None:
        self.running = 0
        self.answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.running += 1
        try:
            await (self._echo if scope["type"] == "http" else self._talk)(receive, send)
            self.answered += 1
        finally:
            self.running -= 1

    async def _echo(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})

    async def _talk(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


class Parts:
    """A body in three pieces; no generator, which would be left to the garbage collector."""

    def __init__(self) -> None:
        self._left = 3

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        return bytes(30_000)


# httpx leaves its own generators to the garbage collector, of which Trio warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("http3", "kept"), [(True, 6), (False, 0)], ids=["h3", "http1"])
async def test_a_request_cancelled_at_any_instant_frees_its_stream_and_the_applications_work(
    autojump_clock: Clock, http3: bool, kept: int
) -> None:
    app, steps, was_cut = Counting(), 0, True
    async with open_world(app, http3=http3) as world:
        await world.client.get("/")
        while was_cut:
            steps += 5  # every instant takes ten seconds
            with cancelled_after(steps) as scope:
                response = await world.client.post("/", content=Parts())
                assert len(response.content) == 90_000
            was_cut = scope.cancelled_caught
            await trio.sleep(0.2)
            assert app.running == 0, f"after {steps} steps"
            for connection in (*world.caller.connections, *world.callee.connections):
                assert connection.stats.open_streams == kept, f"after {steps} steps"
    assert steps > 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_service_cancelled_at_any_instant_ends_at_once(autojump_clock: Clock) -> None:
    steps, was_cut = 0, True
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), caller.http_client() as client:
        url = f"a2al://{CALLEE.address}/"
        while was_cut:
            steps += 31  # every instant takes a minute
            app = Counting()

            async def ask() -> None:
                with contextlib.suppress(httpx.TransportError):  # the service was cancelled
                    await client.post(url, content=Parts())

            async with trio.open_nursery() as nursery:
                with cancelled_after(steps) as scope:
                    async with trio.open_nursery() as service:
                        await service.start(callee.serve_asgi, app)
                        nursery.start_soon(ask)
                        while not app.answered:
                            await trio.testing.wait_all_tasks_blocked()
                            await trio.sleep(0.01)
                        service.cancel_scope.cancel()
                was_cut = scope.cancelled_caught
                assert app.running == 0, f"after {steps} steps"
                with trio.move_on_after(1):
                    await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
            caller.http_pool.drop(CALLEE.address)
            for connection in callee.connections:
                connection.close()
    assert steps > 20


@settings(max_examples=25)
@given(st.sampled_from([b"", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", UPGRADE]), st.binary(), st.booleans())
@example(UPGRADE, b"\x81\xfe", True)
@example(HEAD, b"Content-Length: 5\r\n\r\nab", True)
def test_whatever_comes_on_a_stream_the_service_lives_and_forgets_it(start: bytes, data: bytes, finish: bool) -> None:
    async def run() -> None:
        app = Counting()
        async with open_world(app) as world:
            async with world.caller.connect(CALLEE.address) as connection:
                stream = await connection.open_stream()
                await stream.send_all(start + data)
                if finish:
                    await stream.send_eof()
                await trio.sleep(0.5)
            await trio.sleep(10)
            assert app.running == 0
            assert (await world.client.post("/", content=b"alive")).text == "alive"

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
