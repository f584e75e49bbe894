"""Agents behind simulated NATs meet through a hub: whole hosts, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.dht import PeerUnreachable
from a2al_trio.errors import CloseCause, ConnectError, ConnectionLost
from a2al_trio.host import Host
from a2al_trio.host.assembly import _round_trips
from a2al_trio.host.meet import CALLEE_REST, CALLER_REST
from a2al_trio.host.network import Surroundings
from a2al_trio.host.reach import head_start, nats_in_the_way
from a2al_trio.identity import Address
from a2al_trio.punch import open_outgoing
from a2al_trio.testing import Link, Nat, Packet, cancelled_after
from a2al_trio.wire import EndpointPayload, NatType, encode_route_frame
from tests.host.nat_world import ALICE, BOB, HUB, INFRA, KINDS, ask, echo, open_pair, open_world
from tests.host.world import identity

Clock = trio.testing.MockClock


@pytest.mark.parametrize("callee", ["port_restricted", "symmetric"])
@pytest.mark.parametrize("caller", KINDS)
async def test_agents_behind_nats_meet(autojump_clock: Clock, caller: str, callee: str) -> None:
    hopeless = {caller, callee} in ({"symmetric"}, {"symmetric", "port_restricted"})
    async with open_pair(KINDS[callee], KINDS[caller]) as (_, alice, bob):
        assert alice.build_endpoint_payload().signal == HUB
        began = trio.current_time()
        if hopeless:
            with pytest.raises(ConnectError, match="ICE through"):
                await bob.open_connection(ALICE.address)
            assert trio.current_time() - began < 9.5
        else:
            async with bob.connect(ALICE.address) as connection:
                print(f"{caller} -> {callee}: {trio.current_time() - began:.3f} s {connection.path}")
                assert connection.path.startswith("ICE")
                assert connection.remote == ALICE.address
                body = bytes(range(256)) * 400
                assert await ask(connection, body) == body


def test_a_failure_tells_of_nats_between_which_only_relays_help() -> None:
    assert nats_in_the_way(NatType.SYMMETRIC, NatType.SYMMETRIC).startswith(
        " (our NAT is symmetric, the peer's symmetric: perhaps only a relay"
    )
    assert "the peer's restricted" in nats_in_the_way(NatType.SYMMETRIC, NatType.PORT_RESTRICTED)
    assert "our NAT is restricted" in nats_in_the_way(NatType.RESTRICTED, NatType.SYMMETRIC)
    for ours, theirs in ((0, 4), (4, 1), (2, 3), (0, 0), (9, 4)):
        assert nats_in_the_way(ours, theirs) == ""


async def test_a_failure_says_what_the_record_and_we_know_of_the_nats(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pair(Nat.symmetric(), Nat.symmetric(), serve=False) as (_, _alice, bob):
        found = await bob.resolve(ALICE.address)
        record = attrs.evolve(found, payload=attrs.evolve(found.payload, nat_type=4))
        monkeypatch.setattr(Surroundings, "nat_type", NatType.SYMMETRIC)
        began = trio.current_time()
        with pytest.raises(ConnectError, match="our NAT is symmetric, the peer's symmetric") as failed:
            await bob.open_connection(ALICE.address, record=record)
        assert trio.current_time() - began < 10
        (attempt, *_) = failed.value.attempts
        assert "none of 2 candidate pairs worked" in str(attempt.error)


@pytest.mark.parametrize("late", [False, True], ids=["beside ICE", "after a dead hub"])
async def test_dead_addresses_make_a_hopeless_call_no_longer(autojump_clock: Clock, late: bool) -> None:
    """All of it fails within 10 s, and says so of every address."""
    link = Link(latency=0.05, loss=0.05)
    async with open_pair(Nat.symmetric(), Nat.symmetric(), serve=False, link=link) as (world, _alice, bob):
        found = await bob.resolve(ALICE.address)
        dead = tuple(f"quic://198.51.100.{number}:4121" for number in range(91, 96))
        payload = attrs.evolve(found.payload, nat_type=int(NatType.RESTRICTED) if late else 0, endpoints=dead)
        if late:
            world.infra.link = Link.broken()
        began = trio.current_time()
        with pytest.raises(ConnectError) as failed:
            await bob.open_connection(ALICE.address, record=attrs.evolve(found, payload=payload))
        print(f"{trio.current_time() - began:.2f} s: {failed.value}")
        assert trio.current_time() - began < 9.6
        for number in range(91, 96):
            assert f"198.51.100.{number}:4121: it did not answer in time" in str(failed.value)


async def test_hopeless_pairs_meet_over_a_relay(autojump_clock: Clock) -> None:
    async with open_pair(Nat.symmetric(), Nat.symmetric(), turn=True) as (_, _alice, bob):
        began = trio.current_time()
        async with bob.connect(ALICE.address) as connection:
            print(f"relayed: {trio.current_time() - began:.3f} s {connection.path}")
            assert trio.current_time() - began < 1.2
            assert connection.path.startswith("relayed")
            assert await ask(connection, bytes(100_000)) == bytes(100_000)


async def test_a_peer_that_vanishes_ends_the_connection_with_a_reason(autojump_clock: Clock) -> None:
    async with open_pair(serve=False) as (world, alice, bob), bob.connect(ALICE.address) as connection:
        accepted = await alice.accept()
        stream = await connection.open_stream()
        world.net.hosts["alice"].link = Link.broken()
        began = trio.current_time()
        with pytest.raises(ConnectionLost, match="path to the peer was lost: the peer stopped") as lost:
            await stream.receive_some()
        assert lost.value.by is CloseCause.PATH
        assert trio.current_time() - began < 35
        reason = await accepted.wait_closed()
        assert reason.by is CloseCause.PATH


async def test_a_call_to_the_nodes_own_agent_is_told_from_dht_traffic(autojump_clock: Clock) -> None:
    """Other agents of the host are called like its default one, whose AID is the node's."""
    carol = identity(4)
    async with open_pair(serve=False) as (_, alice, bob):
        alice.register_agent(carol)
        await alice.publish()
        for agent in (ALICE.address, carol.address):
            async with bob.connect(agent) as connection:
                accepted = await alice.accept()
                assert accepted.local == connection.remote == agent
                assert accepted.path.startswith("ICE")
                accepted.close()


