"""Streams with admission, who may open streams, and what the two sides say when it fails (spec 08 §4)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from a2al_trio.errors import Refused, StreamReset, StreamStopped
from a2al_trio.host import AgentConnection, Host
from a2al_trio.host.service_streams import start_service_stream
from a2al_trio.identity import Address
from a2al_trio.quic import QuicStream
from a2al_trio.testing import open_simnet
from a2al_trio.wire import StreamErrorCode, StreamKind, WireEncodeError
from tests.host.world import identity, open_sim_host

ALICE, BOB = identity(2), identity(3)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Host, AgentConnection, AgentConnection]]:
    """Alice, her end of the connection that Bob made, and Bob's."""
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("alice"), ALICE) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(alice,)) as bob,
        bob.connect(ALICE.address, at=alice.quic_address) as outgoing,
    ):
        yield alice, await alice.accept(), outgoing


async def greet(connection: AgentConnection) -> None:
    async with await connection.accept_stream() as stream:
        await stream.send_all(b"220 welcome")


async def test_a_service_that_speaks_first_does_so_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, incoming, outgoing), trio.open_nursery() as nursery:
        nursery.start_soon(greet, incoming)
        began = trio.current_time()
        async with await outgoing.open_service_stream() as stream:
            assert await stream.receive_all(limit=100) == b"220 welcome"
        assert trio.current_time() - began < 0.5


async def test_a_raw_stream_that_waits_is_served_too(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, incoming, outgoing), trio.open_nursery() as nursery:
        nursery.start_soon(greet, incoming)
        async with await outgoing.open_stream() as stream:
            await stream.send_all(b"a2")
            assert await stream.receive_all(limit=100) == b"220 welcome"


async def test_nothing_of_the_admission_reaches_the_service(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, incoming, outgoing):
        async with await outgoing.open_service_stream("ticket") as stream:
            await stream.send_all(b"service bytes")
        accepted = await incoming.accept_stream()
        assert await accepted.receive_all(limit=100) == b"service bytes"


async def test_access_rules_see_who_and_the_ticket(autojump_clock: trio.testing.MockClock) -> None:
    asked: list[tuple[Address, Address | None, Sequence[str]]] = []

    def rule(local: Address, remote: Address | None, tokens: Sequence[str]) -> bool:
        asked.append((local, remote, tuple(tokens)))
        return "open sesame" in tokens

    async with connected() as (alice, incoming, outgoing):
        alice.access = rule
        with pytest.raises(Refused, match="access denied"):
            await outgoing.open_service_stream()
        with pytest.raises(Refused, match="access denied"):
            await outgoing.open_service_stream("wrong")
        async with await outgoing.open_service_stream("open sesame") as stream:
            await stream.send_all(b"in")
        assert await (await incoming.accept_stream()).receive_all(limit=10) == b"in"
        assert [tokens for _, _, tokens in asked] == [(), ("wrong",), ("open sesame",)]
        assert {(local, remote) for local, remote, _ in asked} == {(ALICE.address, BOB.address)}


async def test_a_raw_stream_that_may_not_is_reset_with_0x41(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (alice, _, outgoing):
        alice.access = lambda _local, _remote, _tokens: False
        async with await outgoing.open_stream() as stream:
            await stream.send_all(b"hello")
            with pytest.raises(StreamReset) as caught:
                await stream.receive_some()
            assert caught.value.code == StreamErrorCode.ACCESS_DENIED


async def test_codes_of_a_peer_become_words(autojump_clock: trio.testing.MockClock) -> None:
    words = {0x41: "access denied", 0x42: "no service is bound", 0x43: "cannot be reached", 0x99: "code 0x99"}

    async def refuse(incoming: AgentConnection) -> None:
        for code in words:
            stream = await incoming._quic.accept_stream()
            stream.reset(code)
            stream.stop(code)

    async with connected() as (_, incoming, outgoing), trio.open_nursery() as nursery:
        # The other way round, where nothing is admitted: the dialler's half meets whatever a peer may do.
        nursery.start_soon(refuse, outgoing)
        for text in words.values():
            stream = await incoming.open_stream()
            with pytest.raises(Refused, match=text):
                await start_service_stream(stream, "")


async def test_a_peer_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, incoming, _):
        stream = await incoming.open_stream()
        with pytest.raises(Refused, match="within 10 s"):
            await start_service_stream(stream, "")


