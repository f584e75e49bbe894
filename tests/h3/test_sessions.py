"""Two of our own HTTP/3 sessions on a simulated network, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from a2al_trio.errors import ConfigurationError, ConnectionLost, LocalProtocolError, Refused, StreamReset, StreamStopped
from a2al_trio.h3 import (
    ClientExchange,
    ErrorCode,
    H3Client,
    H3Config,
    H3Error,
    H3Server,
    RequestHead,
    ResponseHead,
    ServerExchange,
    open_h3_client,
    open_h3_server,
)
from a2al_trio.quic import QuicConnection
from a2al_trio.testing import Link
from tests.quic.driver.support import two_endpoints
from tests.quic.tls_support import client_tls, server_tls

GET = RequestHead(b"GET", b"example.test", b"/")
POST = RequestHead(b"POST", b"example.test", b"/", ((b"x-kind", b"test"),))
SLOW = Link(latency=0.02)


@asynccontextmanager
async def connections(alpn: str = "h3") -> AsyncIterator[tuple[QuicConnection, QuicConnection]]:
    async with two_endpoints(link=SLOW, tls=server_tls(alpn=(alpn,))) as ends:
        near = await ends.connect(client_tls(alpn=(alpn,)))
        yield near, await ends.server.accept()


@asynccontextmanager
async def sessions(config: H3Config | None = None) -> AsyncIterator[tuple[H3Client, H3Server]]:
    async with (
        connections() as (near, far),
        open_h3_server(far, config) as server,
        open_h3_client(near, config) as client,
    ):
        yield client, server


async def echo(server: H3Server) -> None:
    """Answer each request with its own content, fields and trailers."""

    async def answer(exchange: ServerExchange) -> None:
        async with exchange:
            head = await exchange.receive_head()
            await exchange.send_response(ResponseHead(200, head.headers))
            async for chunk in exchange:
                await exchange.send_data(chunk)
            await exchange.send_end(exchange.trailers)

    async with trio.open_nursery() as nursery:
        async for exchange in server:
            nursery.start_soon(answer, exchange)


async def test_content_and_trailers_stream_both_ways(autojump_clock: MockClock) -> None:
    content = bytes(range(256)) * 8192
    async with sessions() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)

        async def send(exchange: ClientExchange) -> None:
            for start in range(0, len(content), 100_000):
                await exchange.send_data(content[start : start + 100_000])
            await exchange.send_end([(b"x-sum", b"7")])

        for _ in range(2):
            async with await client.request(POST) as exchange, trio.open_nursery() as sending:
                sending.start_soon(send, exchange)
                assert await exchange.receive_response() == ResponseHead(200, POST.headers)
                assert await exchange.receive_all(limit=len(content)) == content
                assert exchange.trailers == ((b"x-sum", b"7"),)
        nursery.cancel_scope.cancel()


async def test_many_requests_at_once_share_the_dynamic_table(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)

        async def ask(number: int) -> None:
            fields = ((b"x-number", b"%d" % number), (b"x-long-common-field", b"the same in each of them"))
            async with await client.request(RequestHead(b"GET", b"a.test", b"/", fields), end=True) as exchange:
                assert (await exchange.receive_response()).headers == fields
                assert await exchange.receive_all(limit=0) == b""

        async with trio.open_nursery() as asking:
            for number in range(250):
                asking.start_soon(ask, number)
        nursery.cancel_scope.cancel()


async def test_a_reader_that_waits_stops_the_sender(autojump_clock: MockClock) -> None:
    sent = 0
    async with (
        sessions() as (client, server),
        await client.request(POST) as exchange,
        await server.accept() as answer,
    ):
        await answer.receive_head()
        with trio.move_on_after(10):
            while True:
                await exchange.send_data(bytes(65536))
                sent += 65536
        exchange.reset()
    assert sent < 4 * 1024 * 1024


async def test_interim_responses_come_before_the_final_one(autojump_clock: MockClock) -> None:
    async with (
        sessions() as (client, server),
        await client.request(GET, end=True) as exchange,
        await server.accept() as answer,
    ):
        await answer.receive_head()
        await answer.send_response(ResponseHead(103, ((b"link", b"</a>"),)))
        await answer.send_response(ResponseHead(204), end=True)
        assert (await exchange.receive_head()).status == 103
        assert (await exchange.receive_head()).status == 204
        assert await exchange.receive_some() == b""


async def test_a_cancelled_request_reaches_the_server(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        with trio.CancelScope() as scope:
            async with await client.request(POST) as exchange:
                answer = await server.accept()
                await answer.receive_head()
                scope.cancel()
                await exchange.receive_head()
        async with answer:
            with pytest.raises(StreamReset) as reset:
                await answer.receive_some()
            assert reset.value.code == ErrorCode.REQUEST_CANCELLED
            with pytest.raises(StreamStopped):
                await answer.send_response(ResponseHead(200))


async def test_an_answer_that_fails_resets_the_request(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server), await client.request(GET, end=True) as exchange:
        with pytest.raises(RuntimeError):
            async with await server.accept():
                raise RuntimeError
        with pytest.raises(StreamReset) as reset:
            await exchange.receive_head()
        assert reset.value.code == ErrorCode.INTERNAL_ERROR


async def test_going_away_finishes_what_was_taken_and_refuses_the_rest(autojump_clock: MockClock) -> None:
    async with (
        sessions() as (client, server),
        await client.request(GET, end=True) as exchange,
        await server.accept() as answer,
    ):
        await answer.receive_head()
        server.go_away()
        await trio.sleep(1)
        assert client.going_away
        with pytest.raises(Refused):
            await client.request(GET)
        await answer.send_response(ResponseHead(200), end=True)
        assert (await exchange.receive_response()).status == 200


async def test_a_malformed_response_ends_one_request_only(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        async with await client.request(GET, end=True) as exchange, await server.accept() as answer:
            await answer.send_response(ResponseHead(200, ((b"content-length", b"3"),)))
            await answer.send_data(b"four", end=True)
            with pytest.raises(H3Error) as error:
                await exchange.receive_response()
            assert error.value.code is ErrorCode.MESSAGE_ERROR
        async with await client.request(GET, end=True) as exchange, await server.accept() as answer:
            await answer.send_response(ResponseHead(200), end=True)
            assert (await exchange.receive_response()).status == 200


async def test_a_broken_peer_loses_the_connection_and_both_learn_why(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_server(far) as server:
        stream = await near.open_unidirectional_stream()
        await stream.send_all(b"\x00\x07\x01\x00")  # a control stream that begins with GOAWAY
        with pytest.raises(H3Error) as error:
            await server.accept()
        assert error.value.code is ErrorCode.MISSING_SETTINGS
        await near.wait_closed()
        assert near.close_reason is not None
        assert near.close_reason.code == ErrorCode.MISSING_SETTINGS


async def test_a_request_learns_that_the_connection_ended(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_client(near) as client:
        async with open_h3_server(far) as server:
            exchange = await client.request(GET, end=True)
            await server.accept()
        async with exchange:
            with pytest.raises(ConnectionLost) as lost:
                await exchange.receive_head()
            assert lost.value.code == ErrorCode.NO_ERROR


async def test_mistakes_of_the_user_are_named(autojump_clock: MockClock) -> None:
    async with connections("other") as (near, _):
        with pytest.raises(ConfigurationError, match="alpn"):
            async with open_h3_client(near):
                pass
    async with sessions() as (client, server):
        with pytest.raises(LocalProtocolError, match="lower case"):
            await client.request(RequestHead(b"GET", b"a", b"/", ((b"Upper", b"case"),)))
        async with await client.request(GET, end=True) as exchange:
            with pytest.raises(LocalProtocolError, match="completed"):
                await exchange.send_data(b"more")
            with pytest.raises(LocalProtocolError, match="receive the head"):
                await exchange.receive_some()
            async with await server.accept() as answer:
                with pytest.raises(LocalProtocolError, match="send the head"):
                    await answer.send_data(b"early")