async def test_further_calls_take_the_path_there_is(autojump_clock: Clock) -> None:
    """To another agent of the same host, or to the same one again: as newer nodes do (spec 08 §5.4)."""
    carol = identity(4)
    async with open_pair() as (world, alice, bob):
        alice.register_agent(carol)
        await alice.publish()
        records = {peer: await bob.resolve(peer) for peer in (ALICE.address, carol.address)}

        async def call(peer: Address) -> tuple[float, str]:
            began = trio.current_time()
            async with bob.connect(peer, record=records[peer]) as connection:
                took = trio.current_time() - began
                assert await ask(connection, b"hello") == b"hello"
                return took, connection.path

        async with bob.connect(carol.address, record=records[carol.address]) as first:
            took, path = await call(ALICE.address)
            assert took == pytest.approx(0.04), "one round trip"
            assert path == first.path
        await trio.sleep(CALLER_REST - 1)
        for _ in range(3):
            took, path = await call(carol.address)
            assert took == pytest.approx(0.04)
            assert path == first.path
            await trio.sleep(CALLER_REST - 1)
        await trio.sleep(CALLER_REST)
        took, path = await call(carol.address)
        assert took > 0.3
        assert path != first.path
        await trio.sleep(2 * CALLEE_REST)
        for name in ("alice", "bob"):
            assert len(world.net.hosts[name]._sockets) <= 2, "the paths were given up"


async def test_a_connection_that_is_left_at_once_is_taken_first(autojump_clock: Clock) -> None:
    """Newer reference nodes that lose it before answer no other call of the pair for half a minute."""
    async with open_pair(serve=False) as (_, alice, bob):
        connection = await bob.open_connection(ALICE.address)
        began = trio.current_time()
        await connection.aclose()
        assert trio.current_time() - began == pytest.approx(0.04)
        accepted = await alice.accept()
        assert (await accepted.wait_closed()).code == 0
        connection = await bob.open_connection(ALICE.address)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.aclose()
        assert connection.close_reason is not None, "a cancelled goodbye is one all the same"


