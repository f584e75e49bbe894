"""Applications served by AID and called with httpx, on a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from a2al_trio.errors import RecordNotFound
from a2al_trio.http import Application, ApplicationFailed
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.identity import Identity
from a2al_trio.quic import QuicStream
from tests.http.world import CALLEE, CALLER, open_world

Clock = trio.testing.MockClock


def answering(handler: Any) -> Application:
    """An application that knows HTTP only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("HTTP only")
        await handler(scope, receive, send)

    return app


async def answer(send: Send, body: bytes = b"", *, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def open_stream_to(app: Application) -> AsyncIterator[QuicStream]:
    """A bare stream to an application."""
    async with (
        open_world(app) as world,
        world.caller.connect(CALLEE.address) as connection,
        await connection.open_stream() as stream,
    ):
        yield stream


async def body_of(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, await body_of(receive))


def fast_app() -> FastAPI:
    app = FastAPI()

    @app.get("/who")
    async def who(request: Request) -> dict[str, str | None]:
        peer = request.scope["extensions"]["a2al.peer"]
        return {"aid": peer["aid"], "agent": peer["agent"], "header": request.headers.get("a2al-peer")}

    @app.get("/add/{a}")
    async def add(a: int, b: int = 0) -> int:
        return a + b

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def tell() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number} at {trio.current_time():.0f}\n\n"
                await trio.sleep(10)

        return StreamingResponse(tell(), media_type="text/event-stream")

    @app.get("/slash/")
    async def slash() -> str:
        return "reached"

    return app


async def test_a_fastapi_application_is_called_by_aid(autojump_clock: Clock) -> None:
    async with open_world(fast_app()) as world:
        assert (await world.client.get("/add/40", params={"b": 2})).json() == 42
        missing = await world.client.get("/nothing")
        assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
        assert (await world.client.get("/slash", follow_redirects=True)).json() == "reached"
        assert len(world.caller.connections) == 1, "all requests share one connection"


async def test_the_caller_is_proven_and_cannot_be_forged(autojump_clock: Clock) -> None:
    async with open_world(fast_app()) as world:
        forged = {"A2AL-Peer": str(CALLEE.address), "a2al_peer": str(CALLEE.address)}
        found = (await world.client.get("/who", headers=forged)).json()
        assert found == {"aid": str(CALLER.address), "agent": str(CALLEE.address), "header": str(CALLER.address)}


async def test_events_arrive_when_they_are_sent(autojump_clock: Clock) -> None:
    async with open_world(fast_app()) as world, world.client.stream("GET", "/events") as response:
        begun = trio.current_time()
        arrived = [trio.current_time() - begun async for line in response.aiter_lines() if line]
    assert [round(at) for at in arrived] == [0, 10, 20]


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
async def test_bodies_of_known_and_unknown_size_come_back_whole(autojump_clock: Clock, size: int) -> None:
    data = bytes(index % 251 for index in range(size))

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, size, 30_000):
            yield data[start : start + 30_000]

    async with open_world(answering(echo)) as world:
        assert (await world.client.post("/", content=data)).content == data
        assert (await world.client.post("/", content=parts())).content == data


