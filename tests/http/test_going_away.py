"""What httpx's requests to an agent become when it stops to serve (RFC 9114 §5.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import httpx
import pytest
import trio

from a2al_trio.errors import Refused
from a2al_trio.h3 import ErrorCode, H3Server, ResponseHead, ServerExchange, open_h3_server
from a2al_trio.host import Host, WebConnection
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.http.h3_client import send_request
from a2al_trio.testing import open_simnet
from tests.http.world import CALLEE, open_hosts

Clock = trio.testing.MockClock


@attrs.define(eq=False)
class Served:
    """HTTP/3 connections to the callee, each with its server, on which nothing is done by itself."""

    caller: Host
    client: httpx.AsyncClient
    servers: trio.MemoryReceiveChannel[H3Server]
    statuses: list[int] = attrs.field(factory=list)

    async def post(self, **settings: object) -> None:
        response = await self.client.post("/", **settings)  # type: ignore[arg-type]
        self.statuses.append(response.status_code)


@asynccontextmanager
async def open_served() -> AsyncIterator[Served]:
    entrance, servers = trio.open_memory_channel[H3Server](8)

    async def handle(connection: WebConnection) -> None:
        async with open_h3_server(connection.quic) as server:
            await entrance.send(server)
            await connection.quic.wait_closed()

    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(callee.serve_http3, handle)
        async with caller.http_client(base_url=f"a2al://{callee.address}") as client:
            yield Served(caller, client, servers)
        nursery.cancel_scope.cancel()


async def answer(exchange: ServerExchange, status: int) -> None:
    async with exchange:
        await exchange.receive_head()
        await exchange.send_response(ResponseHead(status), end=True)


async def parts() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"part"


async def test_what_was_not_processed_is_sent_again_and_the_rest_finishes(autojump_clock: Clock) -> None:
    async with open_served() as served, trio.open_nursery() as nursery:
        nursery.start_soon(partial(served.post, content=b"taken"))
        old = await served.servers.receive()
        taken = await old.accept()
        for content in (b"small", bytes(100_000)):
            nursery.start_soon(partial(served.post, content=content))
        await trio.sleep(1)
        old.go_away()
        new = await served.servers.receive()
        for _ in range(2):
            await answer(await new.accept(), 201)
        nursery.start_soon(partial(served.post, content=parts()))
        await answer(await new.accept(), 202)
        await trio.sleep(1)
        assert sorted(served.statuses) == [201, 201, 202]
        assert len(served.caller.connections) == 2, "one drains, and all that came later share the other"
        await answer(taken, 200)
        await trio.sleep(1)
        assert served.statuses[3:] == [200]
        assert len(served.caller.connections) == len(served.caller.http_pool) == 1
        nursery.start_soon(served.post)
        await answer(await new.accept(), 203)


async def reject(server: H3Server) -> None:
    await (await server.accept()).abandon(ErrorCode.REQUEST_REJECTED)


async def test_a_rejected_request_is_sent_again(autojump_clock: Clock) -> None:
    """On the same connection: its server may have been busy, and then more connections do not help."""
    async with open_served() as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.post)
        server = await served.servers.receive()
        await reject(server)
        await answer(await server.accept(), 200)
        await trio.sleep(1)
        assert served.statuses == [200]
        assert len(served.caller.connections) == 1


async def test_a_rejected_request_goes_elsewhere_when_the_server_goes_away(autojump_clock: Clock) -> None:
    """The word that a request was rejected may come before the one that the server goes away."""
    async with open_served() as served, trio.open_nursery() as nursery:
        nursery.start_soon(served.post)
        server = await served.servers.receive()
        await reject(server)
        await trio.sleep(1)
        server.go_away()
        await answer(await (await served.servers.receive()).accept(), 200)
        await trio.sleep(1)
        assert served.statuses == [200]
        assert len(served.caller.connections) == 1


async def test_a_server_that_rejects_all_is_believed_at_last(autojump_clock: Clock) -> None:
    async with open_served() as served, trio.open_nursery() as nursery:

        async def post() -> None:
            with pytest.raises(httpx.ConnectError, match="rejected the request"):
                await served.post()

        for _ in range(20):
            nursery.start_soon(post)
        server = await served.servers.receive()
        for _ in range(60):
            await reject(server)
        await trio.sleep(1)
        assert len(served.caller.connections) == 1


async def test_content_that_is_gone_is_not_sent_again(autojump_clock: Clock) -> None:
    async with open_served() as served, trio.open_nursery() as nursery:

        async def post() -> None:
            with pytest.raises(httpx.ConnectError, match="cannot be had twice") as error:
                await served.post(content=parts())
            assert isinstance(error.value.__cause__, Refused)

        nursery.start_soon(post)
        server = await served.servers.receive()
        await trio.sleep(1)
        server.go_away()


async def test_an_agent_that_always_goes_away_is_believed_at_last(autojump_clock: Clock) -> None:
    async with open_served() as served, trio.open_nursery() as nursery:

        async def post() -> None:
            with pytest.raises(httpx.ConnectError, match="going away"):
                await served.post()

        nursery.start_soon(post)
        for _ in range(3):
            server = await served.servers.receive()
            await trio.sleep(1)
            server.go_away()
        await trio.sleep(1)
        with pytest.raises(trio.WouldBlock):
            served.servers.receive_nowait()


# --- a service that is started anew -------------------------------------------------------------------------------


async def work(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, but on one path never."""
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/for-ever":
        await trio.sleep_forever()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["http_version"].encode()})


