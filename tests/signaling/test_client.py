from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import A2alError, ConfigurationError, ConnectError
from a2al_trio.signaling.call import HUB_STAGGER, open_call, open_prepared_dial
from a2al_trio.signaling.channel import Room
from a2al_trio.signaling.client import CallHandler, IncomingCall, Signaling, open_signaling
from a2al_trio.signaling.errors import HubUnreachable, NoAgent, NoPartner, RoomClosed
from a2al_trio.signaling.frames import Frame, FrameType
from a2al_trio.signaling.hub import Hub
from a2al_trio.signaling.rooms import HubLimits
from a2al_trio.signaling.rotation import Rotation
from tests.signaling.world import HubWorld

CALLER = "A034750f98bD59fcFc946Da45aaAbe933bE154a4B5"
CALLEE = "a06A3803d5F059902a1c6daFBc9bA4729212F7caaC"
CRED = ("ufrag", "pwd")
Clock = trio.testing.MockClock


@asynccontextmanager
async def open_world(*hosts: str, limits: HubLimits | None = None, latency: float = 0.0) -> AsyncIterator[HubWorld]:
    async with trio.open_nursery() as nursery:
        yield HubWorld(nursery, {host: Hub(limits) for host in hosts}, latency=latency)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_callee(
    world: HubWorld, hubs: Sequence[str], agents: Sequence[str] = (CALLEE,)
) -> AsyncIterator[Signaling]:
    async with open_signaling(hubs, agents, dial=world.dial) as signaling:
        while hubs and not signaling.active_hubs:
            await signaling.wait_hubs_changed()
        await trio.testing.wait_all_tasks_blocked()
        yield signaling


async def echo_candidates(call: IncomingCall) -> None:
    async with call.join(credentials=CRED) as room:
        while True:
            frame = await room.receive()
            if frame.type == FrameType.CANDIDATE:
                await room.send_candidate(frame.candidate + " back")


open_caller = partial(open_call, local=CALLER, remote=CALLEE, credentials=CRED)


@asynccontextmanager
async def open_answering(
    world: HubWorld, hubs: Sequence[str], answer: CallHandler = echo_candidates
) -> AsyncIterator[None]:
    async with open_callee(world, hubs) as signaling, trio.open_nursery() as nursery:
        await nursery.start(signaling.serve, answer)
        yield
        nursery.cancel_scope.cancel()


async def test_a_call_reaches_the_callee_and_frames_pass(autojump_clock: Clock) -> None:
    async with (
        open_world("one") as world,
        open_answering(world, ["ws://one"]),
        open_call(["ws://one"], local=CALLER, remote=CALLEE, credentials=("a", "b"), dial=world.dial) as room,
    ):
        assert await room.receive() == Frame(type=FrameType.CREDENTIALS, ufrag="ufrag", pwd="pwd")
        await room.send_candidate("x")
        assert (await room.receive()).candidate == "x back"
        await room.send(Frame(type="unknown to us"))
        await room.send(Frame(type=FrameType.END_OF_CANDIDATES))
        assert trio.current_time() == 0


async def test_candidates_sent_ahead_wait_for_the_callee(autojump_clock: Clock) -> None:
    seen: list[str] = []

    async def listen(call: IncomingCall) -> None:
        async with call.join(credentials=CRED) as room:
            while True:
                frame = await room.receive()
                seen.append(frame.candidate or frame.type)

    async def trickle(room: Room) -> None:
        for number in range(3):
            await room.send_candidate(f"line {number}")

    async with (
        open_world("one") as world,
        open_answering(world, ["ws://one"], listen),
        open_caller(["ws://one"], trickle=trickle, dial=world.dial),
    ):
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [FrameType.CREDENTIALS, "line 0", "line 1", "line 2"]


async def test_an_absent_agent_is_called_three_times_at_every_hub(autojump_clock: Clock) -> None:
    async with open_world("one", "two") as world:
        start = trio.current_time()
        with pytest.raises(NoAgent, match="registered at none of"):
            async with open_caller(["ws://one", "ws://two"], dial=world.dial):
                pass
        assert [host for _, host in world.dials] == ["one", "two"] * 3
        assert [at - start for at, _ in world.dials] == pytest.approx([0, 1, 3, 4, 6, 7])
        assert trio.current_time() - start == pytest.approx(7)


