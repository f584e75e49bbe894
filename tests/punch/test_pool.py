"""DHT traffic over punched connections: nodes behind NATs that no longer reach each other by UDP."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.dht import PeerUnreachable
from a2al_trio.errors import RecordNotFound, StreamReset
from a2al_trio.host import Host
from a2al_trio.identity import NodeId
from a2al_trio.testing import Nat
from a2al_trio.wire import RecordType, SignedRecord, sign_record
from tests.host.nat_world import open_pair
from tests.host.world import EPOCH, identity

Clock = trio.testing.MockClock
ALICE, BOB, SECRET = identity(2), identity(3), identity(77)


async def wanted(one: Host, other: Host) -> PeerUnreachable:
    """What the DHT of `one` says when `other` does not answer any more."""
    found = await one.resolve(other.address)
    return PeerUnreachable(other.address.node_id, found.record, 2)


async def until_connected(one: Host, other: Host) -> None:
    with trio.fail_after(10):
        while not (one.punches.has_conn(other.address.node_id) and other.punches.has_conn(one.address.node_id)):
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.01)


def held_by_alice(key: NodeId) -> SignedRecord:
    return sign_record(SECRET, RecordType.ENDPOINT, b"\xa2\x01\xf6\x02\x00", sequence=1, timestamp=EPOCH, ttl=3600)


async def test_messages_pass_over_a_punched_connection(autojump_clock: Clock) -> None:
    async with open_pair(serve=False) as (_, alice, bob):
        bob.punches.punch(await wanted(bob, alice))
        await until_connected(bob, alice)
        assert (alice.punches.conn_count, bob.punches.conn_count) == (1, 1)
        record = held_by_alice(SECRET.node_id)
        alice.dht.put_local(record)
        found = await bob.dht.find_record(SECRET.node_id, RecordType.ENDPOINT, local=False)
        assert found.signature == record.signature


async def test_both_nodes_punch_at_once_and_keep_one_connection(autojump_clock: Clock) -> None:
    async with open_pair(serve=False) as (_, alice, bob):
        await bob.publish()
        for one, other in ((alice, bob), (bob, alice)):
            one.punches.punch(await wanted(one, other))
        await until_connected(bob, alice)
        await trio.sleep(5)
        await until_connected(bob, alice)
        assert (alice.punches.conn_count, bob.punches.conn_count) == (1, 1)


async def test_a_punched_connection_comes_back_when_it_is_needed_again(autojump_clock: Clock) -> None:
    async with open_pair(serve=False) as (_, alice, bob):
        request = await wanted(bob, alice)
        for _ in range(3):
            bob.punches.punch(request)
            await until_connected(bob, alice)
            bob.punches._routes[alice.address.node_id].quic.close(0, "over")
            assert not bob.punches.send_to(alice.address.node_id, b"message")
            await trio.sleep(1)


async def test_a_hopeless_punch_is_not_repeated_at_once(autojump_clock: Clock) -> None:
    async with open_pair(Nat.symmetric(), Nat.symmetric(), serve=False) as (world, alice, bob):
        request = await wanted(bob, alice)
        bob.punches.punch(request)
        await trio.sleep(15)
        calls = world.hub.stats.sessions_total
        assert calls == 1
        bob.punches.punch(request)
        await trio.sleep(5)
        assert world.hub.stats.sessions_total == calls
        await trio.sleep(30)
        bob.punches.punch(request)
        await trio.sleep(5)
        assert world.hub.stats.sessions_total == calls + 1


async def test_what_is_no_message_is_not_answered_by_silence(autojump_clock: Clock) -> None:
    """An agent whose connection was taken for a node's would take an empty stream for an answer."""
    async with open_pair(serve=False) as (_, alice, bob):
        bob.punches.punch(await wanted(bob, alice))
        await until_connected(bob, alice)
        stream = await bob.punches._routes[ALICE.node_id].quic.open_stream()
        await stream.send_all(b"hello")
        await stream.send_eof()
        with pytest.raises(StreamReset):
            await stream.receive_all(limit=100)


async def test_oversized_and_damaged_messages_do_no_harm(autojump_clock: Clock) -> None:
    async with open_pair(serve=False) as (_, alice, bob):
        bob.punches.punch(await wanted(bob, alice))
        await until_connected(bob, alice)
        for message in (b"", b"nonsense", bytes(70_000)):
            assert bob.punches.send_to(ALICE.node_id, message)
        await trio.sleep(1)
        for _ in range(300):
            bob.punches.send_to(ALICE.node_id, b"x" * 100)
        await trio.sleep(20)
        assert bob.punches.has_conn(ALICE.node_id)
        with pytest.raises(RecordNotFound):
            await bob.dht.find_record(SECRET.node_id, RecordType.ENDPOINT, local=False)
