"""HTTP datagrams (RFC 9297): their bytes, and two of our own sessions on a simulated network, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from a2al_trio.errors import ConnectionLost, LocalProtocolError, StreamReset
from a2al_trio.h3 import (
    ClientExchange,
    ErrorCode,
    H3Client,
    H3Config,
    H3Core,
    H3Error,
    H3Server,
    RequestHead,
    ResponseHead,
    ServerExchange,
    open_h3_client,
    open_h3_server,
    open_http_datagrams,
)
from a2al_trio.h3.core import StreamType
from a2al_trio.h3.datagram_flow import CAPACITY, EARLY, LARGEST
from a2al_trio.h3.datagrams import CapsuleReader, decode_datagram, encode_capsule, encode_datagram
from a2al_trio.h3.frames import Setting, decode_settings, encode_settings
from a2al_trio.quic import QuicConfig, QuicConnection
from a2al_trio.testing import Link
from tests.quic.driver.support import two_endpoints
from tests.quic.tls_support import client_tls, server_tls

CONNECT = RequestHead(b"CONNECT", b"a.test", b"/", protocol=b"test-datagrams")
GET = RequestHead(b"GET", b"a.test", b"/")
WITHOUT = QuicConfig()
WITH = QuicConfig(max_datagram_frame_size=1500)

# --- bytes -----------------------------------------------------------------------------------------------------------


@given(data=st.binary(max_size=20))
def test_any_bytes_are_a_datagram_or_the_one_error(data: bytes) -> None:
    if len(data) < (1 << (data[0] >> 6) if data else 1) or data[0] >= 0xD0:
        with pytest.raises(H3Error) as error:
            decode_datagram(data)
        assert (error.value.code, error.value.stream_id) == (ErrorCode.DATAGRAM_ERROR, None)
        return
    stream_id, payload = decode_datagram(data)
    assert stream_id % 4 == 0
    assert stream_id < 1 << 62
    assert decode_datagram(encode_datagram(stream_id, payload)) == (stream_id, payload)


def test_a_stream_that_there_cannot_be_is_an_error() -> None:
    with pytest.raises(H3Error):
        decode_datagram(b"\xd0" + bytes(7))
    assert decode_datagram(b"\xcf" + b"\xff" * 7) == ((1 << 62) - 4, b"")


CAPSULES = st.tuples(st.sampled_from([0, 0, 1, 0x2A, 0x1234]), st.binary(max_size=80))


@given(capsules=st.lists(CAPSULES, max_size=6), data=st.data())
def test_capsules_are_found_however_bytes_are_split(capsules: list[tuple[int, bytes]], data: st.DataObject) -> None:
    content = b"".join(encode_capsule(kind, value) for kind, value in capsules)
    reader, payloads = CapsuleReader(0, limit=100), []
    while content:
        size = data.draw(st.integers(1, len(content)))
        payloads += reader.receive(content[:size])
        content = content[size:]
    reader.finish()
    assert payloads == [value for kind, value in capsules if kind == 0]


@given(content=st.lists(st.binary(max_size=30), max_size=5))
def test_any_content_is_capsules_or_the_one_error(content: list[bytes]) -> None:
    reader = CapsuleReader(8, limit=100)
    with suppress(H3Error):
        for piece in content:
            assert all(len(payload) <= 100 for payload in reader.receive(piece))
        reader.finish()


@pytest.mark.parametrize("datagrams", [False, True])
def test_datagrams_are_used_when_both_sides_have_said_so(datagrams: bool) -> None:
    core = H3Core(is_client=True, datagrams=datagrams)
    settings = decode_settings(dict(core.take_output())[StreamType.CONTROL][2:])
    assert settings.get(Setting.H3_DATAGRAM) == (1 if datagrams else None)
    assert not core.takes_datagrams
    core.receive_unidirectional(3, b"\x00" + encode_settings({Setting.H3_DATAGRAM: 1}))
    assert core.takes_datagrams is datagrams
    with pytest.raises(H3Error) as error:
        H3Core(is_client=False).receive_unidirectional(2, b"\x00" + encode_settings({Setting.H3_DATAGRAM: 2}))
    assert error.value.code is ErrorCode.SETTINGS_ERROR


# --- two sessions ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Tunnel:
    """An extended CONNECT that has been answered, from both sides."""

    exchange: ClientExchange
    answer: ServerExchange
    near: QuicConnection
    far: QuicConnection
    client: H3Client
    server: H3Server


@asynccontextmanager
async def tunnel(config: QuicConfig, server_config: QuicConfig) -> AsyncIterator[Tunnel]:
    async with two_endpoints(
        link=Link(latency=0.02), config=config, server_config=server_config, tls=server_tls(alpn=("h3",))
    ) as ends:
        near = await ends.connect(client_tls(alpn=("h3",)))
        far = await ends.server.accept()
        async with (
            open_h3_server(far, H3Config(extended_connect=True)) as server,
            open_h3_client(near) as client,
        ):
            await trio.sleep(1)  # until the settings have come
            async with await client.request(CONNECT) as exchange, await server.accept() as answer:
                await answer.receive_head()
                await answer.send_response(ResponseHead(200))
                await exchange.receive_response()
                yield Tunnel(exchange, answer, near, far, client, server)


@pytest.mark.parametrize("config", [WITH, WITHOUT])
@pytest.mark.parametrize("server_config", [WITH, WITHOUT])
async def test_datagrams_travel_both_ways(
    autojump_clock: MockClock, config: QuicConfig, server_config: QuicConfig
) -> None:
    unreliable = config is server_config is WITH
    payloads = [b"", b"small", bytes(1000), bytes(LARGEST)]
    async with tunnel(config, server_config) as two:
        async with open_http_datagrams(two.exchange) as near, open_http_datagrams(two.answer) as far:
            for sender, receiver in ((near, far), (far, near)):
                assert (sender.max_unreliable_size is not None) is unreliable
                before = two.near.stats.bytes_sent
                for payload in payloads:
                    await sender.send(payload)
                    assert await receiver.receive() == payload
                assert two.near.stats.bytes_sent > before
            await two.answer.send_end()
            assert [payload async for payload in near] == []
        with pytest.raises(LocalProtocolError, match="completed"):
            async with open_http_datagrams(two.answer) as far:
                await far.send(b"after the end")


async def test_datagrams_that_come_early_are_kept_a_few(autojump_clock: MockClock) -> None:
    async with tunnel(WITH, WITH) as two:
        for number in range(EARLY + 4):
            two.near.send_datagram(encode_datagram(two.exchange.stream_id, b"%d" % number))
            await trio.sleep(0.01)
        await trio.sleep(1)
        async with open_http_datagrams(two.answer) as datagrams:
            for number in range(4, EARLY + 4):
                assert await datagrams.receive() == b"%d" % number
            with trio.move_on_after(1) as scope:
                await datagrams.receive()
            assert scope.cancelled_caught


async def test_what_waits_is_bounded(autojump_clock: MockClock) -> None:
    async with (
        tunnel(WITH, WITHOUT) as capsules,
        open_http_datagrams(capsules.exchange) as sender,
        open_http_datagrams(capsules.answer) as receiver,
    ):
        sent = 0
        with trio.move_on_after(10):
            while True:
                await sender.send(bytes(50_000))
                sent += 1
        assert CAPACITY < sent < CAPACITY + 100  # what QUIC holds comes on top
        for _ in range(sent):
            assert await receiver.receive() == bytes(50_000)
    async with (
        tunnel(WITH, WITH) as unreliable,
        open_http_datagrams(unreliable.exchange) as sender,
        open_http_datagrams(unreliable.answer) as receiver,
    ):
        for number in range(CAPACITY + 10):
            await sender.send(b"%d" % number)
            await trio.sleep(0.01)
        await trio.sleep(1)
        got = [await receiver.receive() for _ in range(CAPACITY)]
        assert got == [b"%d" % number for number in range(CAPACITY)]


async def test_a_request_without_datagrams_is_given_up_when_some_come(autojump_clock: MockClock) -> None:
    async with tunnel(WITH, WITH) as two:
        async with await two.client.request(GET) as exchange, await two.server.accept() as answer:
            await answer.receive_head()
            two.near.send_datagram(encode_datagram(exchange.stream_id, b"for a GET"))
            with pytest.raises(H3Error, match="has none"):
                await answer.receive_some()
            with pytest.raises(StreamReset) as reset:
                await exchange.receive_head()
            assert reset.value.code == ErrorCode.DATAGRAM_ERROR
        two.near.send_datagram(encode_datagram(exchange.stream_id, b"too late"))
        two.near.send_datagram(encode_datagram(400, b"for nobody"))
        async with open_http_datagrams(two.exchange) as near, open_http_datagrams(two.answer) as far:
            await near.send(b"and the others go on")
            assert await far.receive() == b"and the others go on"


async def test_a_datagram_that_cannot_be_read_ends_the_connection(autojump_clock: MockClock) -> None:
    async with tunnel(WITH, WITH) as two, open_http_datagrams(two.exchange) as near:
        two.near.send_datagram(b"\x40")
        with pytest.raises(ConnectionLost) as lost:
            await near.receive()
        assert lost.value.code == ErrorCode.DATAGRAM_ERROR


@pytest.mark.parametrize("content", [b"\x00\x05abc", b"\x00\x80\x01\x00\x01"])
async def test_a_capsule_that_cannot_be_read_ends_the_request(autojump_clock: MockClock, content: bytes) -> None:
    async with tunnel(WITH, WITH) as two, open_http_datagrams(two.answer) as far:
        await two.exchange.send_data(content, end=True)
        for _ in range(2):
            with pytest.raises(H3Error) as error:
                await far.receive()
            assert error.value.stream_id == two.exchange.stream_id
        with pytest.raises(H3Error):
            await far.send(b"no more")
        with pytest.raises(StreamReset) as reset:
            await two.exchange.receive_some()
        assert reset.value.code == error.value.code


async def test_the_end_of_the_request_is_the_end_of_its_datagrams(autojump_clock: MockClock) -> None:
    async with tunnel(WITH, WITH) as two, open_http_datagrams(two.answer) as far:
        two.exchange.reset()
        with pytest.raises(StreamReset) as reset:
            await far.receive()
        assert reset.value.code == ErrorCode.REQUEST_CANCELLED


async def test_only_extended_connect_has_datagrams(autojump_clock: MockClock) -> None:
    async with (
        tunnel(WITH, WITH) as two,
        await two.client.request(GET) as exchange,
        await two.server.accept() as answer,
    ):
        for side in (exchange, answer):
            with pytest.raises(LocalProtocolError, match="extended CONNECT"):
                async with open_http_datagrams(side):
                    pass
