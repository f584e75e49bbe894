"""Peers that want to make us hold or compute without end: everything they can pile up is bounded."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from a2al_trio.h3 import ErrorCode, H3Config, H3Core, H3Error, ResponseHead, ServerExchange, open_h3_server
from a2al_trio.h3.core import StreamType
from a2al_trio.h3.events import Head, MessageData
from a2al_trio.h3.frames import FrameType, encode_frame, encode_settings
from a2al_trio.quic.varint import encode_varint
from tests.h3.test_core import CONTROL, DECODER, ENCODER, REQUEST, pair, plain, server
from tests.h3.test_sessions import connections

KIB = 1024
PRIORITY_UPDATE = 0xF0700
"""RFC 9218 §7.2: a frame we do not know, like any other."""
BLOCKED = encode_frame(FrameType.HEADERS, b"\x02\x00\x80")
"""A request whose fields wait for the first entry of the dynamic table."""
FIELDS = ((b"server", b"a server of some name"), (b"x-more", b"a value that comes again and again" * 3))


@contextmanager
def growth_below(limit: int) -> Iterator[None]:
    """Fail if the block leaves more than `limit` bytes of Python objects behind."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        assert tracemalloc.get_traced_memory()[0] - before < limit
    finally:
        tracemalloc.stop()


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_content_in_frames_of_a_byte_is_one_event() -> None:
    core = server()
    core.receive_request(0, plain(REQUEST))
    with growth_below(32 * KIB):
        events = core.receive_request(0, b"\x00\x01x" * 20_000 + b"\x00\x00" * 1000)
    assert events == [MessageData(b"x" * 20_000)]


def test_interim_responses_come_to_an_end() -> None:
    core = H3Core(is_client=True)
    with pytest.raises(H3Error) as error:
        core.receive_request(0, plain([(b":status", b"103")]) * 10_000)
    assert (error.value.code, error.value.stream_id) == (ErrorCode.EXCESSIVE_LOAD, 0)


def test_a_peer_that_acknowledges_no_section_costs_nothing() -> None:
    client, serving = pair()
    answer = serving.head_section(ResponseHead(200, FIELDS))
    for stream_id in range(0, 400, 4):
        serving.send_section(stream_id, answer)
        if stream_id < 80:
            client.receive_request(stream_id, b"")
        serving.take_output()
    before = resident()
    with growth_below(64 * KIB):
        for stream_id in range(400, 80_000, 4):
            serving.send_section(stream_id, serving.head_section(ResponseHead(200, FIELDS)))
            assert serving.take_output() == []
    if resident() - before > 4096 * KIB:
        pytest.fail("the encoder keeps what is never acknowledged")


def test_heads_that_are_all_different_are_not_kept() -> None:
    core, draw = server(), random.Random(7)
    with growth_below(1024 * KIB):
        for stream_id in range(0, 4000, 4):
            field = (b"x-number", draw.randbytes(50).hex().encode())
            events = core.receive_request(stream_id, plain([*REQUEST, field]), end=True)
            assert isinstance(events[0], Head)
            core.forget(stream_id)
            core.head_section(ResponseHead(200, (field,)))


def test_streams_that_wait_are_few_and_leave_nothing_behind() -> None:
    core = server()
    with growth_below(64 * KIB):
        for stream_id in range(0, 20_000, 4):
            assert core.receive_request(stream_id, BLOCKED, end=True) == []
            core.abandon(stream_id)
            core.take_output()
    for number in range(16):
        core.receive_request(4 * number, BLOCKED)
    with pytest.raises(H3Error) as error:
        core.receive_request(400, BLOCKED)
    assert error.value.code is ErrorCode.QPACK_DECOMPRESSION_FAILED


def test_a_peer_that_reads_none_of_our_instructions_is_left() -> None:
    core = H3Core(is_client=False, config=H3Config(held_size=1000))
    with pytest.raises(H3Error) as error:
        for stream_id in range(0, 40_000, 4):
            core.receive_request(stream_id, BLOCKED)
            core.abandon(stream_id)
    assert error.value.code is ErrorCode.EXCESSIVE_LOAD