async def test_a_path_whose_other_end_is_gone_costs_little(autojump_clock: Clock) -> None:
    """Callees of old listen for one connection alone; here the other end has gone silent."""
    async with open_pair(serve=False) as (_, alice, bob):
        record = await bob.resolve(ALICE.address)
        async with bob.connect(ALICE.address, record=record) as connection:
            path = connection.path
        await trio.sleep(1)
        for kept in alice._parts.outgoing.reach.meetings._paths._idle:
            kept.give_up()
        began = trio.current_time()
        async with bob.connect(ALICE.address, record=record) as connection:
            assert connection.path != path
            assert trio.current_time() - began < 0.6


async def test_a_path_that_is_lost_during_a_call_is_replaced(autojump_clock: Clock) -> None:
    """The end of the path closes the connection under way, which is no fault of the host's."""
    async with open_pair() as (_, alice, bob):
        record = await bob.resolve(ALICE.address)
        async with bob.connect(ALICE.address, record=record) as connection:
            path = connection.path
        await trio.sleep(1)
        callers, callees = (host._parts.outgoing.reach.meetings._paths for host in (bob, alice))
        [kept], [other_end] = callers._idle, callees._idle

        async def lose() -> None:
            await trio.sleep(0.01)
            kept.give_up()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            async with bob.connect(ALICE.address, record=record) as connection:
                assert connection.path != path
                assert await ask(connection, b"hello") == b"hello"
        assert kept not in callers._idle, "what is lost is not kept"
        await trio.sleep(2 * CALLEE_REST)
        assert not callees._idle
        assert other_end not in callees._idle


async def test_what_needs_no_peer_is_prepared_during_the_head_start(autojump_clock: Clock) -> None:
    """The record promises a direct way that is none: the meeting is then only the exchange with the peer away."""
    async with open_pair(serve=False) as (_, _alice, bob):
        found = await bob.resolve(ALICE.address)
        dead = ("quic://198.51.100.99:4121",)
        took: dict[bool, float] = {}
        for is_prepared in (True, False):
            record = attrs.evolve(found, payload=attrs.evolve(found.payload, endpoints=dead, nat_type=0))
            if not is_prepared:
                record = attrs.evolve(found, payload=attrs.evolve(found.payload, endpoints=dead, nat_type=2))
            began = trio.current_time()
            async with bob.connect(ALICE.address, record=record) as connection:
                took[is_prepared] = trio.current_time() - began
                assert connection.path.startswith("ICE")
            await trio.sleep(2 * CALLEE_REST)
        waited = head_start(_round_trips(bob.dht))
        print(f"a head start of {waited:.3f} s, then {took[True] - waited:.3f} s; unprepared {took[False]:.3f} s")
        assert took[True] - waited == pytest.approx(took[False] - 0.04), "the round trip to connect to the hub"


async def test_a_direct_dial_that_works_at_once_prepares_nothing(autojump_clock: Clock) -> None:
    async with (
        open_world() as world,
        world.host(ALICE, name="alice") as alice,
        world.host(BOB, Nat.port_restricted(), name="bob") as bob,
    ):
        await alice.publish()
        sent: list[Packet] = []
        record = await bob.resolve(ALICE.address)
        sockets, at_hub = len(world.net.hosts["bob"]._sockets), world.hub._connections
        world.net.tap(lambda packet, now: sent.append(packet))
        async with bob.connect(ALICE.address, record=record) as connection:
            assert connection.path.startswith("direct")
            assert (len(world.net.hosts["bob"]._sockets), world.hub._connections) == (sockets, at_hub)
        assert sent
        assert all(packet.destination.port != 3478 for packet in sent)


async def test_both_call_each_other_at_once(autojump_clock: Clock) -> None:
    async with (
        open_world() as world,
        world.host(ALICE, Nat.port_restricted(), name="alice") as alice,
        world.host(BOB, Nat.port_restricted(), name="bob") as bob,
        trio.open_nursery() as nursery,
    ):
        for host in (alice, bob):
            await nursery.start(host.serve, echo)
            await host.publish()

        async def talk(one: Host, other: Host) -> None:
            async with one.connect(other.address) as connection:
                assert await ask(connection, b"hello") == b"hello"

        async with trio.open_nursery() as calls:
            calls.start_soon(talk, alice, bob)
            calls.start_soon(talk, bob, alice)
        nursery.cancel_scope.cancel()


