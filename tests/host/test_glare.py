"""Two agents call each other at once, also at hubs that pair any two who join a room (spec 06 §4.4, §13.6, D2)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from a2al_trio.dht import PeerUnreachable
from a2al_trio.host import EndpointRecord, Host
from a2al_trio.identity import Address
from a2al_trio.punch import Meeting
from a2al_trio.quic import ClientTls, QuicConnection
from a2al_trio.signaling import Hub
from a2al_trio.signaling.rooms import Rooms, Seat
from a2al_trio.testing import Link, Nat
from tests.host.nat_world import ALICE, BOB, HUB, PORT, ask, echo, open_pair, open_world

Clock = trio.testing.MockClock

OTHER_HUB = "198.51.100.77"


class AnyTwo(Rooms[Any]):
    """Pairs whoever joins a room, as the reference's hub does."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[str, Any] = {}

    def join(self, seat: Seat, joiner: Any) -> tuple[Any, Any]:
        partner = self.rooms.pop(seat.room, None)
        if partner is None:
            self.rooms[seat.room] = joiner
        return partner, None

    def leave(self, seat: Seat, joiner: Any) -> None:
        if self.rooms.get(seat.room) is joiner:
            del self.rooms[seat.room]


@pytest.fixture
def reference_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2al_trio.signaling.hub.Rooms", AnyTwo)


async def meet(one: Host, other: Host, after: float, *, within: float) -> None:
    """Both call, the second a while later; each must soon have a connection on which it is answered."""
    records = [await caller.resolve(callee.address) for caller, callee in ((one, other), (other, one))]

    async def call(caller: Host, record: EndpointRecord) -> None:
        began = trio.current_time()
        async with caller.connect(record.record.address, record=record) as connection:
            with trio.fail_after(1):
                assert await ask(connection, b"hello") == b"hello"
            took = trio.current_time() - began
            print(f"{took:.2f} s {connection.path}")
            assert took < within
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, one, records[0])
        await trio.sleep(after)
        nursery.start_soon(call, other, records[1])


CASES = [(0.02, 0.0), (0.02, 0.05), (0.02, 0.12), (0.1, 0.0), (0.1, 1.0)]


@pytest.mark.parametrize(("latency", "after"), CASES)
async def test_both_are_answered(autojump_clock: Clock, reference_hubs: None, latency: float, after: float) -> None:
    async with open_pair(link=Link(latency=latency)) as (_, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(bob.serve, echo)
        await bob.publish()
        await meet(alice, bob, after, within=1 if latency < 0.1 else 4.5)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 0.05])
async def test_both_are_answered_who_are_called_at_different_hubs(
    autojump_clock: Clock, reference_hubs: None, after: float
) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        serve = partial(Hub().serve_stream, address="192.0.2.2")
        listener = world.net.host("another hub", address=OTHER_HUB).listen(PORT)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with (
            world.host(ALICE, Nat.port_restricted(), name="alice", hubs=(HUB,)) as alice,
            world.host(BOB, Nat.port_restricted(), name="bob", hubs=(f"ws://{OTHER_HUB}:{PORT}",)) as bob,
        ):
            for host in (alice, bob):
                await nursery.start(host.serve, echo)
                await host.publish()
            await meet(alice, bob, after, within=1)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 0.05])
async def test_who_cannot_call_back_on_the_path_calls_again(
    autojump_clock: Clock, reference_hubs: None, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    """Callers of the reference do not listen on their paths."""

    async def dial(_: Meeting, remote: Address, tls: ClientTls) -> QuicConnection:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Meeting, "dial", dial)
    async with open_pair() as (_, alice, bob), trio.open_nursery() as nursery:
        await nursery.start(bob.serve, echo)
        await bob.publish()
        await meet(alice, bob, after, within=3)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("punch_at", "call_at"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.0, 0.22), (0.16, 0.22)]
)
async def test_an_agent_and_the_node_it_calls_call_each_other_at_once(
    autojump_clock: Clock, reference_hubs: None, punch_at: float, call_at: float
) -> None:
    async with open_pair() as (_, alice, bob):
        await bob.publish()
        to_alice, to_bob = await bob.resolve(ALICE.address), await alice.resolve(BOB.address)

        async def punch() -> None:
            await trio.sleep(punch_at)
            alice.punches.punch(PeerUnreachable(BOB.node_id, to_bob.record, 2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(punch)
            await trio.sleep(call_at)
            began = trio.current_time()
            async with bob.connect(ALICE.address, record=to_alice) as connection:
                print(f"{trio.current_time() - began:.2f} s {connection.path}")
                with trio.fail_after(5):
                    assert await ask(connection, b"hello") == b"hello"