async def test_two_hundred_requests_at_once(autojump_clock: Clock) -> None:
    async def slow_echo(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(1)
        await answer(send, scope["path"].encode())

    found = set()
    async with open_world(answering(slow_echo)) as world:

        async def ask(number: int) -> None:
            found.add((await world.client.get(f"/{number}")).text)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
    assert found == {f"/{number}" for number in range(200)}


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_a_slow_reader_holds_the_application_back(autojump_clock: Clock, http3: bool) -> None:
    sent = 0

    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            sent += 10_000

    async with open_world(answering(pour), http3=http3) as world, world.client.stream("GET", "/"):
        await trio.sleep(60)
        assert 100_000 < sent < 3_000_000


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_a_slow_application_holds_the_sender_back(autojump_clock: Clock, http3: bool) -> None:
    taken = 0

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await trio.sleep_forever()

    class Endless:
        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> bytes:
            nonlocal taken
            taken += 10_000
            return bytes(10_000)

    async with open_world(answering(wait), http3=http3) as world:
        with trio.move_on_after(60):
            await world.client.post("/", content=Endless())
        assert 100_000 < taken < 3_000_000


@pytest.mark.parametrize("headers_first", [False, True])
@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_a_cancelled_request_frees_everything_at_once(
    autojump_clock: Clock, headers_first: bool, http3: bool
) -> None:
    ended_at: list[float] = []

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if headers_first:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await trio.sleep_forever()
        finally:
            ended_at.append(trio.current_time())

    async with open_world(answering(work), http3=http3) as world:
        with trio.move_on_after(5):
            await world.client.get("/")
        cancelled_at = trio.current_time()
        await trio.sleep(1)
        assert len(ended_at) == 1
        assert ended_at[0] - cancelled_at < 0.1
        [connection] = world.caller.connections
        assert connection.stats.open_streams == (CRITICAL if http3 else 0)


# httpx leaves its own generators to the garbage collector, of which Trio warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_a_response_left_unread_frees_everything_at_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, http3: bool
) -> None:
    ended = trio.Event()

    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
        finally:
            ended.set()

    async with open_world(answering(pour), http3=http3) as world:
        async with world.client.stream("GET", "/") as response:
            await anext(response.aiter_raw())
        with trio.fail_after(1):
            await ended.wait()
    assert "failed" not in caplog.text, "a caller that goes away is nobody's failure"


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_an_application_error_is_a_500_and_the_service_lives_on(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, http3: bool
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("from a task")
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] != "/nothing":
            raise ValueError("no such luck")

    async with open_world(answering(fail), http3=http3) as world:
        for path in ("/", "/group", "/nothing"):
            response = await world.client.get(path)
            assert (response.status_code, response.text) == (500, "Internal Server Error\n")
        with pytest.raises(httpx.ReadError, match="reset"):
            await world.client.get("/late")
        assert (await world.client.head("/")).status_code == 500
    assert "no such luck" in caplog.text
    assert "the application gave no answer to GET /nothing" in caplog.text


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_an_answer_may_come_before_the_body_was_read(autojump_clock: Clock, http3: bool) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"too big", status=413)

    async with open_world(answering(refuse), http3=http3) as world:
        response = await world.client.post("/", content=bytes(3_000_000))
        assert (response.status_code, response.text) == (413, "too big")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(autojump_clock: Clock, status: int) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"must not be sent"})

    async with open_world(answering(nothing)) as world:
        response = await world.client.get("/")
        assert (response.status_code, response.content) == (status, b"")
        assert (await world.client.head("/")).content == b""


async def test_the_lifespan_surrounds_the_service(autojump_clock: Clock) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        told.append("up")
        yield {"database": "open"}
        await trio.sleep(1)
        told.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def state(request: Request) -> str:
        return str(request.state.database)

    async with open_world(app) as world:
        assert (await world.client.get("/")).json() == "open"
        assert told == ["up"]
    assert told == ["up", "down"]


async def test_an_application_that_cannot_start_says_so(autojump_clock: Clock) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    with pytest.RaisesGroup(pytest.RaisesExc(ApplicationFailed, match="no database")):
        async with open_world(FastAPI(lifespan=lifespan)):
            raise AssertionError("it must not be served")


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_a_connection_that_died_is_replaced(autojump_clock: Clock, http3: bool) -> None:
    async with open_world(answering(echo), http3=http3) as world:
        assert (await world.client.post("/", content=b"one")).text == "one"
        [at_callee] = world.callee.connections
        at_callee.close(0, "restarting")
        assert (await world.client.put("/", content=b"two")).text == "two"