@pytest.mark.parametrize("kind", [PRIORITY_UPDATE, 0x21, 0x3FFFFFFF])
def test_unknown_frames_pass_by(kind: int) -> None:
    core = server()
    core.receive_unidirectional(CONTROL, b"\x00" + encode_settings({}))
    endless = encode_varint(kind) + encode_varint((1 << 62) - 1)
    with growth_below(64 * KIB):
        core.receive_unidirectional(CONTROL, encode_frame(kind, bytes(100)) * 5000)
        core.receive_unidirectional(CONTROL, endless)
        for _ in range(100):
            core.receive_unidirectional(CONTROL, bytes(10_000))


def test_settings_are_bounded() -> None:
    core = server()
    many = {1000 + number: number for number in range(2000)}
    with pytest.raises(H3Error) as error:
        core.receive_unidirectional(CONTROL, b"\x00" + encode_settings(many))
    assert error.value.code is ErrorCode.EXCESSIVE_LOAD


@pytest.mark.parametrize("kind", [StreamType.ENCODER, StreamType.DECODER])
def test_instructions_without_end_are_refused_or_done(kind: StreamType) -> None:
    core = server()
    data = {StreamType.ENCODER: b"\x41x\x01y", StreamType.DECODER: b"\x44"}[kind]
    core.receive_unidirectional(ENCODER, b"\x02\x3f\xe1\x1f")
    with growth_below(64 * KIB):
        if kind is StreamType.ENCODER:  # the same entry again and again pushes itself out
            for _ in range(20):
                core.receive_unidirectional(ENCODER, data * 1000)
                core.take_output()
        else:  # cancellations of streams that never were
            core.receive_unidirectional(DECODER, b"\x03")
            for _ in range(20):
                core.receive_unidirectional(DECODER, data * 1000)


def test_beginnings_of_streams_are_forgotten() -> None:
    core = server()
    with growth_below(32 * KIB):
        for number in range(5000):
            stream_id = 2 + 4 * number
            core.receive_unidirectional(stream_id, b"\xc0")
            core.unidirectional_reset(stream_id)


# --- whole sessions -----------------------------------------------------------------------------------------------


async def test_thousands_of_unknown_streams_come_and_go(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_server(far) as serving:
        for number in range(300):
            async with await near.open_unidirectional_stream() as stream:
                await stream.send_all(encode_varint(0x21 + 0x1F * number) + bytes(100))
        await trio.sleep(1)
        assert far.stats.open_streams <= 3
        async with await near.open_stream() as stream:
            await stream.send_all(plain(REQUEST))
            await stream.send_eof()
            async with await serving.accept() as exchange:
                await exchange.receive_head()
                await exchange.send_response(ResponseHead(200), end=True)
            assert await stream.receive_all(limit=100)


async def test_a_peer_that_stops_our_control_stream_is_left(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_server(far) as serving:
        for _ in range(3):
            (await near.accept_unidirectional_stream()).stop(0)
        await trio.sleep(1)
        serving.go_away()
        await near.wait_closed()
        assert near.close_reason is not None
        assert near.close_reason.code == ErrorCode.CLOSED_CRITICAL_STREAM


async def test_requests_that_are_reset_at_once_leave_nothing(autojump_clock: MockClock) -> None:
    async with connections() as (near, far), open_h3_server(far) as serving, trio.open_nursery() as nursery:
        ended = 0

        async def take(exchange: ServerExchange) -> None:
            nonlocal ended
            try:
                await exchange.receive_head()
                await exchange.receive_some()
            finally:
                ended += 1

        nursery.start_soon(serving.serve, take)
        for _ in range(300):
            stream = await near.open_stream()
            await stream.send_all(plain(REQUEST))
            stream.reset(ErrorCode.REQUEST_CANCELLED)
            await stream.aclose()
        await trio.sleep(1)
        assert ended <= 300
        assert far.stats.open_streams == near.stats.open_streams == 3
        core = serving._session.core
        assert not core._messages
        assert not core._unblocked
        nursery.cancel_scope.cancel()
