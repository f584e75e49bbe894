from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.ice import RelayFailed, RelaySocket, StaticCredentials, TurnServer, open_relay
from a2al_trio.ice.channel_data import StreamReader, decode_channel_data, encode_channel_data
from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.ice.stun import StunClass, StunMethod, encode_stun
from a2al_trio.ice.turn import MAX_RELAYED_SIZE, AllocationFailed, TurnClient
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.testing import Link, SimSocket
from tests.ice.turn_server import PASSWORD, USER
from tests.ice.world import STUN, IceWorld, SimIceNetwork, open_world

Clock = trio.testing.MockClock
SERVER = TurnServer(f"turn:{STUN}:3478", StaticCredentials(USER, PASSWORD))


@asynccontextmanager
async def open_pair(world: IceWorld) -> AsyncIterator[tuple[RelaySocket, SimSocket]]:
    """A relay and a peer to talk to."""
    async with open_relay(SERVER, network=SimIceNetwork(world.host("client"))) as relay:
        yield relay, world.host("peer").bind(1000)


async def send(relay: RelaySocket, peer: SimSocket, data: bytes) -> None:
    assert relay.send_nowait(Transmit(data, len(data), peer.address)) == len(data)
    await trio.lowlevel.checkpoint()


async def exchange(relay: RelaySocket, peer: SimSocket) -> None:
    await send(relay, peer, b"out")
    (received,) = await peer.receive()
    assert (bytes(received.data), received.source) == (b"out", relay.local_address)
    peer.send_nowait(Transmit(b"back", 4, relay.local_address))
    (received,) = await relay.receive()
    assert (bytes(received.data), received.source) == (b"back", peer.address)


async def test_datagrams_wait_for_the_permission_and_then_take_a_channel(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, peer):
        for number in range(5):
            await send(relay, peer, b"%d" % number)
        await trio.sleep(1)
        found = [bytes(datagram) for run in await peer.receive() for datagram in run.datagrams()]
        assert found == [b"0", b"1", b"2", b"3", b"4"]
        await exchange(relay, peer)
        await exchange(relay, peer)
        before = world.server.seen.count("SEND:INDICATION")
        await exchange(relay, peer)
        assert world.server.seen.count("SEND:INDICATION") == before
        assert world.server.seen.count("CREATE_PERMISSION:REQUEST") == 1
        assert world.server.seen.count("CHANNEL_BIND:REQUEST") == 1


async def test_what_is_in_use_is_kept_and_the_rest_forgotten(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, peer):
        for _ in range(40):
            await exchange(relay, peer)
            await trio.sleep(60)
        seen = world.server.seen
        assert seen.count("REFRESH:REQUEST") == pytest.approx(8, abs=1)
        assert seen.count("CREATE_PERMISSION:REQUEST") == pytest.approx(20, abs=2)
        assert seen.count("CHANNEL_BIND:REQUEST") == pytest.approx(8, abs=1)
        await trio.sleep(1000)
        seen.clear()
        await trio.sleep(1000)
        assert set(seen) == {"REFRESH:REQUEST"}
        await exchange(relay, peer)


async def test_a_stale_nonce_is_renewed_everywhere(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, peer):
        for number in range(12):
            world.server.nonce = b"nonce %d" % number
            await exchange(relay, peer)
            await trio.sleep(100)


async def test_password_algorithms(autojump_clock: Clock) -> None:
    async with open_world() as world:
        world.server.sha256 = True
        world.server.nonce = b"obMatJos2gAAArest of the nonce"  # the cookie, and the bit that announces the list
        async with open_pair(world) as (relay, peer):
            await exchange(relay, peer)


async def test_a_server_that_names_another_is_followed_once(autojump_clock: Clock) -> None:
    async with open_world() as world:
        world.server.alternate = SocketAddress("203.0.113.50", 3478)
        with pytest.raises(RelayFailed, match="does not answer"):
            async with open_relay(SERVER, network=SimIceNetwork(world.host("client"))):
                pass
        world.server.alternate = SocketAddress(STUN, 3478)
        with pytest.raises(RelayFailed, match="300"):
            async with open_relay(SERVER, network=SimIceNetwork(world.host("another"))):
                pass


@pytest.mark.parametrize("code", [437, 442, 486, 508])
async def test_refusals_name_the_reason(autojump_clock: Clock, code: int) -> None:
    async with open_world() as world:
        world.server.refuse = (code, "No")
        with pytest.raises(RelayFailed, match=f"turn:{STUN}:3478.*refused: {code} No"):
            async with open_relay(SERVER, network=SimIceNetwork(world.host("client"))):
                pass