async def test_an_agent_that_registers_late_is_reached(autojump_clock: Clock) -> None:
    async with open_world("one") as world, trio.open_nursery() as nursery:

        async def come_late() -> None:
            await trio.sleep(2)
            async with open_callee(world, ["ws://one"]) as signaling:
                await signaling.serve(echo_candidates)

        nursery.start_soon(come_late)
        async with open_caller(["ws://one"], dial=world.dial):
            pass
        nursery.cancel_scope.cancel()


async def test_a_hub_that_does_not_answer_leads_to_the_next(autojump_clock: Clock) -> None:
    async with (
        open_world("two") as world,
        open_answering(world, ["ws://two"]),
        open_caller(["ws://gone", "ws://two"], dial=world.dial) as room,
    ):
        assert room.hub == "ws://two"


async def test_a_hub_that_hangs_delays_a_call_by_a_second(autojump_clock: Clock) -> None:
    """Newer nodes call at all hubs of a record (spec 08 §5.3); ours gives the first one a second."""
    async with open_world("two") as world, open_answering(world, ["ws://two"]):
        hanging = 0

        async def dial(host: str, port: int, tls: bool) -> trio.abc.Stream:
            nonlocal hanging
            if host == "two":
                return await world.dial(host, port, tls)
            hanging += 1
            try:
                await trio.sleep_forever()
            finally:
                hanging -= 1
            raise AssertionError

        hubs = ["ws://hangs", "ws://two", "ws://never needed"]
        start = trio.current_time()
        async with open_caller(hubs, dial=dial) as room:
            assert trio.current_time() - start == pytest.approx(HUB_STAGGER)
            assert room.hub == "ws://two"
            assert hanging == 0, "the other attempts are over"
            await room.receive()
            await room.send_candidate("x")
            assert (await room.receive()).candidate == "x back"
    assert world.hubs["two"].stats.sessions_active == 0


async def test_a_callee_that_is_late_everywhere_is_met_at_the_first_hub_and_the_others_are_left(
    autojump_clock: Clock,
) -> None:
    async def late(call: IncomingCall) -> None:
        await trio.sleep(1.5)
        await echo_candidates(call)

    hubs = ["ws://one", "ws://two"]
    async with (
        open_world("one", "two") as world,
        open_answering(world, hubs, late),
        open_caller(hubs, dial=world.dial) as room,
    ):
        assert room.hub == "ws://one"
        await trio.sleep(1)
        assert [world.hubs[name].stats.sessions_active for name in ("one", "two")] == [1, 0]
        assert world.hubs["two"].stats.sessions_total == 0


async def test_a_bad_hub_in_a_record_does_not_hide_the_good_one(autojump_clock: Clock) -> None:
    async with open_world("one") as world, open_answering(world, ["ws://one"]):
        hubs = ["http://one", "ws://[::1", "ws://one:port", "ws://one"]
        async with open_caller(hubs, dial=world.dial) as room:
            assert room.hub == "ws://one"


@pytest.mark.parametrize("wait", [0.0, 0.01, 1.0])
async def test_a_connection_made_ahead_is_used_once(autojump_clock: Clock, wait: float) -> None:
    async with open_world("one", latency=0.05) as world, open_answering(world, ["ws://one"]):
        world.dials.clear()
        async with open_prepared_dial("ws://one", world.dial) as dial:
            await trio.sleep(wait)
            start = trio.current_time()
            async with open_caller(["ws://one"], dial=dial):
                assert trio.current_time() - start == pytest.approx(max(0.0, 0.05 - wait) + 0.05), "callee's own dial"
            assert len(world.dials) == 2, "the caller's, and the callee's into the room"
            async with open_caller(["ws://one"], dial=dial):
                assert len(world.dials) == 4


async def test_a_connection_made_ahead_is_closed_if_nobody_needs_it(autojump_clock: Clock) -> None:
    async with open_world("one", latency=0.05) as world:
        for wait in (0.0, 0.05, 0.06):
            with trio.move_on_after(wait):
                async with open_prepared_dial("ws://one", world.dial):
                    await trio.sleep_forever()
        await trio.testing.wait_all_tasks_blocked()
        assert all(hub._connections == 0 for hub in world.hubs.values())
        async with open_prepared_dial("ws://gone", world.dial) as dial:
            with pytest.raises(HubUnreachable, match="nothing listens at gone"):
                async with open_caller(["ws://gone"], dial=dial):
                    pass


