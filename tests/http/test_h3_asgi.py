"""Applications served over HTTP/3 and called with our own client, on a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from a2al_trio.errors import StreamReset
from a2al_trio.h3 import ErrorCode, H3Client, RequestHead, open_h3_client
from a2al_trio.http import Application, ApplicationFailed
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.http.h3_asgi import serve_h3_asgi
from tests.quic.driver.support import two_endpoints
from tests.quic.tls_support import client_tls, server_tls

Clock = trio.testing.MockClock
GET = RequestHead(b"GET", b"a.test", b"/")


@asynccontextmanager
async def open_client(app: Application) -> AsyncIterator[H3Client]:
    async with (
        two_endpoints(tls=server_tls(alpn=("h3",))) as ends,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(serve_h3_asgi, ends.server, app)
        async with open_h3_client(await ends.connect(client_tls(alpn=("h3",)))) as client:
            yield client
        nursery.cancel_scope.cancel()


def answering(handler: Callable[[Scope, Receive, Send], Any]) -> Application:
    """An application that knows HTTP only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("HTTP only")
        await handler(scope, receive, send)

    return app


async def get(client: H3Client, head: RequestHead = GET) -> tuple[int, dict[bytes, bytes], bytes]:
    async with await client.request(head, end=True) as exchange:
        response = await exchange.receive_response()
        return response.status, dict(response.headers), await exchange.receive_all(limit=100_000)


async def test_fastapi_is_served(autojump_clock: Clock) -> None:
    app = FastAPI()

    @app.post("/items/{name}")
    async def item(name: str, request: Request, q: int = 0) -> dict[str, Any]:
        return {"name": name, "q": q, "size": len(await request.body()), "version": request.scope["http_version"]}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d\n" % number

        return StreamingResponse(lines(), media_type="text/plain")

    async with open_client(app) as client:
        async with await client.request(RequestHead(b"POST", b"a.test", b"/items/a%20b?q=7")) as exchange:
            for _ in range(10):
                await exchange.send_data(bytes(50_000))
            await exchange.send_end()
            assert (await exchange.receive_response()).status == 200
            body = await exchange.receive_all(limit=1000)
            assert body == b'{"name":"a b","q":7,"size":500000,"version":"3"}'
        status, _, body = await get(client, RequestHead(b"GET", b"a.test", b"/stream"))
        assert (status, body.count(b"\n")) == (200, 1000)
        assert (await get(client, RequestHead(b"GET", b"a.test", b"/none")))[0] == 404


async def test_the_scope_says_what_was_asked_and_nothing_forged(autojump_clock: Clock) -> None:
    scopes = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"close")]})
        await send({"type": "http.response.body", "body": b"not for HEAD"})

    fields = ((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"a2al-peer", b"x"), (b"a2al_peer", b"y"), (b"x", b"z"))
    async with open_client(answering(handler)) as client:
        status, headers, body = await get(client, RequestHead(b"HEAD", b"a.test", b"/p%2Fq?r", fields))
    assert (status, list(headers), body) == (200, [b"date"], b"")
    assert scopes[0]["headers"] == [(b"host", b"a.test"), (b"x", b"z"), (b"cookie", b"a=1; b=2")]
    assert scopes[0]["raw_path"] == b"/p%2Fq"
    assert (scopes[0]["path"], scopes[0]["query_string"], scopes[0]["method"]) == ("/p/q", b"r", "HEAD")
    assert (scopes[0]["scheme"], scopes[0]["extensions"]) == ("https", {})


async def test_an_application_that_fails_answers_500_or_cuts_its_answer(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if scope["path"] != "/none":
            raise RuntimeError("a bug")

    async with open_client(answering(handler)) as client:
        assert (await get(client))[::2] == (500, b"Internal Server Error\n")
        assert (await get(client, RequestHead(b"GET", b"a.test", b"/none")))[0] == 500
        with pytest.raises(StreamReset) as reset:
            await get(client, RequestHead(b"GET", b"a.test", b"/late"))
        assert reset.value.code == ErrorCode.INTERNAL_ERROR
    assert caplog.text.count("RuntimeError: a bug") == 2
    assert "gave no answer to GET /none" in caplog.text


async def test_a_caller_that_goes_away_cancels_the_work(autojump_clock: Clock) -> None:
    ended = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive())["type"] == "http.request":
                pass
            await trio.sleep_forever()
        finally:
            ended.append(scope["path"])

    async with open_client(answering(handler)) as client:
        exchange = await client.request(RequestHead(b"POST", b"a.test", b"/reset"))
        await trio.sleep(1)
        exchange.reset()
        await exchange.aclose()
        await trio.sleep(1)
        assert ended == ["/reset"]
        kept = await client.request(RequestHead(b"GET", b"a.test", b"/lost"), end=True)
        await trio.sleep(1)
        client._session.connection.close()
        await trio.sleep(1)
        assert ended == ["/reset", "/lost"]
        kept.reset()


async def test_an_application_reads_until_the_answer_is_complete(autojump_clock: Clock) -> None:
    messages = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append(await receive())
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        messages.append(await receive())

    async with open_client(answering(handler)) as client:
        assert (await get(client))[0] == 204
        await trio.sleep(1)
    assert messages == [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]


async def test_an_application_that_cannot_start_is_not_served(autojump_clock: Clock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async with two_endpoints(tls=server_tls(alpn=("h3",))) as ends:
        with pytest.raises(ApplicationFailed, match="no database"):
            await serve_h3_asgi(ends.server, app)
