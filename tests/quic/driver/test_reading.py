"""Whoever waits reads the socket for all; nobody is forgotten when the reader goes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import ConnectionLost, ServiceCrashed
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.quic import QuicStream, open_quic
from a2al_trio.quic.driver.reading import Reading
from a2al_trio.quic.driver.wakeup import Line, ReadersWakeup
from a2al_trio.testing import SimSocket, open_simnet
from tests.quic.driver.support import two_connections, two_endpoints

Clock = trio.testing.MockClock


@attrs.define
class Desk:
    """A `Reading` and what it read; every datagram wakes the waiters it names, by their letters."""

    near: SimSocket
    far: SimSocket
    waiters: dict[str, ReadersWakeup] = attrs.field(factory=dict)
    reading: Reading = attrs.field(init=False)
    taken: list[bytes] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.reading = Reading(self.near, self.take, lambda: None)

    def take(self, batches: list[Received]) -> int:
        said = [bytes(datagram) for batch in batches for datagram in batch.datagrams()]
        self.taken += said
        letters = {letter for data in said for letter in data.decode()}
        return sum(self.waiters[letter].wake() for letter in sorted(letters & set(self.waiters)))

    def say(self, text: str) -> None:
        self.far.send_nowait(Transmit(text.encode(), len(text), self.near.address))

    def waiter(self, letter: str) -> ReadersWakeup:
        return self.waiters.setdefault(letter, ReadersWakeup(self.reading))


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    async with open_simnet(seed=1) as net, trio.open_nursery() as nursery:
        desk = Desk(*net.socket_pair())
        nursery.start_soon(desk.reading.stand_in)
        yield desk
        nursery.cancel_scope.cancel()


async def settle() -> None:
    """Let everything that can happen now happen."""
    await trio.sleep(1)


async def wait_for(desk: Desk, letter: str, done: list[str]) -> None:
    while True:
        await desk.waiter(letter).wait()
        done.append(letter)


async def test_a_lone_waiter_reads_and_the_endpoint_stands_in(autojump_clock: Clock) -> None:
    async with open_desk() as desk:
        await settle()
        async with trio.open_nursery() as nursery:
            done: list[str] = []
            nursery.start_soon(wait_for, desk, "a", done)
            for count in range(1, 4):
                desk.say("a")
                await settle()
                assert done == ["a"] * count
            assert desk.reading.reader is desk.waiter("a").task, "the waiter has taken over"
            nursery.cancel_scope.cancel()
        desk.say("x")
        await settle()
        assert desk.reading.reader is None
        assert desk.taken[-1] == b"x"


async def test_where_many_wait_the_endpoint_reads(autojump_clock: Clock) -> None:
    async with open_desk() as desk:
        await settle()
        async with trio.open_nursery() as nursery:
            done: list[str] = []
            for letter in "abc":
                nursery.start_soon(wait_for, desk, letter, done)
            await settle()
            desk.say("abc")
            await settle()
            desk.say("abc")
            await settle()
            assert sorted(done) == list("aabbcc")
            assert desk.reading.reader is None
            nursery.cancel_scope.cancel()


async def test_a_reader_that_waits_for_something_else_hands_the_socket_over(autojump_clock: Clock) -> None:
    """A task that may wait for ever does not keep the socket from the one that has work."""
    async with open_desk() as desk, trio.open_nursery() as nursery:
        done: list[str] = []
        nursery.start_soon(wait_for, desk, "i", done)
        desk.say("i")
        await settle()
        assert desk.reading.reader is desk.waiter("i").task
        nursery.start_soon(wait_for, desk, "b", done)
        await settle()
        for _ in range(2):
            desk.say("b")
            await settle()
        assert desk.reading.reader is desk.waiter("b").task
        desk.say("i")
        await settle()
        assert done == ["i", "b", "b", "i"]
        nursery.cancel_scope.cancel()


async def test_a_reader_can_be_resumed_by_other_means_than_reading(autojump_clock: Clock) -> None:
    async with open_desk() as desk, trio.open_nursery() as nursery:
        await settle()
        done: list[str] = []
        nursery.start_soon(wait_for, desk, "a", done)
        desk.say("a")
        await settle()
        reader = desk.reading.reader
        assert desk.waiter("a").task is reader
        assert desk.waiter("a").wake()
        assert not desk.waiter("a").wake()
        await settle()
        assert done == ["a", "a"]
        nursery.cancel_scope.cancel()


async def test_a_wake_up_counts_more_than_a_cancellation_of_the_same_moment(autojump_clock: Clock) -> None:
    async with open_desk() as desk:
        waiting = desk.waiter("a")
        desk.say("a")
        await waiting.wait()
        with trio.CancelScope() as scope:

            async def both() -> None:
                assert desk.reading.reader is waiting.task
                waiting.wake()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(both)
                await waiting.wait()
                reached = True
        assert reached
        assert waiting.task is None


async def test_a_failure_is_the_endpoints_not_the_readers(autojump_clock: Clock) -> None:
    """The waiting task goes on waiting; the service ends with the error."""
    async with open_simnet(seed=1) as net:
        desk = Desk(*net.socket_pair())
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.reading.stand_in)
                nursery.start_soon(wait_for, desk, "a", [])
                desk.say("a")
                await settle()
                assert desk.reading.reader is desk.waiter("a").task
                desk.near.close()
                await trio.sleep_forever()
        assert [type(error) for error in caught.value.exceptions] == [trio.ClosedResourceError]


async def test_a_socket_that_is_closed_under_the_endpoint_ends_it_with_one_error(autojump_clock: Clock) -> None:
    async with two_endpoints() as both:
        near, far = await both.pair()
        socket = both.net.host("other").bind()
        with pytest.raises(ServiceCrashed, match="this socket is closed"):
            async with open_quic(socket):
                socket.close()
                await trio.sleep(1)
        assert near.close_reason is far.close_reason is None


async def test_closing_wakes_a_task_that_reads(autojump_clock: Clock) -> None:
    async with two_connections() as (near, _far), trio.open_nursery() as nursery:
        errors: list[str] = []

        async def listen(stream: QuicStream) -> None:
            try:
                await stream.receive_some()
            except (ConnectionLost, trio.ClosedResourceError) as error:
                errors.append(type(error).__name__)

        stream = await near.open_stream()
        await stream.send_all(b"x")
        nursery.start_soon(listen, stream)
        await settle()
        near.close()
        await settle()
        assert errors == ["ClosedResourceError"]


async def test_a_line_serves_first_come_first_and_survives_cancellation(autojump_clock: Clock) -> None:
    async with open_desk() as desk:
        line, order = Line(desk.reading), []

        async def wait(name: str) -> None:
            await line.wait()
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in ("first", "second", "third"):
                nursery.start_soon(wait, name)
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1):
                await line.wait()
            assert line.wake()
            await trio.testing.wait_all_tasks_blocked()
            assert order == ["first"]
            line.wake_all()
        assert sorted(order) == ["first", "second", "third"]
        assert not line.wake()


async def test_of_equals_the_one_that_reads_goes_first(autojump_clock: Clock) -> None:
    async with open_desk() as desk, trio.open_nursery() as nursery:
        line, order = Line(desk.reading), []

        async def wait(name: str) -> None:
            await line.wait()
            order.append(name)

        async def wait_as_reader() -> None:
            await desk.waiter("a").wait()
            await wait("reader")

        nursery.start_soon(wait, "first")
        await settle()
        nursery.start_soon(wait_as_reader)
        await settle()
        desk.say("a")
        await settle()
        assert line.wake_reader_or_first()
        await settle()
        assert order == ["reader"]
        assert line.wake_reader_or_first()
        await settle()
        assert order == ["reader", "first"]
        assert not line.wake_reader_or_first()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), patience=st.lists(st.floats(0.0, 0.2), min_size=1, max_size=12))
def test_whoever_gives_up_everybody_else_gets_an_answer(seed: int, patience: list[float]) -> None:
    """Tasks ask, give up at drawn moments, and ask again: all get their answers in the end."""

    async def echo(stream: QuicStream) -> None:
        await stream.send_all(await stream.receive_all(limit=100), end=True)

    async def story() -> None:
        drawn = random.Random(seed)
        async with two_connections(seed=seed) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(far.serve, echo)

            async def ask(first_patience: float) -> None:
                seconds = first_patience
                for number in range(6):
                    with trio.move_on_after(seconds):
                        async with await near.open_stream() as stream:
                            await stream.send_all(b"%d" % number, end=True)
                            assert await stream.receive_all(limit=100) == b"%d" % number
                    await trio.sleep(drawn.choice((0, 0.001, 0.05)))
                    seconds = drawn.choice((0.0, 0.01, 0.021, 0.05, 5))
                async with await near.open_stream() as stream:
                    await stream.send_all(b"last", end=True)
                    assert await stream.receive_all(limit=100) == b"last"

            with trio.fail_after(60):
                async with trio.open_nursery() as askers:
                    for seconds in patience:
                        askers.start_soon(ask, seconds)
            nursery.cancel_scope.cancel()

    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))