async def test_failures_name_every_hub(autojump_clock: Clock) -> None:
    async with open_world("one") as world, open_callee(world, ["ws://one"]):  # registered, but nobody serves
        start = trio.current_time()
        with pytest.raises(ConnectError) as failed:
            async with open_caller(["ws://gone", "ws://one"], dial=world.dial):
                pass
        assert [type(attempt.error) for attempt in failed.value.attempts] == [HubUnreachable, NoPartner]
        assert "hub ws://gone" in str(failed.value)
        assert trio.current_time() - start == pytest.approx(8)
    with pytest.raises(ConnectError, match="names no hub"):
        async with open_caller([]):
            pass


async def test_a_call_that_comes_through_two_hubs_is_one_call(autojump_clock: Clock) -> None:
    handled: list[str] = []

    async def handler(call: IncomingCall) -> None:
        handled.append(call.hub)
        await echo_candidates(call)

    hubs = ["ws://one", "ws://two"]
    async with open_world("one", "two") as world, open_callee(world, hubs) as signaling, trio.open_nursery() as nursery:
        await nursery.start(signaling.serve, handler)
        assert signaling.active_hubs == ("ws://one", "ws://two")

        async def call(hub: str) -> None:
            with trio.move_on_after(5):
                async with open_caller([hub], dial=world.dial):
                    await trio.sleep(5)

        async with trio.open_nursery() as callers:
            for hub in hubs:
                callers.start_soon(call, hub)
        assert len(handled) == 1
        nursery.cancel_scope.cancel()


async def test_a_cancelled_call_leaves_no_deaf_room(autojump_clock: Clock) -> None:
    async with open_world("one") as world, open_answering(world, ["ws://one"]):
        for pause in (0, 0.001, 1, 3):
            with trio.move_on_after(pause):
                async with open_caller(["ws://one"], dial=world.dial):
                    await trio.sleep_forever()
        async with open_call(
            ["ws://one"], local=CALLER, remote=CALLEE, credentials=("new", "x"), dial=world.dial
        ) as room:
            await room.send_candidate("x")
            assert (await room.receive()).type == FrameType.CREDENTIALS
            assert (await room.receive()).candidate == "x back"
    assert world.hubs["one"].stats.sessions_active == 0


@given(cancel_after=st.floats(0, 0.6), hub_dies=st.booleans())
@settings(max_examples=40)
def test_a_call_cancelled_at_any_instant_leaves_no_room(cancel_after: float, hub_dies: bool) -> None:
    async def scenario() -> None:
        async with (
            open_world("one", latency=0.05) as world,
            open_callee(world, ["ws://one"]) as signaling,
            trio.open_nursery() as nursery,
        ):
            hub = world.hubs["one"]
            await nursery.start(signaling.serve, echo_candidates)
            with trio.move_on_after(cancel_after), contextlib.suppress(A2alError):
                async with (
                    open_prepared_dial("ws://one", world.dial) as dial,
                    open_caller(["ws://gone", "ws://one"], dial=dial) as room,
                ):
                    await room.send_candidate("x")
                    await trio.sleep_forever()
            if hub_dies:
                world.crash("one")
            await trio.sleep(40)
            assert hub.stats.sessions_active == 0
            nursery.cancel_scope.cancel()

    trio.run(scenario, clock=Clock(autojump_threshold=0))


async def test_a_newer_call_supersedes_an_unfinished_but_not_a_released_one(autojump_clock: Clock) -> None:
    log: list[str] = []

    async def handler(call: IncomingCall) -> None:
        number = len(log)
        log.append("begun")
        if number == 1:
            call.release()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            log[number] = "cancelled"
            raise

    async with open_world("one") as world, open_answering(world, ["ws://one"], handler):
        for _ in range(3):
            with pytest.raises(NoPartner):
                async with open_caller(["ws://one"], dial=world.dial):
                    pass
        assert log == ["cancelled", "begun", "begun"]


