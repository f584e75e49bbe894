"""Whatever callers and the application do with connections and streams, in any order: the host serves on."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from a2al_trio.errors import A2alError
from a2al_trio.host import ALPN, AgentConnection, Host
from a2al_trio.quic import ClientTls, QuicConnection, QuicEndpoint, QuicStream, open_quic
from a2al_trio.scopes import open_tasks
from a2al_trio.testing import Link, no_leaks, open_simnet
from a2al_trio.wire import encode_route_frame, encode_service_start
from tests.host.nat_world import ask, echo
from tests.host.test_hostile_callers import ALICE, CAROL, MALLORY, credentials
from tests.host.world import identity, open_sim_host

BOB = identity(3)
ROUTE = encode_route_frame(ALICE.address)
WORDS = (b"a", b"a2", b"a2s1", b"a2s1\x01", b"a2mb", b"a2mb\x00\x00", encode_service_start("ticket"), b"hello", ROUTE)
SECONDS = 4.0
Use = Callable[[QuicStream, random.Random], Awaitable[None]]


async def speak(stream: QuicStream, draw: random.Random) -> None:
    """What a caller does with a stream: anything."""
    for _ in range(draw.randrange(1, 6)):
        match draw.randrange(6):
            case 0 | 1:
                await stream.send_all(draw.choice(WORDS))
            case 2:
                await stream.send_eof()
            case 3:
                stream.reset(draw.randrange(300))
            case 4:
                stream.stop(draw.randrange(300))
            case 5:
                await trio.sleep(draw.random() * draw.choice((0.05, 3)))
    if draw.random() < 0.5:
        await stream.aclose()


async def answer(stream: QuicStream, draw: random.Random) -> None:
    """What an application does with one: it takes errors lightly."""
    async with stream:
        try:
            match draw.randrange(6):
                case 0:
                    await stream.send_all(bytes(draw.choice((1, 100, 300_000))))
                case 1:
                    await stream.send_all(await stream.receive_all(limit=1000))
                case 2:
                    stream.reset(1)
                case 3:
                    await stream.send_eof()
                    await stream.receive_some()
                case 4:
                    stream.stop(1)
                    await trio.sleep(draw.random())
                    await stream.send_all(b"late")
                case 5:
                    await stream.peek(4)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep(draw.random())


async def use_all(connection: AgentConnection, draw: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        async for stream in connection:
            nursery.start_soon(forgivingly, answer, stream, draw)
            if draw.random() < 0.05:
                connection.close(draw.randrange(3), "enough")
                return


async def forgivingly(use: Use, stream: QuicStream, draw: random.Random) -> None:
    try:
        await use(stream, draw)
    except (A2alError, trio.ClosedResourceError):
        return


async def call_again_and_again(endpoint: QuicEndpoint, alice: Host, draw: random.Random) -> None:
    tls = ClientTls(alpn=(ALPN,), verify_peer=lambda chain, name: None, credentials=credentials(MALLORY))
    while True:
        name = str(draw.choice((ALICE, CAROL)).address)
        try:
            async with await endpoint.connect(alice.quic_address, tls=tls, server_name=name) as quic:
                await call_once(quic, draw)
        except (A2alError, trio.ClosedResourceError):
            await trio.sleep(draw.random() * 0.1)


async def call_once(quic: QuicConnection, draw: random.Random) -> None:
    if draw.random() < 0.8:
        control = await quic.open_stream()
        await control.send_all(ROUTE)
        await control.send_eof()
    async with open_tasks() as nursery:
        for _ in range(draw.randrange(20)):
            nursery.start_soon(forgivingly, speak, await quic.open_stream(), draw)
            await trio.sleep(draw.random() * draw.choice((0, 0.02, 0.5)))
        if draw.random() < 0.5:
            nursery.cancel_scope.cancel()
    if draw.random() < 0.3:
        quic.close(draw.randrange(5), "whatever")


@pytest.mark.parametrize("seed", range(6))
async def test_others_are_served_whatever_a_caller_does(autojump_clock: trio.testing.MockClock, seed: int) -> None:
    draw = random.Random(seed)
    link = Link(latency=draw.choice((0.001, 0.05)), loss=draw.choice((0.0, 0.1)), reorder=0.05, jitter=0.01)
    async with (
        no_leaks(),
        open_simnet(seed=seed, link=link) as net,
        open_sim_host(net.host("alice"), ALICE) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(alice,)) as bob,
        open_quic(net.host("stranger").bind(7)) as quic,
        trio.open_nursery() as nursery,
    ):
        alice.register_agent(CAROL)
        await alice.publish()
        if seed % 2:  # as while a call of Mallory's at a hub is being answered
            alice._parts.admission.punching[MALLORY.address] = alice._parts.outgoing.reach.meetings._take_node
        if seed % 3 == 2:
            alice.access = lambda local, remote, tokens: remote == BOB.address or "ticket" in tokens
        for _ in range(3):
            nursery.start_soon(call_again_and_again, quic, alice, draw)
        with trio.move_on_after(SECONDS):
            await alice.serve(lambda connection: use_all(connection, draw))

        async with trio.open_nursery() as serving:
            await serving.start(alice.serve, echo_to_bob)
            with trio.fail_after(20):
                async with bob.connect(ALICE.address) as connection:
                    assert await ask(connection, b"hello") == b"hello"
            serving.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def echo_to_bob(connection: AgentConnection) -> None:
    if connection.remote == BOB.address:
        await echo(connection)
