from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketConnection

from a2al_trio.signaling.errors import HubUnreachable, RoomClosed
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame, encode_frame
from a2al_trio.signaling.http import decode_request, refusal
from a2al_trio.signaling.hub import Hub, serve_hub
from a2al_trio.signaling.rooms import CallRate, HubLimits, Registry, Rooms, Seat
from a2al_trio.signaling.websocket import open_hub_socket, send_frame
from tests.signaling.world import HubWorld


@asynccontextmanager
async def open_world(limits: HubLimits | None = None) -> AsyncIterator[HubWorld]:
    async with trio.open_nursery() as nursery:
        world = HubWorld(nursery, {"hub": Hub(limits)})
        yield world
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect(world: HubWorld, resource: str) -> AsyncIterator[WebSocketConnection]:
    async with open_hub_socket(f"ws://hub{resource}", dial=world.dial) as socket:
        yield socket


async def register(socket: WebSocketConnection, agent: str) -> None:
    await send_frame(socket, Frame(type=FrameType.REGISTER, agent=agent))
    assert await receive(socket) == Frame(type=FrameType.ACKNOWLEDGE)


async def receive(socket: WebSocketConnection) -> Frame:
    message = await socket.get_message()
    assert isinstance(message, bytes)
    return decode_frame(message)


CALLER = "/ice?caller=C&room=r&target=T"
CALLEE = "/ice?room=r"


async def test_a_call_is_announced_and_relayed_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as callee:
        await register(callee, "T")
        async with connect(world, CALLER) as one:
            await one.send_message(b"early")
            incoming = await receive(callee)
            assert incoming == Frame(type=FrameType.INCOMING, room="r", caller="C", target="T")
            assert world.hubs["hub"].stats.sessions_active == 1
            async with connect(world, CALLEE) as other:
                await other.send_message("text stays text")
                assert await other.get_message() == b"early"
                assert await one.get_message() == "text stays text"
                await one.send_message(b"\0" * 32_768)
                assert len(await other.get_message()) == 32_768
                stats = world.hubs["hub"].stats
                assert (stats.callees_connected, stats.aids_registered) == (1, 1)
                assert (stats.sessions_active, stats.sessions_total) == (1, 1)
            with pytest.raises(ConnectionClosed):
                await one.get_message()
    assert world.hubs["hub"].stats.sessions_active == 0


async def test_an_unknown_agent_is_answered_noagent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, CALLER) as socket:
        assert await receive(socket) == Frame(type=FrameType.NO_AGENT)
        with pytest.raises(ConnectionClosed):
            await socket.get_message()
        assert world.hubs["hub"].stats.noagent_total == 1


async def test_a_silent_registration_ends_after_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as socket:
        await register(socket, "T")
        await trio.sleep(59)
        await socket.send_message(b"any data counts")
        await trio.sleep(59)
        await socket.ping()  # pings do not
        assert world.hubs["hub"].stats.aids_registered == 1
        start = trio.current_time()
        with pytest.raises(ConnectionClosed):
            await socket.get_message()
        assert trio.current_time() - start == pytest.approx(1.0)
    assert world.hubs["hub"].stats.aids_registered == 0