async def test_errors_say_what_is_wrong(autojump_clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async with open_world(answering(echo)) as world:
        with pytest.raises(httpx.UnsupportedProtocol, match="write a2al://AID/path"):
            await world.client.get(f"ftp://{CALLEE.address}/")
        with pytest.raises(httpx.UnsupportedProtocol, match=r"'example\.org' is not an AID"):
            await world.client.get("http://example.org/")
        stranger = Identity.from_seed(bytes(32)).address
        with pytest.raises(httpx.ConnectError, match="published nothing") as caught:
            await world.client.get(f"a2al://{stranger}/")
        assert isinstance(caught.value.__cause__, RecordNotFound)
        world.callee.access = lambda local, remote, tokens: "ticket" in tokens
        with pytest.raises(httpx.TransportError, match="denies us access"):
            await world.client.get("/")
        async with world.caller.http_client(token="ticket") as client:
            assert (await client.post(f"a2al://{CALLEE.address}", content=b"let in")).text == "let in"
        async with world.caller.http_client(token="wrong") as client:
            with pytest.raises(httpx.TransportError, match="denies us access"):
                await client.get(f"a2al://{CALLEE.address}")


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_time_limits_are_the_users(autojump_clock: Clock, http3: bool) -> None:
    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(100)
        await answer(send)

    async with open_world(answering(work), http3=http3) as world:
        assert (await world.client.get("/")).status_code == 200
        with pytest.raises(httpx.ReadTimeout, match="silent for 5"):
            await world.client.get("/", timeout=5)


CRITICAL = 6
"""Unidirectional streams of an HTTP/3 connection, which stay open (RFC 9114 §6.2)."""
REQUESTS = {
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n": b"HTTP/1.1 200",
    b"nonsense\r\n\r\n": b"HTTP/1.1 400",
    b"GET / HTTP/1.1\r\n\r\n": b"HTTP/1.1 400",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(70_000).replace(b"\0", b"x"): b"HTTP/1.1 431",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n": b"HTTP/1.1 400",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n": b"HTTP/1.1 400",
    b"": b"",
}


@pytest.mark.parametrize("request_bytes", REQUESTS, ids=lambda data: data[:12])
async def test_whatever_a_caller_sends_the_service_lives(autojump_clock: Clock, request_bytes: bytes) -> None:
    async with open_world(answering(echo)) as world, world.caller.connect(CALLEE.address) as connection:
        for finish in (False, True):
            async with await connection.open_stream() as stream:
                await stream.send_all(request_bytes)
                if finish or not request_bytes:
                    await stream.send_eof()
                received = await stream.receive_all(limit=10_000)
                assert received.startswith(REQUESTS[request_bytes])
        assert (await world.client.post("/", content=b"alive")).text == "alive"


async def test_one_stream_may_carry_many_requests(autojump_clock: Clock) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    async with open_stream_to(answering(echo)) as stream:
        await stream.send_all(request * 20)
        await stream.send_eof()
        received = await stream.receive_all(limit=10_000)
        assert received.count(b"HTTP/1.1 200") == received.count(b"\r\n\r\nhi") == 20


async def test_a_caller_may_wait_to_be_told_to_go_on(autojump_clock: Clock) -> None:
    async with open_stream_to(answering(echo)) as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"ok")
        assert (await stream.receive_some()).endswith(b"\r\n\r\nok")


async def test_a_stream_without_a_request_is_given_up(autojump_clock: Clock) -> None:
    async with open_stream_to(answering(echo)) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        begun = trio.current_time()
        assert await stream.receive_all(limit=10) == b""
        assert 70 < trio.current_time() - begun < 80


async def test_a_lost_caller_ends_the_work_for_it(autojump_clock: Clock) -> None:
    ended = trio.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_world(answering(work)) as world:
        with trio.move_on_after(5):
            async with world.caller.connect(CALLEE.address) as connection:
                stream = await connection.open_stream()
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await trio.sleep_forever()
        with trio.fail_after(2):
            await ended.wait()


@pytest.mark.parametrize("http3", [True, False], ids=["h3", "http1"])
async def test_what_follows_the_answer_is_the_applications_own(autojump_clock: Clock, http3: bool) -> None:
    done = trio.Event()

    async def answer_and_go_on(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"accepted", status=202)
        assert await receive() == {"type": "http.disconnect"}
        await trio.sleep(30)
        done.set()

    async with open_world(answering(answer_and_go_on), http3=http3) as world:
        assert (await world.client.get("/")).status_code == 202
        await trio.sleep(31)
        assert done.is_set()


async def test_a_caller_that_stops_listening_ends_the_work_at_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The reference gives a request up by STOP_SENDING and FIN."""
    ended = trio.Event()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_world(answering(work)) as world, world.caller.connect(CALLEE.address) as connection:
        stream = await connection.open_stream()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await stream.send_eof()
        await trio.sleep(1)
        stream.stop(0)
        with trio.fail_after(0.5):
            await ended.wait()
    assert "failed" not in caplog.text
