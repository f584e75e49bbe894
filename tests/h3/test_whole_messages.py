"""Small messages that come whole take a short way: it must not show, nor must its neighbours lose theirs."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from a2al_trio.errors import LocalProtocolError, Refused
from a2al_trio.h3 import (
    ErrorCode,
    H3Core,
    H3Error,
    RequestHead,
    ResponseHead,
    ServerExchange,
    open_h3_client,
    open_h3_server,
)
from a2al_trio.h3.core import JOINED_SIZE
from a2al_trio.h3.frames import FrameType, encode_frame
from a2al_trio.quic import QuicConfig
from a2al_trio.quic.varint import encode_varint
from tests.h3.test_core import outcome, plain
from tests.h3.test_sessions import GET, POST, sessions
from tests.quic.driver.support import two_endpoints
from tests.quic.tls_support import client_tls, server_tls

OK = [(b":status", b"200")]
ANNOUNCED = plain([*OK, (b"content-length", b"3")])
USUAL = ANNOUNCED + encode_frame(FrameType.DATA, b"abc")


def in_pieces(data: bytes) -> list[bytes]:
    return [data[offset : offset + 1] for offset in range(len(data))]


NEIGHBOURS = {
    "the same": USUAL,
    "other content": ANNOUNCED + encode_frame(FrameType.DATA, b"xyz"),
    "less": ANNOUNCED + encode_frame(FrameType.DATA, b"ab"),
    "more": ANNOUNCED + encode_frame(FrameType.DATA, b"abcd"),
    "none": ANNOUNCED,
    "an empty frame": ANNOUNCED + encode_frame(FrameType.DATA, b""),
    "two frames": ANNOUNCED + encode_frame(FrameType.DATA, b"a") + encode_frame(FrameType.DATA, b"bc"),
    "a long size": ANNOUNCED + b"\x00\x40\x03abc",
    "another type": ANNOUNCED + encode_frame(0x21, b"abc"),
    "trailers": USUAL + plain([(b"a", b"b")]),
    "an unknown frame behind": USUAL + encode_frame(0x21, b""),
    "cut off": USUAL[:-1],
    "a byte behind": USUAL + b"\x00",
    "a long size of the head": b"\x01" + b"\x40" + USUAL[1:],
    "interim first": plain([(b":status", b"103")]) + USUAL,
    "interim only": plain([(b":status", b"103")]),
    "no head": USUAL[len(ANNOUNCED) :],
    "another type of the head": b"\x0d" + USUAL[1:],
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_what_is_like_a_known_message_is_read_as_in_pieces(name: str) -> None:
    core = H3Core(is_client=True)
    for stream_id in (0, 4, 8):
        assert core.receive_whole(stream_id, USUAL) == (ResponseHead(200, ((b"content-length", b"3"),)), b"abc")
    data = NEIGHBOURS[name]
    assert outcome(core, [data], 12) == outcome(H3Core(is_client=True), in_pieces(data), 12)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x02\x00"])
def test_what_is_too_short_is_no_whole_message(data: bytes) -> None:
    core = H3Core(is_client=True)
    assert core.receive_whole(0, data) is None


def test_a_known_answer_to_head_has_no_content() -> None:
    core = H3Core(is_client=True)
    for _ in range(3):
        core.receive_whole(0, USUAL)
    core.send_section(4, core.head_section(RequestHead(b"HEAD", b"a.test")))
    assert core.receive_whole(4, ANNOUNCED) == (ResponseHead(200, ((b"content-length", b"3"),)), b"")
    core.send_section(8, core.head_section(RequestHead(b"HEAD", b"a.test")))
    with pytest.raises(H3Error, match="more content") as raised:
        core.receive_whole(8, USUAL)
    assert (raised.value.code, raised.value.stream_id) == (ErrorCode.MESSAGE_ERROR, 8)


def test_an_answer_without_content_may_announce_some() -> None:
    core = H3Core(is_client=True)
    data = plain([(b":status", b"304"), (b"content-length", b"3")])
    for stream_id in (0, 4, 8):
        assert core.receive_whole(stream_id, data) == (ResponseHead(304, ((b"content-length", b"3"),)), b"")
    with pytest.raises(H3Error, match="more content"):
        core.receive_whole(12, data + encode_frame(FrameType.DATA, b"abc"))


def test_a_known_head_that_refers_to_the_table_is_acknowledged_each_time() -> None:
    core = H3Core(is_client=False)
    core.receive_unidirectional(6, b"\x02\x3f\x21" + b"\x41x\x01y")
    request = plain([(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")])
    data = encode_frame(FrameType.HEADERS, b"\x02\x80" + request[4:] + b"\x10")
    for stream_id in (0, 4, 8):
        assert core.receive_whole(stream_id, data) == (RequestHead(b"GET", b"a.test", b"/", ((b"x", b"y"),)), b"")
    assert bytes(core.qpack.decoder_output)[-3:] == b"\x80\x84\x88"


def test_heads_are_known_by_all_of_their_values() -> None:
    core = H3Core(is_client=True)
    head = RequestHead(b"POST", b"a.test", b"/", ((b"content-length", b"3"),))
    section = core.head_section(head)
    assert core.head_section(RequestHead(b"POST", b"a.test", b"/", [(b"content-length", b"3")])) is section
    assert section.opening + b"abc" == core.send_section(0, section) + encode_frame(FrameType.DATA, b"abc")
    for other in (
        RequestHead(b"PUT", b"a.test", b"/", head.headers),
        RequestHead(b"POST", b"b.test", b"/", head.headers),
        RequestHead(b"POST", b"a.test", b"/x", head.headers),
        RequestHead(b"POST", b"a.test", b"/", ((b"content-length", b"4"),)),
        RequestHead(b"POST", b"a.test", b"/", head.headers, b"http"),
    ):
        assert core.head_section(other).frame != section.frame
    with pytest.raises(LocalProtocolError, match="extended CONNECT"):
        core.head_section(RequestHead(b"CONNECT", b"a.test", b"/", head.headers, b"https", b"websocket"))


async def test_content_arrives_whatever_its_head_announces(autojump_clock: MockClock) -> None:
    sizes = (0, 1, 63, 64, JOINED_SIZE, JOINED_SIZE + 1)

    async def answer(exchange: ServerExchange) -> None:
        head = await exchange.receive_head()
        content = await exchange.receive_all(limit=JOINED_SIZE + 1)
        await exchange.send_response(ResponseHead(200, head.headers), content, end=True)

    async with sessions() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, answer)
        for _ in range(3):  # the third time the heads are known
            for size in sizes:
                for headers in ((), ((b"content-length", b"%d" % size),)):
                    content = bytes(range(256)) * 17
                    head = RequestHead(b"POST", b"a.test", b"/", headers)
                    async with await client.request(head, content[:size], end=True) as exchange:
                        assert await exchange.receive_response() == ResponseHead(200, headers)
                        assert b"".join([chunk async for chunk in exchange]) == content[:size]
                        assert exchange.complete
        nursery.cancel_scope.cancel()


async def test_content_may_follow_a_head_that_announces_it(autojump_clock: MockClock) -> None:
    announced = ((b"content-length", b"6"),)

    async def answer(exchange: ServerExchange) -> None:
        await exchange.receive_head()
        await exchange.send_response(ResponseHead(200, announced), b"abc")
        await exchange.send_data(await exchange.receive_all(limit=6), end=True)

    async with sessions() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, answer)
        for _ in range(2):
            async with await client.request(
                RequestHead(b"POST", b"a.test", b"/", ((b"content-length", b"3"),))
            ) as asked:
                await asked.send_data(b"def", end=True)
                await asked.receive_response()
                assert await asked.receive_all(limit=6) == b"abcdef"
        nursery.cancel_scope.cancel()


async def test_a_request_that_does_not_fit_at_once_follows(autojump_clock: MockClock) -> None:
    config = QuicConfig(stream_window=1024, send_buffer=1024)
    head = RequestHead(b"POST", b"a.test", b"/", ((b"content-length", b"4000"),))
    async with (
        two_endpoints(tls=server_tls(alpn=("h3",)), config=config) as ends,
        await ends.connect(client_tls(alpn=("h3",))) as near,
        await ends.server.accept() as far,
        open_h3_server(far) as server,
        open_h3_client(near) as client,
        trio.open_nursery() as nursery,
    ):

        async def answer() -> None:
            async with await server.accept() as exchange:
                await exchange.receive_head()
                content = await exchange.receive_all(limit=4000)
                await exchange.send_response(ResponseHead(200, head.headers), content, end=True)

        nursery.start_soon(answer)
        async with await client.request(head, bytes(4000), end=True) as exchange:
            await exchange.receive_response()
            assert await exchange.receive_all(limit=4000) == bytes(4000)


async def test_what_came_whole_keeps_the_order_of_calls(autojump_clock: MockClock) -> None:
    async with sessions() as (client, server):
        async with await client.request(POST, b"question", end=True) as asked, await server.accept() as answer:
            await trio.sleep(1)
            with pytest.raises(LocalProtocolError, match="head of the message before"):
                await answer.receive_some()
            assert await answer.receive_head() == POST
            with pytest.raises(LocalProtocolError, match="received already"):
                await answer.receive_head()
            assert not answer.complete
            assert await answer.receive_some() == b"question"
            await answer.send_response(ResponseHead(200), b"answer", end=True)
            assert answer.complete
            with pytest.raises(LocalProtocolError, match="sent already"):
                await answer.send_response(ResponseHead(200), end=True)
            with pytest.raises(LocalProtocolError, match="completed"):
                await answer.send_data(b"more")
            await asked.receive_response()
            for receive in (asked.receive_response, asked.receive_head):
                with pytest.raises(LocalProtocolError, match="received already"):
                    await receive()
            assert [chunk async for chunk in asked] == [b"answer"]
            assert await asked.receive_some() == b""
        assert not client._session.requests


async def test_what_was_given_up_is_not_handed_out(autojump_clock: MockClock) -> None:
    async with (
        sessions() as (client, server),
        await client.request(POST, b"question", end=True) as asked,
        await server.accept() as answer,
    ):
        await answer.receive_head()
        await answer.send_response(ResponseHead(200), b"answer", end=True)
        await asked.receive_response()
        asked.give_up(Refused("by the test"), ErrorCode.REQUEST_CANCELLED)
        with pytest.raises(Refused, match="by the test"):
            await asked.receive_some()
        answer.reset()
        with pytest.raises(trio.ClosedResourceError, match="given up here"):
            await answer.receive_some()


async def test_a_wait_for_a_response_that_is_cancelled_has_taken_nothing(autojump_clock: MockClock) -> None:
    async with (
        sessions() as (client, server),
        await client.request(GET, end=True) as asked,
        await server.accept() as answer,
    ):
        with trio.move_on_after(1) as limit:
            await asked.receive_response()
        assert limit.cancelled_caught
        assert await answer.receive_head() == GET
        await answer.send_response(ResponseHead(200), b"answer", end=True)
        assert (await asked.receive_response()).status == 200
        assert await asked.receive_all(limit=6) == b"answer"


async def test_a_wait_for_a_response_ends_when_the_request_is_given_up(autojump_clock: MockClock) -> None:
    async with (
        sessions() as (client, _),
        await client.request(GET, end=True) as asked,
        trio.open_nursery() as nursery,
    ):

        async def give_up() -> None:
            await trio.sleep(1)
            asked.give_up(Refused("by the test"), ErrorCode.REQUEST_CANCELLED)

        nursery.start_soon(give_up)
        with pytest.raises(Refused, match="by the test"):
            await asked.receive_response()


@pytest.mark.parametrize("to_head", [False, True])
async def test_a_malformed_message_ends_its_request_only(autojump_clock: MockClock, to_head: bool) -> None:
    head = RequestHead(b"HEAD" if to_head else b"GET", b"a.test", b"/")
    announced = plain([*OK, (b"content-length", b"3")]) + b"\x00" + encode_varint(4) + b"abcd"
    async with sessions() as (client, server):
        for _ in range(2):
            async with await client.request(head, end=True) as asked, await server.accept() as answer:
                await answer.receive_head()
                await answer._stream.send_all(announced, end=True)
                answer._head_sent = answer._sent_all = True
                with pytest.raises(H3Error, match="more content"):
                    await asked.receive_response()
