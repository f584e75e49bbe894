"""How callers begin: late, in the wrong order, or not at all. Nobody else is to notice, least of all the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from a2al_trio.errors import A2alError
from a2al_trio.host import AgentConnection, Host
from a2al_trio.host.control import greet
from a2al_trio.quic import QuicConnection, QuicStream
from a2al_trio.testing import Link
from a2al_trio.wire import encode_route_frame, encode_service_start
from tests.host.nat_world import ALICE, BOB, PORT_RESTRICTED, ask, echo, open_pair

Clock = trio.testing.MockClock
Greeting = Callable[[QuicStream], Awaitable[None]]


async def say_nothing(stream: QuicStream) -> None:
    await trio.lowlevel.checkpoint()


async def give_up(stream: QuicStream) -> None:
    stream.reset(5)
    await trio.lowlevel.checkpoint()


async def begin_and_give_up(stream: QuicStream) -> None:
    await stream.send_all(encode_route_frame(ALICE.address)[:2])
    await trio.sleep(0.1)
    stream.reset(5)


async def not_listen(stream: QuicStream) -> None:
    await stream.send_all(encode_route_frame(ALICE.address))
    stream.stop(1)


async def end_at_once(stream: QuicStream) -> None:
    await stream.send_eof()


async def talk_nonsense(stream: QuicStream) -> None:
    await stream.send_all(b"nonsense" * 10)
    await stream.send_eof()


@pytest.mark.parametrize("way", ["direct", "ICE"])
@pytest.mark.parametrize("greeting", [say_nothing, give_up, begin_and_give_up, not_listen, end_at_once, talk_nonsense])
async def test_a_caller_that_does_not_say_whom_it_wants_harms_nobody(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, way: str, greeting: Greeting
) -> None:
    """The callee has to find out whether it is the node or its agent that is called."""

    async def greet_badly(stream: QuicStream, *_: object) -> None:
        await greeting(stream)

    nat = PORT_RESTRICTED if way == "ICE" else None
    async with open_pair(nat, nat) as (_, alice, bob):
        expect_a_node(alice, bob)
        record = await bob.resolve(ALICE.address)
        monkeypatch.setattr("a2al_trio.host.dial.greet", greet_badly)
        connection = await bob.open_connection(ALICE.address, record=record)
        assert connection.path.startswith(way)
        try:
            with trio.move_on_after(30):
                await ask(connection, b"hello?")
        except A2alError as error:
            print(error)
        await connection.aclose()
        monkeypatch.undo()
        await trio.sleep(1)
        async with bob.connect(ALICE.address, record=record) as connection:
            assert await ask(connection, b"hello") == b"hello"


@pytest.mark.parametrize("start", [b"", b"a2", b"a2s1", b"a2s1\x01", encode_service_start("ticket"), b"a2mb"])
async def test_a_connection_that_is_closed_while_a_stream_is_admitted(autojump_clock: Clock, start: bytes) -> None:
    async with open_pair(None, None, serve=False) as (_, alice, bob), trio.open_nursery() as nursery:
        async with bob.connect(ALICE.address) as connection:
            accepted = await alice.accept()
            stream = await connection.open_stream()
            await stream.send_all(start)
            await trio.sleep(0.1)
            accepted.close()
            await connection.wait_closed()
        await nursery.start(alice.serve, echo)
        async with bob.connect(ALICE.address) as connection:
            assert await ask(connection, b"hello") == b"hello"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def call_with_words_held_back() -> AsyncIterator[tuple[QuicConnection, Callable[[], Awaitable[AgentConnection]]]]:
    """Bob is connected to Alice over a link of 1 s each way and back, and speaks when the second value is called."""
    async with open_pair(None, None, link=Link(latency=0.5)) as (_, alice, bob):
        expect_a_node(alice, bob)
        dialler = bob._parts.outgoing.reach.dialler
        tls = dialler.tls.dialling(ALICE.address, BOB.address)
        quic = await dialler.quic.connect(alice.quic_address, tls=tls, server_name=str(ALICE.address))
        async with quic:
            yield quic, lambda: dialler.introduce(quic, ALICE.address, BOB.address)


@pytest.mark.parametrize("late", [4, 30])
async def test_on_a_slow_path_the_first_stream_may_come_late(autojump_clock: Clock, late: float) -> None:
    """Even when the callee has taken the caller for a node by then."""
    async with call_with_words_held_back() as (_, introduce):
        await trio.sleep(late)
        connection = await introduce()
        assert await ask(connection, b"hello") == b"hello"


async def test_the_first_stream_may_be_overtaken(autojump_clock: Clock) -> None:
    """What is asked on the second one is not taken for a message of the DHT, and left unanswered."""
    async with call_with_words_held_back() as (quic, _):
        control, stream = await quic.open_stream(), await quic.open_stream()
        await stream.send_all(b"hello")
        await stream.send_eof()
        await trio.sleep(8)
        await greet(control, ALICE.address, 0)
        assert await stream.receive_all(limit=100) == b"hello"


def expect_a_node(callee: Host, caller: Host) -> None:
    """What the callee does while it answers a call: the caller's node may dial it directly, too."""
    callee._parts.admission.punching[caller.address] = callee._parts.outgoing.reach.meetings._take_node
