from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.ice.driver.path import IcePath
from a2al_trio.ice.driver.session import IceConfig, IceSession, open_ice_session
from a2al_trio.ice.errors import IceFailed
from a2al_trio.ice.servers import StaticCredentials, TurnServer
from a2al_trio.net.datagram import Transmit
from a2al_trio.testing import Link, Nat
from tests.ice.world import RoomClosedError, SimIceNetwork, open_side, open_world, receive, send

Clock = trio.testing.MockClock

KINDS: dict[str, Nat | None] = {
    "open": None,
    "full_cone": Nat.full_cone(),
    "restricted": Nat.restricted(),
    "port_restricted": Nat.port_restricted(),
    "symmetric": Nat.symmetric(),
    "udp_blocked": Nat.udp_blocked(),
}


async def exchange(one: IcePath, other: IcePath) -> None:
    await send(one, b"there")
    assert await receive(other) == b"there"
    await send(other, b"and back")
    assert await receive(one) == b"and back"


async def connect_both(one: IceSession, other: IceSession, rooms: tuple[object, object]) -> tuple[IcePath, IcePath]:
    paths: dict[int, IcePath] = {}

    async def connect(index: int, session: IceSession) -> None:
        paths[index] = await session.connect(rooms[index])  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect, 0, one)
        nursery.start_soon(connect, 1, other)
    return paths[0], paths[1]


@pytest.mark.parametrize("two", ["open", "port_restricted", "symmetric", "udp_blocked"])
@pytest.mark.parametrize("one", KINDS)
async def test_sessions_meet_and_carry_data(autojump_clock: Clock, one: str, two: str) -> None:
    blocked = {one, two} & {"udp_blocked"} or {one, two} in ({"symmetric"}, {"symmetric", "port_restricted"})
    async with open_world() as world:
        a, b = world.host("a", KINDS[one]), world.host("b", KINDS[two])
        rooms = world.rooms()
        async with (
            open_side(a, rooms[0], world.config(), controlling=True) as caller,
            open_side(b, rooms[1], world.config(), controlling=False) as callee,
        ):
            start = trio.current_time()
            if blocked:
                with pytest.RaisesGroup(pytest.RaisesExc(IceFailed), pytest.RaisesExc(IceFailed)):
                    await connect_both(caller, callee, rooms)
                assert trio.current_time() - start < 10
                return
            paths = await connect_both(caller, callee, rooms)
            assert trio.current_time() - start < 0.4
            assert not paths[0].relayed
            await exchange(*paths)
            assert (caller.controlling, callee.controlling) == (True, False)


async def test_a_relay_is_used_where_nothing_else_works_and_given_back(autojump_clock: Clock) -> None:
    async with open_world() as world:
        a, b = world.host("a", Nat.symmetric()), world.host("b", Nat.symmetric())
        rooms = world.rooms()
        async with (
            open_side(a, rooms[0], world.config(turn=True), controlling=True) as caller,
            open_side(b, rooms[1], world.config(), controlling=False) as callee,
        ):
            start = trio.current_time()
            paths = await connect_both(caller, callee, rooms)
            assert trio.current_time() - start < 0.6
            assert paths[0].relayed
            assert paths[1].relayed
            for _ in range(5):
                await exchange(*paths)
            assert "CHANNEL_BIND:REQUEST" in world.server.seen
            await trio.sleep(900)  # permissions, channels and the allocation are kept
            await exchange(*paths)
            assert len(world.server.allocations) == 1
        await trio.sleep(1)
        assert not world.server.allocations