async def test_a_token_that_is_too_long_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, _, outgoing):
        with pytest.raises(WireEncodeError, match="1 to 256 bytes"):
            await outgoing.open_service_stream("x" * 257)


@pytest.mark.parametrize(
    "admission",
    [
        b"",  # ends before it says anything
        b"\x07",  # ends inside a message
        b"\x04\xff\xff" + bytes(100),  # a message that is too long
        b"\x04\x00\x01x" * 40 + b"\x07\x00\x00",  # more tokens than anybody has
    ],
)
async def test_an_admission_that_breaks_the_rules_ends_the_stream(
    autojump_clock: trio.testing.MockClock, admission: bytes
) -> None:
    async with connected() as (_, _, outgoing), await outgoing.open_stream() as stream:
        await stream.send_all(StreamKind.SERVICE.value + admission)
        await stream.send_eof()
        with pytest.raises(StreamReset) as caught:
            await stream.receive_some()
        assert caught.value.code == StreamErrorCode.ACCESS_DENIED


async def test_an_admission_that_never_ends_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, _, outgoing), await outgoing.open_stream() as stream:
        await stream.send_all(StreamKind.SERVICE.value + b"\x04\x00")
        began = trio.current_time()
        with pytest.raises(StreamReset):
            await stream.receive_some()
        assert 9 < trio.current_time() - began < 11


@pytest.mark.parametrize("magic", [b"a2en", b"a2cs", b"a2gp", b"a2zz"])
async def test_kinds_we_do_not_serve_never_reach_the_service(
    autojump_clock: trio.testing.MockClock, magic: bytes
) -> None:
    async with connected() as (_, incoming, outgoing):
        async with await outgoing.open_stream() as stream:
            await stream.send_all(magic + b"whatever")
            with pytest.raises(StreamReset):
                await stream.receive_some()
        first: QuicStream
        async with await outgoing.open_stream() as stream:
            await stream.send_all(b"GET /")
            await stream.send_eof()
            first = await incoming.accept_stream()
            assert await first.receive_all(limit=10) == b"GET /"


async def test_an_acceptor_knows_no_admission(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (_, incoming, outgoing):
        assert not await incoming.wait_service_streams()
        async with await incoming.open_service_stream() as stream:
            await stream.send_all(b"raw")
        assert await (await outgoing.accept_stream()).receive_all(limit=10) == b"raw"


async def test_any_bytes_after_any_magic_leave_the_host_serving(autojump_clock: trio.testing.MockClock) -> None:
    """300 drawn streams by one caller: each is served as raw bytes, answered or reset, and the next one works."""
    draw = random.Random(1)
    magics = [kind.value for kind in StreamKind]

    async def talk(outgoing: AgentConnection, data: bytes) -> None:
        with contextlib.suppress(StreamReset, StreamStopped):
            async with await outgoing.open_stream() as stream:
                await stream.send_all(data)
                await stream.send_eof()
                await stream.receive_all(limit=1000)

    async def serve(incoming: AgentConnection) -> None:
        async for stream in incoming:
            async with stream:
                await stream.receive_all(limit=10_000)

    async with connected() as (_, incoming, outgoing), trio.open_nursery() as nursery:
        nursery.start_soon(serve, incoming)
        for _ in range(30):
            async with trio.open_nursery() as talking:
                for _ in range(10):
                    body = draw.choice([b"", b"\x07\x00\x00", draw.randbytes(draw.randrange(400))])
                    talking.start_soon(talk, outgoing, draw.choice(magics) + body)
        async with await outgoing.open_service_stream() as stream:
            await stream.send_all(b"still here")
        assert outgoing.close_reason is None
        nursery.cancel_scope.cancel()
