"""Two agents meet: publish, resolve, connect, accept — whole hosts on a simulated network."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    IdentityMismatch,
    NoRoute,
    RecordInvalid,
    RecordNotFound,
)
from a2al_trio.host import AgentConnection, EndpointRecord
from a2al_trio.identity import Identity, SigningKey, issue_delegation
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicStream
from a2al_trio.testing import open_simnet
from a2al_trio.wire import EndpointPayload, RecordType, sign_record
from tests.host.nat_world import ask, echo
from tests.host.world import ALICE, BOB, EPOCH, SEED, identity, open_sim_host, three_hosts


async def test_publish_resolve_connect_echo(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(alice.serve, echo)
        (publication,) = await alice.publish()
        assert publication.replicas
        found = await bob.resolve(ALICE.address)
        assert found.endpoints == (f"quic://{alice.quic_address}",)
        async with bob.connect(ALICE.address) as connection:
            assert (connection.local, connection.remote) == (BOB.address, ALICE.address)
            assert connection.peer_address == alice.quic_address
            body = bytes(range(256)) * 4000
            assert await ask(connection, body) == body
        nursery.cancel_scope.cancel()


async def test_both_sides_know_whom_they_talk_to(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        await alice.publish()
        async with bob.connect(ALICE.address):
            accepted = await alice.accept()
            assert (accepted.local, accepted.remote) == (ALICE.address, BOB.address)
            accepted.close()


async def test_an_acceptor_can_open_streams_too(autojump_clock: trio.testing.MockClock) -> None:
    async def greet(connection: AgentConnection) -> None:
        async with await connection.open_stream() as stream:
            await stream.send_all(b"welcome")
        await connection.wait_closed()

    async with three_hosts() as (_, _, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(alice.serve, greet)
        async with bob.connect(ALICE.address, at=alice.quic_address) as connection:
            stream = await connection.accept_stream()
            assert bytes(await stream.receive_all(limit=100)) == b"welcome"
        nursery.cancel_scope.cancel()


async def test_many_agents_share_one_socket(autojump_clock: trio.testing.MockClock) -> None:
    others = [identity(number) for number in range(10, 14)]
    async with three_hosts() as (_, _, alice, bob):
        for other in others:
            alice.register_agent(other)
        publications = await alice.publish()
        assert len(publications) == 5
        for agent in (ALICE, *others):
            async with bob.connect(agent.address) as connection:
                accepted = await alice.accept()
                assert connection.remote == accepted.local == agent.address
                accepted.close()


async def test_a_delegated_agent_is_dialled_and_dials(autojump_clock: trio.testing.MockClock) -> None:
    master, operational = SigningKey(bytes(31) + b"\x50"), SigningKey(bytes(31) + b"\x51")
    proof = issue_delegation(master, operational.public_key, issued_at=EPOCH - 10, expires_at=EPOCH + 86400)
    agent = Identity.delegated(operational, proof.encode(), now=EPOCH)
    async with three_hosts() as (_, _, alice, bob):
        alice.register_agent(agent)
        await alice.publish()
        async with bob.connect(agent.address) as connection:
            assert connection.remote == agent.address
            accepted = await alice.accept()
            assert accepted.local == agent.address
            accepted.close()
        async with alice.connect(BOB.address, at=bob.quic_address, local=agent.address):
            accepted = await bob.accept()
            assert accepted.remote == agent.address
            accepted.close()


async def test_an_unknown_local_agent_is_refused_before_anything_is_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three_hosts() as (_, _, alice, bob):
        with pytest.raises(ConfigurationError, match="register it first"):
            async with bob.connect(ALICE.address, at=alice.quic_address, local=ALICE.address):
                pass


async def test_nothing_published_is_said(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, _, bob):
        with pytest.raises(RecordNotFound, match=str(ALICE.address)):
            await bob.resolve(ALICE.address)


def alices_record(*endpoints: str, ttl: int = 3600) -> EndpointRecord:
    payload = EndpointPayload(endpoints=endpoints)
    record = sign_record(ALICE, RecordType.ENDPOINT, payload.encode(), sequence=1, timestamp=EPOCH, ttl=ttl)
    return EndpointRecord(record, payload)


async def test_a_record_that_cannot_be_used_is_said(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        record = alices_record(f"quic://{alice.quic_address}", ttl=60)
        with pytest.raises(RecordInvalid, match=f"is of {ALICE.address}, not of {SEED.address}"):
            await bob.open_connection(SEED.address, record=record)
        await trio.sleep(100)
        with pytest.raises(RecordInvalid, match="expired 40 s ago; resolve the AID again"):
            await bob.open_connection(ALICE.address, record=record)


async def test_the_next_endpoint_is_tried_after_250_ms(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (net, _, alice, bob):
        silent = net.host("silent").bind(9)
        record = alices_record(f"quic://{silent.local_address}", f"quic://{alice.quic_address}")
        began = trio.current_time()
        async with bob.connect(ALICE.address, record=record) as connection:
            assert connection.peer_address == alice.quic_address
            assert 0.25 < trio.current_time() - began < 0.4
        silent.close()


async def test_every_failed_endpoint_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (net, seed, _, bob):
        silent = net.host("silent").bind(9)
        record = alices_record(f"quic://{silent.local_address}", f"quic://{seed.quic_address}")
        with pytest.raises(ConnectError) as caught:
            await bob.open_connection(ALICE.address, record=record)
        assert str(silent.local_address) in str(caught.value)
        assert f"{seed.quic_address} is not {ALICE.address}" in str(caught.value)
        assert len(caught.value.attempts) == 2
        silent.close()


async def test_somebody_else_is_told_apart(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, seed, _, bob):
        with pytest.raises(IdentityMismatch, match=str(ALICE.address)):
            await bob.open_connection(ALICE.address, at=seed.quic_address)
        with pytest.raises(IdentityMismatch, match="somebody else answers"):
            await bob.open_connection(ALICE.address, record=alices_record(f"quic://{seed.quic_address}"))


async def test_a_record_without_a_usable_endpoint_is_said(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, _, bob):
        with pytest.raises(NoRoute, match="has published no endpoint"):
            await bob.open_connection(ALICE.address, record=alices_record())
        with pytest.raises(NoRoute, match=r"none of the endpoints .* tcp://192.0.2.1:1"):
            await bob.open_connection(ALICE.address, record=alices_record("tcp://192.0.2.1:1"))


async def test_leaving_the_connection_ends_the_peers_loop(autojump_clock: trio.testing.MockClock) -> None:
    ended = trio.Event()

    async def handler(connection: AgentConnection) -> None:
        async for _ in connection:
            pass
        ended.set()

    async with three_hosts() as (_, _, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(alice.serve, handler)
        async with bob.connect(ALICE.address, at=alice.quic_address):
            await trio.sleep(1)
        await ended.wait()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_stops_reading_leaves_the_server_serving(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(stream: QuicStream) -> None:
        await stream.send_all(bytes(10_000_000))

    async def handler(connection: AgentConnection) -> None:
        async with trio.open_nursery() as streams:
            async for stream in connection:
                streams.start_soon(talk, stream)

    async with three_hosts() as (_, _, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(alice.serve, handler)
        for _ in range(2):
            async with bob.connect(ALICE.address, at=alice.quic_address) as connection:
                stream = await connection.open_stream()
                await stream.send_all(b"talk")
                assert await stream.receive_some()
                stream.stop(5)
                await connection.wait_closed()
        nursery.cancel_scope.cancel()


async def test_a_close_code_reaches_the_peer(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob), bob.connect(ALICE.address, at=alice.quic_address) as connection:
        accepted = await alice.accept()
        connection.close(7, "had enough")
        with pytest.raises(ConnectionLost) as caught:
            await accepted.accept_stream()
        assert (caught.value.code, caught.value.reason) == (7, "had enough")


async def test_a_host_that_ends_says_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
    ):
        async with open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice:
            connection = await alice.open_connection(SEED.address, at=seed.quic_address)
            accepted = await seed.accept()
            assert connection.close_reason is None
        began = trio.current_time()
        reason = await accepted.wait_closed()
        assert reason.code == 0
        assert trio.current_time() - began < 0.1


async def test_endpoints_stay_fresh(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        await alice.publish()
        first = (await bob.resolve(ALICE.address)).record
        await trio.sleep(2 * 3600)
        again = (await bob.resolve(ALICE.address)).record
        assert again.sequence > first.sequence
        assert again.timestamp + again.ttl > EPOCH + trio.current_time()


async def test_ipv6_hosts_meet(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed", address="2001:db8::1"), SEED) as seed,
        open_sim_host(net.host("alice", address="2001:db8::2"), ALICE, seeds=(seed,)) as alice,
        open_sim_host(net.host("bob", address="2001:db8::3"), BOB, seeds=(seed,)) as bob,
    ):
        await alice.publish()
        async with bob.connect(ALICE.address) as connection:
            assert connection.peer_address == SocketAddress("2001:db8::2", 4121)
