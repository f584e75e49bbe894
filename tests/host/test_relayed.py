"""Hosts whose sockets are a relay: where no UDP passes, they publish, resolve, dial and are dialled all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.errors import ConnectError
from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.relayed import open_relayed_mux, udp_passes
from a2al_trio.ice import IceConfig, RelayFailed, StaticCredentials, TurnServer
from a2al_trio.identity import Identity
from a2al_trio.testing import Link, Nat
from tests.host.nat_world import INFRA, World, ask, echo, open_world
from tests.host.world import SimNetwork, identity, unix_time
from tests.ice.turn_server import PASSWORD, USER

Clock = trio.testing.MockClock
ALICE, BOB = identity(2), identity(3)
TURN = TurnServer(f"turn:{INFRA}:3478", StaticCredentials(USER, PASSWORD))
CONFIG = HostConfig(turn_servers=(TURN,), min_observed_peers=1)


@asynccontextmanager
async def relayed_host(world: World, who: Identity, name: str) -> AsyncIterator[Host]:
    nat = world.net.nat(f"{name}'s NAT", Nat.symmetric())
    network = SimNetwork(world.net.host(name, behind=nat))
    config = attrs.evolve(CONFIG, bootstrap=(str(world.seed.dht_address),))
    async with (
        open_relayed_mux(config.turn_servers, network) as mux,
        open_host_over(mux, who, config, network=network, unix_time=unix_time) as host,
    ):
        await host.dht.bootstrapped()
        yield host


async def test_a_relayed_host_dials_and_is_dialled(autojump_clock: Clock) -> None:
    async with (
        open_world(turn=True) as world,
        relayed_host(world, ALICE, "alice") as alice,
        world.host(BOB, Nat.port_restricted(), name="bob") as bob,
        trio.open_nursery() as nursery,
    ):
        for host in (alice, bob):
            await nursery.start(host.serve, echo)
            await host.publish()
        (endpoint,) = (await bob.resolve(ALICE.address)).endpoints
        assert endpoint == f"quic://{INFRA}:{alice.quic_address.port}"
        for one, other in ((bob, alice), (alice, bob)):
            async with one.connect(other.address) as connection:
                assert await ask(connection, bytes(100_000)) == bytes(100_000)
        nursery.cancel_scope.cancel()


async def test_two_relayed_hosts_meet(autojump_clock: Clock) -> None:
    async with (
        open_world(turn=True) as world,
        relayed_host(world, ALICE, "alice") as alice,
        relayed_host(world, BOB, "bob") as bob,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(alice.serve, echo)
        await alice.publish()
        async with bob.connect(ALICE.address) as connection:
            assert await ask(connection, b"hello") == b"hello"
        nursery.cancel_scope.cancel()


async def test_udp_is_noticed_to_pass_or_not(autojump_clock: Clock) -> None:
    config = IceConfig(turn_servers=(TURN,))
    async with open_world(turn=True) as world:
        passing = SimNetwork(world.net.host("one", behind=world.net.nat("its NAT", Nat.symmetric())))
        blocked = SimNetwork(world.net.host("two", behind=world.net.nat("wall", Nat.udp_blocked())))
        nodes = (str(world.seed.dht_address),)
        assert await udp_passes(config, passing, ALICE, ())
        began = trio.current_time()
        assert not await udp_passes(config, blocked, ALICE, nodes)
        assert trio.current_time() - began == pytest.approx(5)
        # The only server is reached over TCP and does no STUN: that a node answers is proof enough.
        silent = TurnServer("turn:198.51.100.99?transport=tcp", StaticCredentials(USER, PASSWORD))
        assert await udp_passes(IceConfig(turn_servers=(silent,)), passing, ALICE, nodes)
        assert not await udp_passes(IceConfig(turn_servers=(silent,)), passing, ALICE, ("198.51.100.98:4121",))
        assert not world.net.hosts["one"]._sockets
        assert not world.net.hosts["two"]._sockets


async def test_without_any_relay_the_servers_are_named(autojump_clock: Clock) -> None:
    async with open_world(turn=True) as world:
        blocked = SimNetwork(world.net.host("one", behind=world.net.nat("wall", Nat.udp_blocked())))
        with pytest.raises(ConnectError, match=f"turn:{INFRA}:3478") as failed, trio.fail_after(60):
            async with open_relayed_mux((TURN,), blocked):
                raise AssertionError("there is no way to the relay")
        assert isinstance(failed.value.attempts[0].error, RelayFailed)


async def test_a_lost_relay_is_replaced(autojump_clock: Clock) -> None:
    async with open_world(turn=True) as world, relayed_host(world, ALICE, "alice") as alice:
        before = alice.quic_address
        world.net.hosts["alice"].link = Link.broken()
        await trio.sleep(700)
        world.net.hosts["alice"].link = Link()
        await trio.sleep(120)
        assert alice.dht.local_address != before
        assert (await alice.dht.ping(world.seed.dht_address)).observed.host == INFRA
