"""Streams as applications see them, over a simulated network in virtual time."""

from __future__ import annotations

from array import array

import pytest
import trio
import trio.testing

from a2al_trio.errors import ConnectionLost, RemoteProtocolError, StreamReset, StreamStopped
from a2al_trio.quic import QuicConfig, QuicConnection, QuicStream
from a2al_trio.testing import Link
from tests.quic.driver.support import two_connections

Clock = trio.testing.MockClock
KIB = 1024


async def two_streams(near: QuicConnection, far: QuicConnection) -> tuple[QuicStream, QuicStream]:
    """Both ends of a new stream, on which one byte has been sent and read."""
    opened = await near.open_stream()
    await opened.send_all(b"!")
    accepted = await far.accept_stream()
    assert await accepted.receive_some() == b"!"
    return opened, accepted


async def test_a_stream_carries_bytes_and_its_end_in_both_directions(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        await one.send_all(b"there")
        await one.send_eof()
        assert await other.receive_all(limit=100) == b"there"
        assert await other.receive_some() == b""
        await other.send_all(b"and back")
        await other.aclose()
        assert [chunk async for chunk in one] == [b"and back"]
        await one.aclose()


async def test_large_data_arrives_whole_over_a_bad_link(autojump_clock: Clock) -> None:
    data = bytes(range(251)) * 4000
    link = Link(latency=0.02, loss=0.05, jitter=0.005, reorder=0.05, duplicate=0.02)
    async with two_connections(link=link) as (near, far):
        one, other = await two_streams(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, data)
            received = bytearray()
            while len(received) < len(data):
                received += await other.receive_some()
        assert received == data


async def test_a_reader_that_does_not_read_stops_the_sender(autojump_clock: Clock) -> None:
    config = QuicConfig(stream_window=64 * KIB, send_buffer=64 * KIB)
    async with two_connections(config=config) as (near, far):
        one, other = await two_streams(near, far)
        sent = 0

        async def send_for_ever() -> None:
            nonlocal sent
            while True:
                await one.send_all(bytes(8 * KIB))
                sent += 8 * KIB

        with trio.move_on_after(10):
            await send_for_ever()
        assert 64 * KIB <= sent <= 128 * KIB, "what the peer's window and our own buffer hold, and no more"
        stuck = sent
        read = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for_ever)
            while read < 4 * stuck:
                read += len(await other.receive_some(16 * KIB))
            nursery.cancel_scope.cancel()
        assert sent > stuck


async def test_one_task_at_a_time_in_each_direction(autojump_clock: Clock) -> None:
    config = QuicConfig(stream_window=4 * KIB, send_buffer=4 * KIB)
    async with two_connections(config=config) as (near, far):
        one, _ = await two_streams(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.receive_some)
            nursery.start_soon(one.send_all, bytes(100 * KIB))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await one.receive_some()
            with pytest.raises(trio.BusyResourceError):
                await one.send_all(b"more")
            nursery.cancel_scope.cancel()