async def test_many_at_once_reach_one_agent(autojump_clock: Clock) -> None:
    async with open_pair() as (_, _alice, bob):

        async def talk() -> None:
            async with bob.connect(ALICE.address) as connection:
                assert await ask(connection, b"hello") == b"hello"

        async with trio.open_nursery() as calls:
            for _ in range(5):
                calls.start_soon(talk)


async def test_a_cancelled_call_leaves_the_pair_able_to_meet(autojump_clock: Clock) -> None:
    async with open_pair() as (world, _alice, bob):
        await bob.resolve(ALICE.address)
        for step in range(1, 12):
            with trio.move_on_after(step * 0.05):
                async with bob.connect(ALICE.address) as connection:
                    await ask(connection, b"hello")
                break
        began = trio.current_time()
        async with bob.connect(ALICE.address) as connection:
            assert await ask(connection, b"hello") == b"hello"
        assert trio.current_time() - began < 1.5
        await trio.sleep(5)
        assert world.hub.stats.sessions_active == 0


async def test_without_a_hub_every_attempt_is_named(autojump_clock: Clock) -> None:
    async with (
        open_world() as world,
        world.host(ALICE, Nat.port_restricted(), name="alice") as alice,
        world.host(BOB, name="bob") as bob,
    ):
        await alice.publish()
        found = await bob.resolve(ALICE.address)
        payload = EndpointPayload(endpoints=("quic://198.51.100.99:4121",), signal=HUB, signals=(HUB,))
        record = attrs.evolve(found, payload=payload)
        world.infra.link = Link.broken()
        with pytest.raises(ConnectError) as failed:
            await bob.open_connection(ALICE.address, record=record)
        names = [attempt.name for attempt in failed.value.attempts]
        assert names == ["198.51.100.99:4121", f"ICE through {HUB}"]


@pytest.mark.parametrize("nat", ["open", "port_restricted"])
async def test_a_connection_outlives_a_move_to_another_network(autojump_clock: Clock, nat: str) -> None:
    async with (
        open_pair(Nat.full_cone(), KINDS[nat]) as (world, _alice, bob),
        bob.connect(ALICE.address) as connection,
    ):
        assert await ask(connection, b"before") == b"before"
        world.net.hosts["bob"].move()
        bob._parts.outgoing.reach.meetings.place.network_changed()
        began = trio.current_time()
        assert await ask(connection, b"after") == b"after"
        print(f"moved within {trio.current_time() - began:.3f} s")
        assert trio.current_time() - began < 5


async def test_a_caller_who_is_not_whom_the_hub_announced_is_sent_away(autojump_clock: Clock) -> None:
    """A hub, or somebody at it, may announce anybody: the certificate decides."""
    async with open_pair(serve=False) as (_, _alice, bob):
        meetings = bob._parts.outgoing.reach.meetings
        carol = identity(4).address
        tls = meetings.tls.dialling(ALICE.address, BOB.address)
        async with open_outgoing(meetings.place, [HUB], local=carol, remote=ALICE.address, tls=tls) as meeting:
            await (await meeting.quic.open_stream()).send_all(encode_route_frame(ALICE.address))
            await meeting.quic.wait_closed()
            assert meeting.quic.close_reason is not None
            assert (meeting.quic.close_reason.code, meeting.quic.close_reason.reason) == (1, "peer mismatch")


async def test_connections_outlive_the_hub(autojump_clock: Clock) -> None:
    async with open_pair() as (world, _alice, bob), bob.connect(ALICE.address) as connection:
        world.infra.link = Link.broken()
        await trio.sleep(300)
        assert await ask(connection, b"still there?") == b"still there?"


async def test_a_restarted_nat_is_survived_or_named(autojump_clock: Clock) -> None:
    async with open_pair() as (world, _alice, bob), bob.connect(ALICE.address) as connection:
        world.net.nats["alice's NAT"].forget_mappings()
        began = trio.current_time()
        assert await ask(connection, b"still there?") == b"still there?"
        print(f"back within {trio.current_time() - began:.3f} s")
        assert trio.current_time() - began < 10


