"""Requests and answers on streams of their own: serving them, and which of them share datagrams."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.errors import CloseCause, ConnectionLost, StreamReset, StreamStopped
from a2al_trio.quic import QuicConfig, QuicConnection, QuicStream
from tests.quic.driver.support import two_connections

Clock = trio.testing.MockClock


async def echo(stream: QuicStream) -> None:
    await stream.send_all(await stream.receive_all(limit=1000), end=True)


async def ask(connection: QuicConnection, data: bytes) -> bytes:
    async with await connection.open_stream() as stream:
        await stream.send_all(data, end=True)
        return await stream.receive_all(limit=1000)


async def test_every_stream_is_handled_until_the_peer_closes(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, echo)
        answers = {}

        async def ask_for(number: int) -> None:
            answers[number] = await ask(near, b"%d" % number)

        async with trio.open_nursery() as askers:
            for number in range(40):
                askers.start_soon(ask_for, number)
        assert answers == {number: b"%d" % number for number in range(40)}
        near.close()  # with code 0, so `serve` returns


async def test_streams_are_handled_side_by_side(autojump_clock: Clock) -> None:
    """Handlers that wait for one another get on, however many there are."""
    count, arrived, all_here = 30, 0, trio.Event()

    async def wait_for_the_others(stream: QuicStream) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == count:
            all_here.set()
        await all_here.wait()
        await echo(stream)

    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, wait_for_the_others)
        async with trio.open_nursery() as askers:
            for _ in range(count):
                askers.start_soon(ask, near, b"x")
        nursery.cancel_scope.cancel()


async def test_tasks_are_used_again(autojump_clock: Clock) -> None:
    tasks = set()

    async def handle(stream: QuicStream) -> None:
        tasks.add(trio.lowlevel.current_task())
        await echo(stream)

    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, handle)
        for _ in range(20):
            await ask(near, b"x")
        assert len(tasks) <= 2
        nursery.cancel_scope.cancel()


async def test_a_peer_that_gives_up_does_not_end_the_service(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, echo)
        stream = await near.open_stream()
        await stream.send_all(b"half a requ")
        stream.reset(7)
        with pytest.raises(StreamReset):  # an unfinished answer is no answer
            await stream.receive_some()
        assert await ask(near, b"another") == b"another"
        nursery.cancel_scope.cancel()


async def test_a_broken_handler_is_heard_of(autojump_clock: Clock) -> None:
    async def fail(_: QuicStream) -> None:
        raise LookupError("a mistake")

    async with two_connections() as (near, far):
        stream = await near.open_stream()
        await stream.send_all(b"x")
        with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
            await far.serve(fail)
        with pytest.raises(StreamReset):
            await stream.receive_some()


async def test_serving_says_how_the_connection_ended(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        near.close(5, "enough")
        with pytest.raises(ConnectionLost) as caught:
            await far.serve(echo)
        assert (caught.value.by, caught.value.code) == (CloseCause.PEER_APP, 5)
        with pytest.raises(trio.ClosedResourceError):
            await near.serve(echo)


async def test_a_handler_under_way_ends_quietly_with_its_connection(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, echo)
        stream = await near.open_stream()
        await stream.send_all(b"not all there is")
        await trio.sleep(1)
        near.close()


async def test_the_last_bytes_carry_the_end(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        stream = await near.open_stream()
        await stream.send_all(b"all", end=True)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"more")
        accepted = await far.accept_stream()
        assert await accepted.receive_some(2) == b"al"
        assert not accepted.at_end
        assert await accepted.peek(1) == b"l"
        assert not accepted.at_end
        assert await accepted.receive_some() == b"l"
        assert accepted.at_end
        assert await accepted.receive_some() == b""


async def test_large_last_bytes_carry_the_end_too(autojump_clock: Clock) -> None:
    size = 3_000_000
    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        stream = await near.open_stream()

        async def send() -> None:
            await stream.send_all(bytes(size), end=True)

        nursery.start_soon(send)
        accepted = await far.accept_stream()
        assert len(await accepted.receive_all(limit=size)) == size


async def test_an_end_that_comes_alone_is_noticed(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        stream = await near.open_stream()
        await stream.send_all(b"x")
        accepted = await far.accept_stream()
        assert await accepted.receive_some() == b"x"
        assert not accepted.at_end
        await stream.send_eof()
        await trio.sleep(1)
        assert accepted.at_end


@pytest.mark.parametrize("how", ["reset", "stop", "close"])
async def test_who_asked_hears_at_once_that_the_peer_gave_up(autojump_clock: Clock, how: str) -> None:
    told = []
    async with two_connections() as (near, far):
        stream = await near.open_stream()
        await stream.send_all(b"a request")
        accepted = await far.accept_stream()
        accepted.on_given_up = lambda: told.append(trio.current_time())
        await stream.send_all(b", unread")
        await trio.sleep(1)
        assert not told
        match how:
            case "reset":
                stream.reset(1)
            case "stop":
                stream.stop(1)
            case _:
                near.close(1)
        await trio.sleep(1)
        assert len(told) == 1
        with pytest.raises((StreamReset, StreamStopped, ConnectionLost)):
            while True:
                await accepted.send_all(b"x")
                await accepted.receive_some()


async def test_many_requests_leave_in_two_halves(autojump_clock: Clock) -> None:
    """The answers to a batch share datagrams, but the peer need not wait for the last of them."""
    config = QuicConfig(path_mtu_discovery=False)
    async with two_connections(config=config) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve, echo)
        await ask(near, b"x")
        await trio.sleep(1)
        before = far.stats.packets_sent
        async with trio.open_nursery() as askers:
            for _ in range(16):
                askers.start_soon(ask, near, b"x")
        assert far.stats.packets_sent - before == 2
        nursery.cancel_scope.cancel()


async def test_a_task_that_is_woken_and_says_nothing_holds_nobody_up(autojump_clock: Clock) -> None:
    """Acknowledgements leave although the task that reads goes off to wait for something else."""
    async with two_connections(config=QuicConfig(path_mtu_discovery=False)) as (near, far):
        stream = await near.open_stream()
        await stream.send_all(b"one")
        accepted = await far.accept_stream()
        await accepted.receive_some()
        async with trio.open_nursery() as nursery:

            async def read_and_sleep() -> None:
                await accepted.receive_some()
                await trio.sleep(10)

            nursery.start_soon(read_and_sleep)
            await trio.sleep(1)
            await stream.send_all(b"two")
            await trio.sleep(1)
            assert near.stats.bytes_in_flight == 0
            assert near.stats.packets_lost == 0