async def test_a_service_that_is_cancelled_says_goodbye(autojump_clock: Clock) -> None:
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), caller.http_client() as client:
        url = f"a2al://{CALLEE.address}"

        async def wait_in_vain() -> None:
            with pytest.raises(
                httpx.ReadError, match=f"{ErrorCode.REQUEST_CANCELLED:d}|{ErrorCode.REQUEST_CANCELLED:#x}"
            ):
                await client.post(f"{url}/for-ever")

        async with trio.open_nursery() as callers:
            async with trio.open_nursery() as nursery:
                await nursery.start(callee.serve_asgi, work)
                callers.start_soon(wait_in_vain)
                await trio.sleep(1)
                [connection] = caller.connections
                begun = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - begun < 0.4, "the caller closes, so there is nothing to wait for"
        assert connection.close_reason is not None
        assert connection.close_reason.code == ErrorCode.NO_ERROR


async def test_no_request_is_lost_when_a_service_starts_anew(autojump_clock: Clock) -> None:
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), caller.http_client() as client:
        url = f"a2al://{CALLEE.address}"
        answered = 0

        async def call() -> None:
            nonlocal answered
            while True:
                assert (await client.post(url)).status_code == 200
                answered += 1
                await trio.sleep(0.003)

        async with trio.open_nursery() as callers:
            for start in range(10):
                async with trio.open_nursery() as nursery:
                    await nursery.start(callee.serve_asgi, work)
                    if not start:
                        for _ in range(5):
                            callers.start_soon(call)
                    await trio.sleep(0.1 + start / 1000)
                    nursery.cancel_scope.cancel()
            callers.cancel_scope.cancel()
        assert answered > 50


async def test_nobody_comes_in_over_http3_during_the_goodbyes(autojump_clock: Clock) -> None:
    async def handle(connection: WebConnection) -> None:
        try:
            await connection.quic.wait_closed()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)

    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), trio.open_nursery() as nursery:
        server = await nursery.start(run_cancellable, partial(callee.serve_http3, handle))
        connection = await caller.http_pool.get(CALLEE.address)
        assert connection.alpn == "h3"
        server.cancel()
        await trio.sleep(0.1)
        caller.http_pool.retire(connection)
        assert (await caller.http_pool.get(CALLEE.address)).alpn == "a2al-quic-1"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("http3", [True, False])
@pytest.mark.parametrize("used", [True, False])
async def test_a_client_is_told_that_its_own_host_was_closed(autojump_clock: Clock, http3: bool, used: bool) -> None:
    url = f"a2al://{CALLEE.address}"

    async def serve(callee: Host, *, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(trio.ClosedResourceError, match="this host was closed"):
            await callee.serve_asgi(work, http3=http3, task_status=task_status)

    async def expect_the_end(client: httpx.AsyncClient, path: str) -> None:
        with pytest.raises(httpx.TransportError) as told:
            await client.post(url + path)
        assert isinstance(told.value.__cause__, trio.ClosedResourceError)

    async with open_simnet(seed=3) as net, trio.open_nursery() as nursery:
        async with open_hosts(net) as (callee, caller):
            client = caller.http_client()
            await nursery.start(serve, callee)
            if used:
                nursery.start_soon(expect_the_end, client, "/for-ever")
                assert (await client.post(url)).status_code == 200
        await expect_the_end(client, "/")
        await client.aclose()


async def test_a_connection_of_a_closed_host_takes_no_request(autojump_clock: Clock) -> None:
    async with open_simnet(seed=3) as net, trio.open_nursery() as nursery:
        async with open_hosts(net) as (callee, caller):
            await nursery.start(run_cancellable, partial(callee.serve_asgi, work))
            connection = await caller.http_pool.get(CALLEE.address)
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), pytest.raises(httpx.WriteError) as told:
            await send_request(connection, httpx.Request("GET", f"a2al://{CALLEE.address}/"), token="")
        assert isinstance(told.value.__cause__, trio.ClosedResourceError)


async def run_cancellable(
    serve: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    """Serve in a scope that is handed out."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            task_status.started(scope)