async def test_silence_ends_after_eight_seconds(autojump_clock: Clock) -> None:
    async with open_world() as world:
        host = world.host("client", link=Link(loss=1.0))
        start = trio.current_time()
        with pytest.raises(RelayFailed, match="does not answer"):
            async with open_relay(SERVER, network=SimIceNetwork(host)):
                pass
        assert trio.current_time() - start == pytest.approx(7.8)
        assert not host._sockets


async def test_a_lossy_link_does_not_matter(autojump_clock: Clock) -> None:
    async with open_world(7, link=Link(latency=0.02, loss=0.3)) as world, open_pair(world) as (relay, peer):
        got = 0
        for _ in range(100):
            await send(relay, peer, b"x")
            with trio.move_on_after(0.2):
                got += len(await peer.receive())
        assert got > 30


async def test_a_lost_allocation_is_told_and_the_socket_falls_silent(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, peer):
        await exchange(relay, peer)
        world.server.allocations.clear()
        reason = await relay.wait_lost()
        assert "437" in reason
        await send(relay, peer, b"void")
        with trio.move_on_after(100) as scope:
            await relay.receive()
        assert scope.cancelled_caught
        relay.close()
        with pytest.raises(trio.ClosedResourceError):
            await relay.receive()


async def test_what_is_too_large_to_relay_is_lost_and_nothing_else(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, peer):
        for _ in range(4):  # until there is a channel, whose header is small enough for the link
            await exchange(relay, peer)
        for size in (65_507, MAX_RELAYED_SIZE + 1, MAX_RELAYED_SIZE):
            assert relay.send_nowait(Transmit(bytes(size), size, peer.address)) == size
        (received,) = await peer.receive()
        assert len(received.data) == MAX_RELAYED_SIZE


async def test_ipv6_peers_are_not_sent_to_over_an_ipv4_relay(autojump_clock: Clock) -> None:
    async with open_world() as world, open_pair(world) as (relay, _):
        assert relay.send_nowait(Transmit(b"x", 1, SocketAddress("2001:db8::1", 5))) == 1
        await trio.sleep(1)
        assert "CREATE_PERMISSION:REQUEST" not in world.server.seen


def new_client() -> TurnClient:
    client = TurnClient("user", "pass", entropy=lambda size: bytes(size))
    client.start(0.0)
    return client


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_any_bytes_from_the_server_leave_the_client_standing(bodies: list[bytes], dressed: bool) -> None:
    client = new_client()
    for body in bodies:
        padded = body + bytes(-len(body) % 4)
        head = bytes.fromhex("0113") + len(padded).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12)
        client.receive(head + padded if dressed else body, 1.0)
    while (event := client.next_event()) is not None:
        assert isinstance(event, AllocationFailed)
    for _ in client.messages():
        pass


def test_an_allocation_nobody_vouches_for_is_not_believed() -> None:
    client = new_client()
    client.receive(encode_stun(StunClass.SUCCESS, StunMethod.ALLOCATE, bytes(12)), 0.1)
    assert client.next_event() is None


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_a_stream_is_cut_into_the_messages_that_were_put_in(payloads: list[bytes], step: int) -> None:
    messages = [encode_channel_data(0x4000 + index, payload, pad=True) for index, payload in enumerate(payloads)]
    messages.append(encode_stun(StunClass.INDICATION, StunMethod.DATA, bytes(12)))
    stream = b"".join(messages)
    reader = StreamReader()
    found: list[bytes] = []
    for start in range(0, len(stream), step):
        found += reader.feed(stream[start : start + step])
    assert found == messages
    for index, payload in enumerate(payloads):
        channel, data = decode_channel_data(found[index])
        assert (channel, bytes(data)) == (0x4000 + index, payload)


@given(st.binary(max_size=200))
def test_any_stream_is_messages_or_an_error(data: bytes) -> None:
    try:
        for message in StreamReader().feed(data):
            assert message
    except StunDecodeError:
        return


def test_cut_channel_data_is_an_error() -> None:
    with pytest.raises(StunDecodeError):
        decode_channel_data(b"\x40\x00\x00\x05abc")


def test_what_a_turn_server_needs() -> None:
    for server, problem in (
        (TurnServer("stun:h", StaticCredentials("u", "p")), "no TURN server"),
        (TurnServer("turn:h"), "needs credentials"),
        (TurnServer("turns:h?transport=udp", StaticCredentials("u", "p")), "DTLS"),
        (TurnServer("turn:h:99999", StaticCredentials("u", "p")), "out of range"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            _ = server.address