@pytest.mark.parametrize("callee", [ALICE.address, identity(4).address], ids=["node", "agent"])
async def test_a_synchronised_punch_meets_where_ice_does_not(autojump_clock: Clock, callee: Address) -> None:
    """Without a STUN server ICE knows no outside address; the main sockets' are known from the DHT."""
    async with open_world() as world:
        world.stun = ("stun:198.51.100.99:3478",)
        async with (
            world.host(ALICE, Nat.port_restricted(), name="alice") as alice,
            world.host(BOB, Nat.port_restricted(), name="bob") as bob,
            trio.open_nursery() as nursery,
        ):
            alice.register_agent(identity(4))
            await nursery.start(alice.serve, echo)
            await alice.publish()
            await bob.publish()
            for nat in world.net.nats.values():
                nat.forget_mappings()
            for host in (alice, bob):
                await host.dht.ping(world.seed.dht_address)
            began = trio.current_time()
            async with bob.connect(callee) as connection:
                print(f"punched: {trio.current_time() - began:.3f} s {connection.path}")
                assert connection.path.startswith("direct")
                assert await ask(connection, b"hello") == b"hello"
                assert trio.current_time() - began < 3
                await trio.sleep(30)
                assert await ask(connection, b"still there?") == b"still there?"
            nursery.cancel_scope.cancel()


async def test_a_call_cancelled_anywhere_leaves_nothing(autojump_clock: Clock) -> None:
    async with open_pair() as (world, _alice, bob):
        record = await bob.resolve(ALICE.address)
        steps, cancelled = 3, True
        while cancelled:
            with cancelled_after(steps) as scope:
                async with bob.connect(ALICE.address, record=record) as connection:
                    await ask(connection, b"hello")
            cancelled = scope.cancelled_caught
            bob._parts.outgoing.reach.meetings._paths._by_key.clear()  # each call is a meeting of its own
            steps += 61
        assert steps > 200, "nothing was cancelled half way"
        await trio.sleep(CALLEE_REST + 30)
        assert world.hub.stats.sessions_active == 0
        for name in ("alice", "bob"):
            # Only the main socket, and the one that NAT probes may be using.
            assert len(world.net.hosts[name]._sockets) <= 2


async def test_relays_only_means_that_the_peer_learns_no_address(autojump_clock: Clock) -> None:
    carol = identity(4)
    async with (
        open_world(turn=True) as world,
        world.host(ALICE, Nat.port_restricted(), name="alice") as alice,
        trio.open_nursery() as nursery,
    ):
        alice.register_agent(carol)
        await nursery.start(alice.serve, echo)
        await alice.publish()
        found = await alice.resolve(carol.address)
        hidden = attrs.evolve(found, payload=attrs.evolve(found.payload, endpoints=()))
        world.relay_only = True
        async with (
            world.host(BOB, Nat.full_cone(), name="bob") as bob,
            bob.connect(carol.address, record=hidden) as connection,
        ):
            for pause in (0.5, 30):
                await trio.sleep(pause)
                assert connection.path.startswith("relayed relay")
                (accepted,) = [each for each in alice.connections if each.remote == BOB.address]
                assert accepted.peer_address.host == INFRA
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("latency", [0.15, 0.28])
async def test_calls_to_a_node_far_away_and_the_dhts_to_it_do_not_disturb_each_other(
    autojump_clock: Clock, latency: float
) -> None:
    """Both share a room. The DHT gives way: at these distances it misses the callee before the call is through."""
    async with open_pair(bob=None) as (world, _alice, bob):
        record = await bob.resolve(ALICE.address)
        for machine in world.net.hosts.values():
            machine.link = Link(latency=latency)
        wanted = PeerUnreachable(ALICE.node_id, record.record, 2)
        async with trio.open_nursery() as nursery:
            for moment in (0.0, 1.0, 3.0):
                nursery.start_soon(_later, moment, bob.punches.punch, wanted)
            async with bob.connect(ALICE.address, record=record) as connection:
                assert await ask(connection, b"hello") == b"hello"
                await trio.sleep(60)
                assert await ask(connection, b"still there?") == b"still there?"


async def _later(seconds: float, function: Callable[[PeerUnreachable], object], wanted: PeerUnreachable) -> None:
    await trio.sleep(seconds)
    function(wanted)