async def test_cancelling_a_receive_loses_nothing(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        for _ in range(20):
            with trio.move_on_after(0.003):
                await other.receive_some()
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.receive_some()
        await one.send_all(b"abc")
        assert await other.receive_some() == b"abc"


async def test_closing_a_stream_wakes_its_own_tasks(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, _ = await two_streams(near, far)
        async with trio.open_nursery() as nursery:

            async def expect_closed() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await one.receive_some()

            nursery.start_soon(expect_closed)
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        await one.aclose()


async def test_sending_after_the_end_is_a_mistake(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, _ = await two_streams(near, far)
        await one.send_eof()
        await one.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")


async def test_resets_and_stops(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        one.reset(7)
        for _ in range(2):
            with pytest.raises(StreamReset) as reset:
                await other.receive_some()
            assert reset.value.code == 7
        one.stop(8)
        with pytest.raises(StreamStopped) as stopped:
            while True:
                await other.send_all(bytes(1000))
        assert stopped.value.code == 8


async def test_a_stop_wakes_a_sender_that_waits_for_room(autojump_clock: Clock) -> None:
    config = QuicConfig(stream_window=4 * KIB, send_buffer=4 * KIB)
    async with two_connections(config=config) as (near, far):
        one, other = await two_streams(near, far)
        async with trio.open_nursery() as nursery:

            async def expect_stopped() -> None:
                with pytest.raises(StreamStopped):
                    await one.send_all(bytes(100 * KIB))

            nursery.start_soon(expect_stopped)
            await trio.testing.wait_all_tasks_blocked()
            other.stop(1)


async def test_leaving_by_an_exception_resets_instead_of_finishing(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        with pytest.raises(KeyError):
            async with one:
                await one.send_all(b"half of it")
                raise KeyError
        with pytest.raises(StreamReset):
            await other.receive_all(limit=100)


async def test_closing_while_cancelled_resets(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.aclose()
        with pytest.raises(StreamReset):
            await other.receive_all(limit=100)


async def test_closing_tells_the_peer_to_stop(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        await one.aclose()
        assert await other.receive_some() == b""
        with pytest.raises(StreamStopped):
            while True:
                await other.send_all(bytes(1000))


async def test_peeking_takes_nothing(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        async with trio.open_nursery() as nursery:

            async def send_slowly() -> None:
                for letter in b"abcdef":
                    await one.send_all(bytes([letter]))
                    await trio.sleep(0.1)
                await one.send_eof()

            nursery.start_soon(send_slowly)
            assert await other.peek(4) == b"abcd"
            assert await other.peek(2) == b"ab"
            assert await other.receive_some(3) == b"abc"
            assert await other.peek(64) == b"def"
            assert await other.receive_all(limit=10) == b"def"
            assert await other.peek(4) == b""


async def test_what_is_there_is_had_without_waiting(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        assert other.receive_nowait() is None
        await one.send_all(b"abc")
        assert other.receive_nowait() is None
        assert await other.peek(2) == b"ab"
        assert other.receive_nowait() == b"ab"
        assert other.receive_nowait() == b"c"
        assert other.receive_nowait() is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                other.receive_nowait()
            await one.send_all(b"def")
        await one.send_all(b"ghi", end=True)
        await trio.sleep(1)
        assert other.receive_nowait() == b"ghi"
        assert other.receive_nowait() == b""
        other.reset(7)
        await trio.sleep(1)
        with pytest.raises(StreamReset):
            one.receive_nowait()
        await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            one.receive_nowait()


async def test_receive_all_is_bounded(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        await one.send_all(bytes(200))
        with pytest.raises(RemoteProtocolError, match="more than 100 bytes"):
            await other.receive_all(limit=100)


async def test_waiting_for_room(autojump_clock: Clock) -> None:
    config = QuicConfig(stream_window=4 * KIB, send_buffer=4 * KIB)
    async with two_connections(config=config) as (near, far):
        one, other = await two_streams(near, far)
        await one.wait_send_all_might_not_block()
        with trio.move_on_after(1):
            await one.send_all(bytes(100 * KIB))
        with trio.move_on_after(1) as waited:
            await one.wait_send_all_might_not_block()
        assert waited.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.wait_send_all_might_not_block)
            await other.receive_some()
            await other.receive_some()


async def test_the_end_goes_with_what_was_taken_at_once(autojump_clock: Clock) -> None:
    config = QuicConfig(stream_window=4 * KIB, send_buffer=4 * KIB)
    async with two_connections(config=config) as (near, far):
        one, other = await two_streams(near, far)
        assert one.send_nowait(b"all", end=True) == 3
        with pytest.raises(trio.ClosedResourceError):
            one.send_nowait(b"more")
        assert await other.receive_all(limit=3) == b"all"
        one, other = await two_streams(near, far)
        sent = one.send_nowait(bytes(5 * KIB), end=True)
        assert 0 < sent < 5 * KIB
        async with trio.open_nursery() as nursery:

            async def send_rest() -> None:
                await one.send_all(bytes(5 * KIB - sent), end=True)

            nursery.start_soon(send_rest)
            assert await other.receive_all(limit=5 * KIB) == bytes(5 * KIB)


async def test_streams_are_accepted_in_the_order_of_their_numbers(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        streams = [await near.open_stream() for _ in range(5)]
        await streams[3].send_all(b"3")
        await streams[1].send_all(b"1")
        accepted = [await far.accept_stream() for _ in range(4)]
        assert [stream.stream_id for stream in accepted] == [0, 4, 8, 12]
        assert await accepted[3].receive_some() == b"3"


async def test_opening_waits_until_the_peer_allows_more(autojump_clock: Clock) -> None:
    config = QuicConfig(max_bidirectional_streams=2)
    async with two_connections(config=config) as (near, far):
        pairs = [await two_streams(near, far) for _ in range(2)]
        with trio.move_on_after(5) as waited:
            await near.open_stream()
        assert waited.cancelled_caught
        opened = []

        async def open_one() -> None:
            opened.append(await near.open_stream())

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(open_one)
            await trio.testing.wait_all_tasks_blocked()
            for pair in pairs:
                for stream in pair:
                    await stream.aclose()
        assert [stream.stream_id for stream in opened] == [8, 12]


async def test_what_had_arrived_whole_can_be_read_after_the_end(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        one, other = await two_streams(near, far)
        half = await near.open_stream()
        await half.send_all(b"not finished")
        await one.send_all(b"all of it")
        await one.send_eof()
        await trio.sleep(1)
        near.close()
        await far.wait_closed()
        assert await other.receive_all(limit=100) == b"all of it"
        unread = await far.accept_stream()
        with pytest.raises(ConnectionLost):
            await unread.receive_all(limit=100)


@pytest.mark.parametrize("read_first", [False, True])
async def test_a_stream_that_was_stopped_can_be_used_and_left(autojump_clock: Clock, read_first: bool) -> None:
    """Every try to send is told so, and leaving the stream is no mistake."""
    async with two_connections() as (near, far):
        opened = await near.open_stream()
        await opened.send_all(b"!", end=True)
        accepted = await far.accept_stream()
        if read_first:
            assert await accepted.receive_all(limit=10) == b"!"
        opened.stop(5)
        await trio.sleep(1)
        assert read_first or await accepted.receive_all(limit=10) == b"!"
        for _ in range(2):
            with pytest.raises(StreamStopped, match="0x5"):
                await accepted.send_all(b"too late")
        with pytest.raises(StreamStopped, match="0x5"):
            accepted.send_nowait(b"too late")
        with pytest.raises(StreamStopped, match="0x5"):
            await accepted.wait_send_all_might_not_block()
        accepted.set_urgency(5)
        await accepted.send_eof()
        await accepted.aclose()


async def test_lengths_count_bytes_and_texts_are_refused(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        opened = await near.open_stream()
        numbers = array("I", [1, 2, 3])
        await opened.send_all(memoryview(numbers))
        assert opened.send_nowait(bytearray(b"more")) == 4
        for send in (opened.send_all, opened.send_nowait):
            with pytest.raises(TypeError, match="bytes-like"):
                await send("text")  # type: ignore[arg-type, misc]
        await opened.send_eof()
        accepted = await far.accept_stream()
        assert await accepted.receive_all(limit=100) == numbers.tobytes() + b"more"