async def test_a_relay_that_is_not_needed_is_given_back_early(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        async with (
            open_side(world.host("a"), rooms[0], world.config(turn=True), controlling=True) as caller,
            open_side(world.host("b"), rooms[1], world.config(turn=True), controlling=False) as callee,
        ):
            paths = await connect_both(caller, callee, rooms)
            await trio.sleep(2)
            assert len(world.server.allocations) == 2
            await trio.sleep(20)
            assert not world.server.allocations
            await exchange(*paths)


async def test_relay_only_offers_nothing_else(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        async with (
            open_side(world.host("a"), rooms[0], world.config(turn=True, relay_only=True), controlling=True) as caller,
            open_side(world.host("b"), rooms[1], world.config(), controlling=False) as callee,
        ):
            paths = await connect_both(caller, callee, rooms)
            assert paths[0].relayed
            await exchange(*paths)
            lines = [frame.candidate for frame in rooms[0].sent if frame.candidate]
            assert len(lines) == 1
            assert "typ relay" in lines[0]


async def test_dead_servers_cost_nothing_but_themselves(autojump_clock: Clock) -> None:
    dead = (
        TurnServer("turn:203.0.113.99", StaticCredentials("u", "p")),
        TurnServer("turn:203.0.113.1", StaticCredentials("user", "wrong")),
        TurnServer("turn:203.0.113.1?transport=tcp", StaticCredentials("user", "pass")),
    )
    config = IceConfig(
        stun_servers=("stun:203.0.113.98", "stun:nowhere.example", "stun:203.0.113.1"), turn_servers=dead
    )
    async with open_world() as world:
        rooms = world.rooms()
        async with (
            open_side(world.host("a", Nat.port_restricted()), rooms[0], config, controlling=True) as caller,
            open_side(world.host("b", Nat.port_restricted()), rooms[1], config, controlling=False) as callee,
        ):
            start = trio.current_time()
            paths = await connect_both(caller, callee, rooms)
            assert trio.current_time() - start < 0.5
            await exchange(*paths)
            await trio.sleep(10)
            text = "; ".join(caller.gathering_failures)
            assert "stun:nowhere.example:3478: no such name" in text
            assert "203.0.113.98:3478: no answer" in text
            assert "401" in text
            assert "check the user name and password" in text
            assert "wrong" not in text.replace("wrongly", "")


async def test_a_server_that_never_answers_does_not_put_off_the_failure(autojump_clock: Clock) -> None:
    class Tarpit(SimIceNetwork):
        async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

    turn = TurnServer("turn:203.0.113.99?transport=tcp", StaticCredentials("u", "p"))
    async with open_world() as world:
        rooms = world.rooms()
        network = Tarpit(world.host("a", Nat.symmetric()))
        async with (
            open_ice_session(controlling=True, config=world.config(turn_servers=(turn,)), network=network) as caller,
            open_side(world.host("b", Nat.symmetric()), rooms[1], world.config(), controlling=False) as callee,
        ):
            await rooms[0].send_credentials(*caller.credentials)
            start = trio.current_time()
            silent = pytest.RaisesExc(IceFailed, match="203.0.113.99:3478.transport=tcp: no answer within 6 s")
            with pytest.RaisesGroup(silent, pytest.RaisesExc(IceFailed)):
                await connect_both(caller, callee, rooms)
            assert trio.current_time() - start < 10


async def test_data_before_selection_is_kept(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        async with (
            open_side(world.host("a"), rooms[0], world.config(), controlling=True) as caller,
            open_side(world.host("b"), rooms[1], world.config(), controlling=False) as callee,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(callee.connect, rooms[1])
                path = await caller.connect(rooms[0])
                await send(path, b"at once")
            assert await receive(callee.path) == b"at once"


async def test_the_path_survives_its_room_and_says_when_the_peer_is_gone(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        a, b = world.host("a"), world.host("b")
        async with (
            open_side(a, rooms[0], world.config(), controlling=True) as caller,
            open_side(b, rooms[1], world.config(), controlling=False) as callee,
        ):
            paths = await connect_both(caller, callee, rooms)
            for room in rooms:
                room.close()
            await trio.sleep(60)
            await exchange(*paths)
            b.link = Link(loss=1.0)
            start = trio.current_time()
            reason = await caller.wait_lost()
            assert "stopped answering" in reason
            assert 20 < trio.current_time() - start < 31
            assert paths[0].send_nowait(Transmit(b"void", 4, paths[0].peer_address)) == 4


async def test_a_room_that_closes_before_the_credentials_ends_the_attempt(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        async with open_side(world.host("a"), rooms[0], world.config(), controlling=True) as caller:
            rooms[1].close()
            with pytest.raises(RoomClosedError):
                await caller.connect(rooms[0])


async def test_a_host_that_roams_keeps_its_path(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        a, b = world.host("a"), world.host("b")
        async with (
            open_side(a, rooms[0], world.config(), controlling=True) as caller,
            open_side(b, rooms[1], world.config(), controlling=False) as callee,
        ):
            paths = await connect_both(caller, callee, rooms)
            await exchange(*paths)
            before = paths[0].description
            a.move()
            caller.network_changed()
            await trio.sleep(3)
            assert paths[0].description != before
            peer = paths[1].peer_address
            await exchange(*paths)
            assert paths[1].peer_address == peer


async def test_ipv6_is_preferred_where_both_have_it(autojump_clock: Clock) -> None:
    async with open_world() as world:
        rooms = world.rooms()
        async with (
            open_side(world.host("a", ipv6=True), rooms[0], world.config(), controlling=True) as caller,
            open_side(world.host("b", ipv6=True), rooms[1], world.config(), controlling=False) as callee,
        ):
            paths = await connect_both(caller, callee, rooms)
            assert paths[0].peer_address.is_ipv6
            await exchange(*paths)


@given(
    kinds=st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS))),
    turn=st.booleans(),
    cancel_after=st.floats(0, 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25)
def test_a_session_cancelled_at_any_instant_leaves_nothing(
    kinds: tuple[str, str], turn: bool, cancel_after: float, seed: int
) -> None:
    async def scenario() -> None:
        async with open_world(seed, link=Link(latency=0.02, loss=0.05)) as world:
            a, b = world.host("a", KINDS[kinds[0]]), world.host("b", KINDS[kinds[1]])
            rooms = world.rooms()

            async def side(index: int) -> None:
                host = (a, b)[index]
                async with open_side(host, rooms[index], world.config(turn=turn), controlling=not index) as session:
                    try:
                        path = await session.connect(rooms[index])
                    except IceFailed:
                        return
                    while True:
                        await send(path, b"x")
                        await trio.sleep(0.1)

            with trio.move_on_after(cancel_after):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(side, 0)
                    nursery.start_soon(side, 1)
            await trio.sleep(2)
            assert not a._sockets
            assert not b._sockets
            if seed % 2 == 0 and "udp_blocked" not in kinds:
                assert len(world.server.allocations) <= 1  # one goodbye may have been lost on the way

    trio.run(scenario, clock=Clock(autojump_threshold=0))


async def test_bad_settings_are_named() -> None:
    with pytest.raises(Exception, match="no STUN or TURN URI"):
        async with open_ice_session(controlling=True, config=IceConfig(stun_servers=("http://x",))):
            pass
    with pytest.raises(Exception, match="needs credentials"):
        async with open_ice_session(controlling=True, config=IceConfig(turn_servers=(TurnServer("turn:x"),))):
            pass