async def test_the_last_registration_of_an_agent_wins(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as first, connect(world, "/signal") as second:
        await register(first, "T")
        await register(first, "U")
        await register(second, "T")
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert world.hubs["hub"].stats.aids_registered == 1
        async with connect(world, CALLER):
            assert (await receive(second)).caller == "C"


async def test_a_waiter_is_heard_while_it_waits_and_dropped_after_half_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, connect(world, CALLEE) as socket:
        await socket.ping()
        start = trio.current_time()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.get_message()
        assert trio.current_time() - start == pytest.approx(30)
        assert closed.value.reason is not None
        assert closed.value.reason.reason == "nobody joined"


async def test_a_waiter_that_left_is_nobodys_partner(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as callee:
        await register(callee, "T")
        async with connect(world, CALLER):
            await receive(callee)
        await trio.testing.wait_all_tasks_blocked()
        assert world.hubs["hub"].stats.sessions_active == 0
        async with connect(world, CALLEE) as late, connect(world, CALLER) as again:
            await again.send_message(b"hello")
            assert await late.get_message() == b"hello"


async def test_two_callers_of_one_pair_are_never_paired_with_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as callee:
        await register(callee, "A")
        await register(callee, "B")
        async with (
            connect(world, "/ice?caller=A&room=r&target=B") as a_calls,
            connect(world, "/ice?caller=B&room=r&target=A") as b_calls,
            connect(world, "/ice?callee=A&room=r") as a_answers,
            connect(world, "/ice?callee=B&room=r") as b_answers,
        ):
            await a_calls.send_message(b"from A")
            await b_calls.send_message(b"from B")
            assert await b_answers.get_message() == b"from A"
            assert await a_answers.get_message() == b"from B"


async def test_a_newer_join_replaces_the_older(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as callee:
        await register(callee, "T")
        async with connect(world, CALLER) as older, connect(world, CALLER) as newer, connect(world, CALLEE) as answer:
            with pytest.raises(ConnectionClosed):
                await older.get_message()
            await answer.send_message(b"x")
            assert await newer.get_message() == b"x"


async def test_oversized_messages_end_only_their_sender(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as good, connect(world, "/signal") as bad:
        await register(good, "T")
        await bad.send_message(bytes(32_769))
        with pytest.raises(ConnectionClosed) as closed:
            await bad.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1009
        await register(good, "U")


async def test_a_waiter_that_talks_too_much_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, CALLEE) as socket:
        with pytest.raises(ConnectionClosed):
            for _ in range(10):
                await socket.send_message(bytes(20_000))
                await trio.testing.wait_all_tasks_blocked()


async def test_limits_per_socket_address_and_callee(autojump_clock: trio.testing.MockClock) -> None:
    limits = HubLimits(agents_per_socket=2, sockets_per_address=3, calls_per_minute=2)
    async with open_world(limits) as world:
        async with connect(world, "/signal") as callee:
            await register(callee, "T")
            for code in (None, None, 1008):
                async with connect(world, CALLER) as caller:
                    await trio.testing.wait_all_tasks_blocked()
                    if code is not None:
                        with pytest.raises(ConnectionClosed) as closed:
                            await caller.get_message()
                        assert closed.value.reason is not None
                        assert closed.value.reason.code == code
            await receive(callee)
            await receive(callee)
            await register(callee, "U")
            await send_frame(callee, Frame(type=FrameType.REGISTER, agent="V"))
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await callee.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1008
        async with connect(world, "/signal"), connect(world, "/signal"), connect(world, "/signal"):
            with pytest.raises(HubUnreachable):
                async with connect(world, "/signal"):
                    pass


async def test_a_reader_that_stalls_loses_its_registration_and_delays_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        hub = world.hubs["hub"]
        ours, theirs = trio.testing.lockstep_stream_pair()  # takes nothing that is not read
        nursery.start_soon(hub.serve_stream, theirs, "192.0.2.9")
        key = base64.b64encode(bytes(16)).decode()
        await ours.send_all(
            f"GET /signal HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in await ours.receive_some(4096):
            pass
        frame = encode_frame(Frame(type=FrameType.REGISTER, agent="T"))
        await ours.send_all(bytes([0x82, 0x80 | len(frame)]) + bytes(4) + frame)
        assert await ours.receive_some(4096)  # the acknowledgement; from now on nothing is read
        start = trio.current_time()
        async with connect(world, CALLER) as caller, connect(world, "/signal") as bystander:
            await register(bystander, "U")
            assert trio.current_time() == start
            with pytest.raises(ConnectionClosed):
                await caller.get_message()
        assert trio.current_time() - start == pytest.approx(5, abs=2.1)
        assert hub.stats.aids_registered == 0
        await ours.aclose()


async def test_a_relay_whose_client_vanished_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(world.hubs["hub"].serve_stream, theirs, "192.0.2.9")
        key = base64.b64encode(bytes(16)).decode()
        await ours.send_all(
            f"GET /ice?room=r&callee=x HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        async with connect(world, "/signal") as callee:
            await register(callee, "x")
            async with connect(world, "/ice?room=r&caller=c&target=x") as caller:
                start = trio.current_time()
                with pytest.raises(ConnectionClosed):
                    await caller.get_message()
                assert trio.current_time() - start < 65


@pytest.mark.parametrize(
    ("request_line", "extra", "status"),
    [
        ("GET /other HTTP/1.1", "", 404),
        ("POST /signal HTTP/1.1", "", 405),
        ("GET /ice HTTP/1.1", "", 400),
        ("POST /ice?room= HTTP/1.1", "", 400),
        ("GET /ice?room=r&target=t HTTP/1.1", "", 400),
        ("GET /ice?room=r HTTP/1.1", "Upgrade: nothing\r\n", 426),
        ("GET /ice?room=r HTTP/1.0", "", 426),
        ("POST /ice?room=r HTTP/1.1", "", 405),
        ("GET /ice?room=r HTTP/1.1", "Sec-WebSocket-Version: 12\r\n", 400),
        ("GET /ice?room=r HTTP/1.1", "Sec-WebSocket-Key: xx\r\n", 400),
        ("GET /ice?room=r HTTP/1.1", "Origin: http://elsewhere\r\n", 403),
        ("GET /ice?room=r HTTP/1.1", "Origin: http://HUB\r\n", 101),
        ("GET /signal HTTP/1.1", "", 101),
        ("nonsense", "", 400),
    ],
)
async def test_requests_are_refused_as_by_the_reference(
    autojump_clock: trio.testing.MockClock, request_line: str, extra: str, status: int
) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(Hub().serve_stream, theirs, "192.0.2.9")
        key = base64.b64encode(bytes(16)).decode()
        await ours.send_all(
            f"{request_line}\r\n{extra}Host: hub\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: a2al.ice.v1\r\n\r\n".encode()
        )
        answer = bytes(await ours.receive_some())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert (b"a2al.ice.v1" in answer) == (status == 101)
        nursery.cancel_scope.cancel()


async def test_a_request_that_does_not_come_or_never_ends_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    for data in (b"", b"GET /signal HT"):
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(data)
        start = trio.current_time()
        await Hub().serve_stream(theirs, "192.0.2.9")
        assert trio.current_time() - start == pytest.approx(10)
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"A" * 70_000)
    await Hub().serve_stream(theirs, "192.0.2.9")
    assert bytes(await ours.receive_some()).startswith(b"HTTP/1.1 400")


texts = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda method, target, headers: f"{method} {target} HTTP/1.1\r\n{headers}\r\n\r\n".encode("latin-1"),
            st.sampled_from(["GET", "POST", "PRI"]),
            st.one_of(texts, st.builds("/ice?room={}&target={}&caller={}".format, texts, texts, texts)),
            st.lists(st.builds("{}: {}".format, texts, texts), max_size=4).map("\r\n".join),
        ),
    )
)
@settings(max_examples=80)
def test_any_request_is_answered_or_dropped(data: bytes) -> None:
    async def scenario() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(data)
        await ours.send_eof()
        hub = Hub()
        await hub.serve_stream(theirs, "192.0.2.9")
        assert hub.stats.sessions_active == 0

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_hub_on_a_real_port(no_leaks: None) -> None:
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve_hub, "127.0.0.1", 0)
        async with open_hub_socket(f"ws://{address}/signal") as socket:
            await register(socket, "T")
        with pytest.raises(Exception, match="cannot listen on TCP") as refused:
            await serve_hub("127.0.0.1", address.port)
        assert type(refused.value).__name__ == "ConfigurationError"
        nursery.cancel_scope.cancel()


def test_pieces() -> None:
    registry: Registry[str] = Registry(2)
    assert [registry.register(agent, "s") for agent in ("a", "b", "c", "a")] == [True, True, False, True]
    registry.forget("s")
    registry.forget("s")
    assert registry.agents == registry.sockets == 0
    rooms: Rooms[str] = Rooms()
    seat = Seat("r", callee="x")
    assert rooms.join(seat, "one") == (None, None)
    rooms.leave(seat, "another")
    assert rooms.join(Seat("r", "c", "y"), "two") == (None, None)
    assert rooms.join(Seat("r", "c", "x"), "three") == ("one", None)
    assert rooms.waiting == 1
    rate = CallRate(1)
    assert [rate.allow("i", "t", now) for now in (1, 2, 61)] == [True, False, True]
    assert decode_request(b"x") is None
    assert refusal(None) is not None


async def test_send_frame_reports_a_closed_hub(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as world, connect(world, "/signal") as socket:
        world.crash("hub")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RoomClosed):
            await send_frame(socket, Frame(type="x"))
