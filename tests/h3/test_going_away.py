"""Either side ends a connection without losing requests (RFC 9114 §5.2), and requests that never quite begin end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from a2al_trio.errors import Refused, StreamReset
from a2al_trio.h3 import (
    ClientExchange,
    ErrorCode,
    H3Client,
    H3Core,
    H3Error,
    H3Server,
    RequestHead,
    ResponseHead,
    open_h3_client,
    open_h3_server,
)
from a2al_trio.h3.core import StreamType
from a2al_trio.h3.head_timer import HEAD_LIMIT
from a2al_trio.quic import QuicConnection
from a2al_trio.quic.varint import encode_varint
from tests.h3.test_sessions import GET, POST, connections, sessions


def refuse_from(server: H3Server, stream_id: int) -> None:
    server._session.core.send_goaway(stream_id)
    server._session.flush()


async def expect_refusal(do: Callable[[], Awaitable[Any]]) -> None:
    with pytest.raises(Refused, match="does not process"):
        await do()


async def send_without_end(exchange: ClientExchange) -> None:
    while True:
        await exchange.send_data(bytes(100_000))


def ended_without_error(client: H3Client) -> bool:
    end = client._session.connection.close_reason
    return end is not None and end.code == ErrorCode.NO_ERROR


# --- as a client --------------------------------------------------------------------------------------------------


async def test_requests_above_the_limit_are_refused_and_those_below_finish(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        taken = await client.request(GET, end=True)
        refused = [await client.request(head, end=head is GET) for head in (GET, POST, POST)]
        answers = [await server.accept() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_refusal, refused[0].receive_response)
            nursery.start_soon(expect_refusal, lambda: send_without_end(refused[1]))
            await trio.sleep(1)
            refuse_from(server, refused[0].stream_id)
            told_at = trio.current_time()
        assert trio.current_time() - told_at < 0.1
        await expect_refusal(lambda: refused[2].send_data(b"more"))
        await expect_refusal(refused[2].receive_head)
        await expect_refusal(lambda: client.request(GET))
        async with taken, answers[0]:
            await answers[0].send_response(ResponseHead(200), b"whole", end=True)
            assert (await taken.receive_response()).status == 200
            assert await taken.receive_all(limit=5) == b"whole"
            assert client._session.connection.close_reason is None
        assert ended_without_error(client), "nothing is left to be done on it"
        await expect_refusal(lambda: client.request(GET))


async def test_a_connection_without_requests_is_closed_at_once(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        server.go_away()
        await trio.sleep(0.1)
        assert ended_without_error(client)


async def test_a_limit_may_be_lowered(autojump_clock: MockClock) -> None:
    """Servers say the highest number first, to find out what is on its way."""
    async with sessions() as (client, server):
        first, second = [await client.request(GET, end=True) for _ in range(2)]
        refuse_from(server, 2**62 - 4)
        await trio.sleep(0.1)
        await expect_refusal(lambda: client.request(GET))
        refuse_from(server, second.stream_id)
        await expect_refusal(second.receive_head)
        answer = await server.accept()
        await answer.send_response(ResponseHead(204), end=True)
        assert (await first.receive_response()).status == 204
        await first.aclose()
        assert ended_without_error(client)


async def test_who_waits_for_a_stream_is_refused(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        under_way = []
        with trio.move_on_after(1):
            while True:
                under_way.append(await client.request(GET, end=True))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(expect_refusal, lambda: client.request(GET))
            await trio.sleep(1)
            refuse_from(server, 2**62 - 4)
            with trio.fail_after(0.1):
                await trio.testing.wait_all_tasks_blocked()
        assert client._session.connection.close_reason is None
        for exchange in under_way:
            await exchange.abandon()
        assert ended_without_error(client)


# --- as a server --------------------------------------------------------------------------------------------------


async def test_leaving_tells_what_was_not_processed(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_client(near) as client:
        with trio.CancelScope() as scope:
            async with open_h3_server(far) as server:
                begun, unread, unseen = [await client.request(GET, end=True) for _ in range(3)]
                async with await server.accept() as answer, await server.accept():
                    await answer.receive_head()
                    scope.cancel()
                    await trio.sleep_forever()
        for exchange, code in ((begun, ErrorCode.REQUEST_CANCELLED), (unread, ErrorCode.REQUEST_REJECTED)):
            with pytest.raises(StreamReset) as reset:
                await exchange.receive_head()
            assert reset.value.code == code
        await expect_refusal(unseen.receive_head)


async def test_a_client_has_a_moment_for_the_last_answer(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_client(near) as client:
        exchange = await client.request(GET, end=True)
        async with open_h3_server(far) as server, await server.accept() as answer:
            await answer.receive_head()
            await answer.send_response(ResponseHead(200), bytes(300_000), end=True)
        begun = trio.current_time()
        async with exchange:
            await exchange.receive_response()
            assert len(await exchange.receive_all(limit=300_000)) == 300_000
        assert ended_without_error(client)
        await far.wait_closed()
        assert trio.current_time() - begun < 0.4


async def test_a_client_that_does_not_care_is_left_soon(autojump_clock: MockClock) -> None:
    async with connections() as (near, far):
        async with open_h3_server(far):
            begun = trio.current_time()
        assert 0.4 < trio.current_time() - begun < 0.6
        await near.wait_closed()
        assert near.close_reason is not None
        assert near.close_reason.code == ErrorCode.NO_ERROR


# --- heads that do not come ---------------------------------------------------------------------------------------


async def keep_alive(connection: QuicConnection) -> None:
    while True:
        await connection.ping()
        await trio.sleep(10)


async def blocked_head(connection: QuicConnection) -> bytes:
    """A head that refers to an entry of the dynamic table which never comes."""
    ours, theirs = H3Core(is_client=True), H3Core(is_client=False)
    for kind, data in theirs.take_output():
        ours.receive_unidirectional(3, encode_varint(kind) + data)
    section = ours.head_section(RequestHead(b"GET", b"a.test", b"/", ((b"x-new", b"a rather long entry" * 4),)))
    for stream_id in (0, 4):  # the second time it is worth an entry
        frame = ours.send_section(stream_id, section)
    for kind, data in ours.take_output():
        if kind is StreamType.CONTROL:
            await (await connection.open_unidirectional_stream()).send_all(encode_varint(kind) + data)
    return frame


@pytest.mark.parametrize("head", ["none", "half", "blocked"])
async def test_a_request_without_a_head_is_given_up(autojump_clock: MockClock, head: str) -> None:
    async with connections() as (near, far), open_h3_server(far) as server, trio.open_nursery() as nursery:
        late = await near.open_stream()
        await late.send_all({"none": b"\x21", "half": b"\x01\x20\0\0", "blocked": await blocked_head(near)}[head])
        exchange = await server.accept()

        async def wait_in_vain() -> None:
            with pytest.raises(H3Error, match="no head within 75 s"):
                await exchange.receive_head()

        begun = trio.current_time()
        nursery.start_soon(keep_alive, near)
        nursery.start_soon(wait_in_vain)
        await trio.sleep(1)
        assert server._session.core.is_blocked(late.stream_id) is (head == "blocked")
        with pytest.raises(StreamReset) as reset:
            await late.receive_some()
        assert HEAD_LIMIT <= trio.current_time() - begun < HEAD_LIMIT + 1
        assert reset.value.code == ErrorCode.REQUEST_REJECTED
        assert far.close_reason is None, "it is a matter of that request alone"
        nursery.cancel_scope.cancel()


async def test_only_heads_are_timed(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(keep_alive, client._session.connection)
        for _ in range(3):
            async with await client.request(POST) as exchange, await server.accept() as answer:
                await answer.receive_head()
                await trio.sleep(HEAD_LIMIT / 2)
                await answer.send_response(ResponseHead(200))
                await trio.sleep(2 * HEAD_LIMIT)
                await exchange.send_data(b"late", end=True)
                assert await answer.receive_all(limit=4) == b"late"
                await answer.send_end()
                await exchange.receive_response()
                assert await exchange.receive_some() == b""
        nursery.cancel_scope.cancel()
