"""Streams that are counted and held back by their connection's meter."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.quic.driver.support import two_connections

Clock = trio.testing.MockClock


@attrs.define
class Till:
    """Lets two streams in at a time, and bytes at 100,000 a second."""

    streams: int = 0
    bytes: int = 0
    most: int = 0
    room: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(2))
    paid_at: float = 0.0

    async def admit(self) -> None:
        await self.room.acquire()
        self.streams += 1
        self.most = max(self.most, self.streams)

    def left(self) -> None:
        self.streams -= 1
        self.room.release()

    async def wait(self) -> None:
        await trio.sleep_until(self.paid_at)

    def charge(self, size: int) -> None:
        self.bytes += size
        self.paid_at = max(self.paid_at, trio.current_time()) + size / 100_000


async def test_streams_wait_for_room_and_bytes_for_their_turn(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far), trio.open_nursery() as nursery:
        till = far.meter = Till()

        async def call() -> None:
            stream = await near.open_stream()
            await stream.send_all(bytes(200_000))
            await stream.send_eof()
            assert await stream.receive_all(limit=1_000_000) == bytes(300_000)
            await stream.aclose()

        async def answer() -> None:
            stream = await far.accept_stream()
            assert len(await stream.receive_all(limit=1_000_000)) == 200_000
            await stream.send_all(bytes(300_000))
            await stream.aclose()

        began = trio.current_time()
        async with trio.open_nursery() as calls:
            for _ in range(4):
                calls.start_soon(call)
                calls.start_soon(answer)
        assert trio.current_time() - began == pytest.approx(4 * 5, abs=4)
        assert (till.streams, till.most, till.bytes) == (0, 2, 4 * 500_000)
        nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_a_stream_waits_loses_it_to_the_next(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        far.meter = Till(room=trio.Semaphore(0))
        first, second = await near.open_stream(), await near.open_stream()
        await first.send_all(b"one")
        await second.send_all(b"two")
        await trio.sleep(1)
        with trio.move_on_after(1) as limit:
            await far.accept_stream()
        assert limit.cancelled_caught
        far.meter = Till()
        for expected in (b"one", b"two"):
            stream = await far.accept_stream()
            assert await stream.receive_some() == expected


async def test_a_cancelled_wait_loses_no_bytes(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        far.meter = Till(paid_at=trio.current_time() + 10)
        there = await near.open_stream()
        await there.send_all(b"hello")
        stream = await far.accept_stream()
        assert stream.receive_nowait() is None
        assert await stream.peek(2) == b"he"
        with trio.move_on_after(5):
            await stream.receive_some()
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
        await stream.aclose()
        assert isinstance(far.meter, Till)
        assert far.meter.streams == 0, "a stream leaves once"


async def test_what_is_sent_without_waiting_holds_back_what_follows(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        till = far.meter = Till()
        there = await near.open_stream()
        await there.send_all(b"go")
        stream = await far.accept_stream()
        assert stream.send_nowait(bytes(100_000)) == 100_000
        assert till.bytes == 100_000
        began = trio.current_time()
        await stream.send_all(b"and on", end=True)
        assert trio.current_time() - began == pytest.approx(1)
        assert len(await there.receive_all(limit=200_000)) == 100_006
        assert till.bytes == 100_006