async def test_a_lost_hub_is_redialled_and_then_replaced(autojump_clock: Clock) -> None:
    hubs = ["ws://one", "ws://two", "ws://three"]
    async with open_world("one", "two", "three") as world, open_callee(world, hubs) as signaling:
        assert signaling.active_hubs == ("ws://one", "ws://two")
        await trio.sleep(100)  # keep-alive keeps them
        assert signaling.active_hubs == ("ws://one", "ws://two")
        assert world.hubs["one"].stats.aids_registered == 1
        world.crash("two")
        await signaling.wait_hubs_changed()
        left = signaling.active_hubs
        await signaling.wait_hubs_changed()
        assert [left, signaling.active_hubs] == [("ws://one",), ("ws://one", "ws://three")]


async def test_a_hub_that_restarts_is_back_at_once(autojump_clock: Clock) -> None:
    async with open_world("one") as world, open_callee(world, ["ws://one"]) as signaling:
        await trio.sleep(30)
        world.crash("one")
        world.hubs["one"] = Hub()
        await trio.sleep(0.1)
        assert signaling.active_hubs == ("ws://one",)
        assert world.hubs["one"].stats.aids_registered == 1


async def test_agents_come_and_go(autojump_clock: Clock) -> None:
    async with open_world("one") as world, open_callee(world, ["ws://one"], [CALLER]) as signaling:
        signaling.set_agents([CALLER, CALLEE])
        await trio.sleep(0.1)
        assert world.hubs["one"].stats.aids_registered == 2
        signaling.set_agents([CALLEE])
        await trio.sleep(5)
        assert world.hubs["one"].stats.aids_registered == 1


async def test_a_hub_that_accepts_and_closes_is_not_hammered(autojump_clock: Clock) -> None:
    async with open_world("one", limits=HubLimits(agents_per_socket=0)) as world:
        async with open_signaling(["ws://one"], [CALLEE], dial=world.dial):
            await trio.sleep(60)
        assert len(world.dials) <= 12


async def test_a_room_at_a_reference_hub_that_drops_without_a_word(autojump_clock: Clock) -> None:
    async with (
        open_world("one") as world,
        open_answering(world, ["ws://one"]),
        open_caller(["ws://one"], dial=world.dial) as room,
    ):
        assert (await room.receive()).type == FrameType.CREDENTIALS
        world.crash("one")
        with pytest.raises(RoomClosed):
            await room.receive()
        with pytest.raises(RoomClosed):
            await room.receive_punch()
        with pytest.raises(RoomClosed):
            await room.send_candidate("x")


async def test_a_bad_hub_url_is_the_users_mistake() -> None:
    with pytest.raises(ConfigurationError, match="scheme must be ws or wss"):
        async with open_signaling(["http://hub"]):
            pass


def test_rotation() -> None:
    rotation = Rotation()
    rotation.set_candidates(["a", "b", "a", "c"])
    assert rotation.candidates == ("a", "b", "c")
    assert [rotation.claim(0), rotation.claim(0)] == ["a", "b"]
    assert [rotation.lost("a", 0, connected_at=None) for _ in range(3)] == [5.0, 5.0, None]
    assert rotation.claim(1) == "c"
    assert rotation.claim(1) is None
    assert rotation.next_claim_at(1) == 15
    now, cooling = 15.0, []
    for _ in range(6):
        assert rotation.claim(now) == "a"
        while rotation.lost("a", now, connected_at=None) is not None:
            pass
        cooling.append(rotation.next_claim_at(now) - now)
        now = rotation.next_claim_at(now)
    assert cooling == [30, 60, 120, 240, 300, 300]
    assert rotation.claim(now) == "a"
    assert rotation.lost("a", now + 60, connected_at=now) == 0.0, "it stood for a while: all is forgotten"
    assert [rotation.lost("a", now, connected_at=None) for _ in range(3)] == [5.0, 5.0, None]
    assert rotation.next_claim_at(now) == now + 15
    rotation.connected("b")
    assert rotation.lost("b", 100, connected_at=20) == 0.0
    assert rotation.lost("b", 100, connected_at=None) == 2.0
    rotation.set_candidates(["c"])
    assert rotation.lost("b", 100, connected_at=None) is None
    assert rotation.active == set()
