"""What outlives a host, and what it makes of clocks: sequence numbers, records, hubs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from a2al_trio.dht import StaleRecord
from a2al_trio.errors import NoRoute
from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.clock import SteadyClock
from a2al_trio.identity import Address, Identity, SigningKey, issue_delegation
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.mux import open_mux_over
from a2al_trio.testing import Nat, SimHost, open_simnet
from a2al_trio.wire import EndpointPayload, RecordType, sign_record
from tests.host.nat_world import HUB, open_world
from tests.host.world import EPOCH, SimNetwork, identity, open_sim_host, unix_time

SEED, ALICE, BOB = identity(1), identity(2), identity(3)
HOUR = 3600.0
PORT = 4121


@asynccontextmanager
async def host_with_clock(
    machine: SimHost, seed: Host, wall: Callable[[], float], *, data_dir: Path | None = None
) -> AsyncIterator[Host]:
    config = HostConfig(bootstrap=(str(seed.dht_address),), data_dir=data_dir)
    with closing(machine.bind(PORT, host=machine.addresses[0])) as socket:
        async with (
            open_mux_over(socket) as mux,
            open_host_over(mux, ALICE, config, network=SimNetwork(machine), unix_time=wall) as host,
        ):
            await host.dht.bootstrapped()
            yield host


@pytest.mark.parametrize("step", [0.0, -30.0])
async def test_a_host_that_restarts_is_found_again(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, step: float
) -> None:
    """Same AID, higher sequence number, also if the clock was set back in between; peers connect again."""
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("bob"), BOB, seeds=(seed,)) as bob,
    ):
        machine = net.host("alice")
        async with host_with_clock(machine, seed, unix_time, data_dir=tmp_path) as alice:
            await alice.publish()
            await trio.sleep(1)
            first = (await bob.resolve(ALICE.address)).record
            connection = await bob.pool.get(ALICE.address)
        await connection.wait_closed()
        await trio.sleep(5)
        async with host_with_clock(machine, seed, lambda: unix_time() + step, data_dir=tmp_path) as alice:
            [publication] = await alice.publish()
            assert publication.replicas
            assert publication.record.sequence > first.sequence
            bob.dht.invalidate(ALICE.address.node_id)
            assert (await bob.resolve(ALICE.address)).record == publication.record
            assert (await bob.pool.get(ALICE.address)).remote == ALICE.address


async def test_a_clock_set_back_an_hour_does_not_make_a_host_invisible(
    autojump_clock: trio.testing.MockClock,
) -> None:
    offset = 0.0
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("bob"), BOB, seeds=(seed,)) as bob,
        host_with_clock(net.host("alice"), seed, lambda: unix_time() + offset) as alice,
    ):
        await alice.publish()
        first = (await bob.resolve(ALICE.address)).record
        offset = -HOUR
        await trio.sleep(3 * HOUR)
        bob.dht.invalidate(ALICE.address.node_id)
        later = (await bob.resolve(ALICE.address)).record
        assert later.sequence > first.sequence
        assert later.expires_at > unix_time()
        async with bob.connect(ALICE.address) as connection:
            assert connection.remote == ALICE.address


async def test_a_clock_that_was_wrong_before_is_believed_again(autojump_clock: trio.testing.MockClock) -> None:
    offset = HOUR
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        host_with_clock(net.host("alice"), seed, lambda: unix_time() + offset) as alice,
    ):
        [publication] = await alice.publish()
        assert publication.replicas == ()
        assert publication.refused
        offset = 0.0
        [publication] = await alice.publish()
        assert publication.replicas
        assert publication.record.timestamp <= unix_time()


async def test_a_steady_clock(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    wall = 1000.0
    clock = SteadyClock(lambda: wall + trio.current_time())
    assert clock() == 1000 + trio.current_time()
    wall += 500
    assert clock() == 1500 + trio.current_time(), "forward it follows"
    wall -= 20
    assert clock() == 1480 + trio.current_time(), "and small steps back"
    assert not clock.trust_wall()
    wall -= 1000
    await trio.sleep(10)
    assert clock() == clock() == 1480 + trio.current_time()
    assert caplog.text.count("set back by 1000 s") == 1
    wall += 990
    assert clock() == 1470 + trio.current_time(), "until it is right again"
    wall -= 1000
    assert clock() == 1470 + trio.current_time()
    assert clock.trust_wall()
    assert clock() == 470 + trio.current_time()


async def test_endpoints_are_published_as_told(autojump_clock: trio.testing.MockClock) -> None:
    other = identity(20)
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice,
    ):
        alice.register_agent(other)
        built = await alice.publish_endpoint()
        assert EndpointPayload.decode(built.record.payload) == alice.build_endpoint_payload()
        assert built.record.sequence == pytest.approx(EPOCH, abs=60)
        given = EndpointPayload(endpoints=("quic://203.0.113.9:1",), nat_type=1)
        told = await alice.publish_endpoint(agent=other.address, payload=given, sequence=7, ttl=90)
        assert told.record.address == other.address
        assert (told.record.sequence, told.record.ttl) == (7, 90)
        assert EndpointPayload.decode(told.record.payload) == given
        with pytest.raises(StaleRecord):
            await alice.publish_endpoint(agent=other.address, payload=given, sequence=7)
        assert (await alice.publish_endpoint(agent=other.address)).record.sequence > 7


async def test_hubs_to_try_and_hubs_that_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, world.host(ALICE, name="alice") as alice:
        assert alice.signal_urls == (HUB,), "derived from the bootstrap node"
        await alice.publish()
        assert alice.active_signal_urls == (HUB,)
        assert alice.build_endpoint_payload().signals == (HUB,)
        assert world.seed.signal_urls == world.seed.active_signal_urls == ()


async def test_who_has_no_address_yet_is_published_once_it_has_one(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("bob"), BOB) as bob,
        open_sim_host(net.host("alice", behind=net.nat("router", Nat.full_cone())), ALICE, seeds=(bob,)) as alice,
    ):
        with pytest.raises(NoRoute, match="knows no address"):
            await alice.publish()
        seen = SocketAddress("203.0.113.9", PORT)
        for number in range(30, 33):
            source = SocketAddress(f"20.{number}.0.1", PORT)
            alice._surroundings.observed_by_agent(identity(number).node_id, seen, source)
        await trio.sleep(5)
        assert (await bob.resolve(ALICE.address)).endpoints == (f"quic://{seen}",)


async def test_one_agents_trouble_does_not_stop_the_renewal_of_others(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    others = [identity(number) for number in range(40, 46)]
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("bob"), BOB) as bob,
        open_sim_host(net.host("alice"), ALICE, seeds=(bob,)) as alice,
    ):
        for other in others:
            alice.register_agent(other)
        await alice.publish()
        first = (await bob.resolve(others[-1].address)).record
        # One has published with the highest number there is; one leaves while the records are renewed.
        await alice.publish_endpoint(agent=others[0].address, sequence=2**64 - 1)
        await trio.sleep(0.45 * HOUR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_when_renewed, alice, bob, others[1].address, others[2].address)
            await trio.sleep(0.1 * HOUR)
            nursery.cancel_scope.cancel()
        assert f"the record of {others[0].address} could not be published" in caplog.text
        assert others[2].address not in alice.agents
        assert (await bob.resolve(others[-1].address)).record.sequence > first.sequence


async def leave_when_renewed(alice: Host, bob: Host, seen: Address, leaving: Address) -> None:
    before = bob.dht.local_records(seen.node_id)
    for _ in range(100_000):
        await trio.sleep(0.01)
        if bob.dht.local_records(seen.node_id) != before:
            break
    alice.unregister_agent(leaving)


async def test_a_younger_delegation_cannot_be_outnumbered(autojump_clock: trio.testing.MockClock) -> None:
    """A backup brought back with an older proof than the one that was published under (spec 08 §3)."""
    master = SigningKey(bytes(31) + b"\x50")
    agents = []
    for key, issued_at in ((b"\x51", EPOCH - 1000), (b"\x52", EPOCH - 10)):
        operational = SigningKey(bytes(31) + key)
        proof = issue_delegation(master, operational.public_key, issued_at=issued_at, expires_at=0)
        agents.append(Identity.delegated(operational, proof.encode(), now=EPOCH))
    older, younger = agents
    payload = EndpointPayload(("quic://192.0.2.1:1",)).encode()
    held = sign_record(younger, RecordType.ENDPOINT, payload, sequence=1, timestamp=EPOCH - 3, ttl=3600)
    async with open_simnet(seed=1) as net, open_sim_host(net.host("alice"), ALICE) as alice:
        alice.dht.put_local(held)
        alice.register_agent(older)
        with pytest.raises(StaleRecord, match="has published under a younger delegation"):
            await alice.publish_endpoint(agent=older.address)
        alice.unregister_agent(older.address)
        alice.register_agent(younger)
        assert (await alice.publish_endpoint(agent=younger.address)).record.sequence > 1
