"""The driver of pure cores, with a small reliable counter as the core."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs
import pytest
import trio
import trio.testing

from a2al_trio.drive import open_drive
from a2al_trio.errors import ServiceCrashed
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.testing import Link, open_simnet

Clock = trio.testing.MockClock
RETRY_AFTER = 0.3


@attrs.define
class Counter:
    """Sends numbered datagrams until each is acknowledged; says who acknowledged what and when."""

    peer: SocketAddress
    unacknowledged: dict[bytes, float] = attrs.field(factory=dict)
    outgoing: deque[tuple[bytes, SocketAddress]] = attrs.field(factory=deque)
    events: deque[tuple[bytes, float]] = attrs.field(factory=deque)

    def say(self, text: bytes, now: float) -> None:
        self.unacknowledged[text] = now + RETRY_AFTER
        self.outgoing.append((b"?" + text, self.peer))

    def receive_datagrams(self, batch: Received, now: float) -> None:
        for datagram in batch.datagrams():
            text = bytes(datagram[1:])
            if datagram[0] == ord("?"):
                self.outgoing.append((b"!" + text, batch.source))
            elif self.unacknowledged.pop(text, None) is not None:
                self.events.append((text, now))

    def handle_timeout(self, now: float) -> None:
        for text, due in list(self.unacknowledged.items()):
            if due <= now:
                self.say(text, now)

    def next_timeout(self) -> float | None:
        return min(self.unacknowledged.values(), default=None)

    def datagrams_to_send(self, now: float) -> Iterator[Transmit]:
        while self.outgoing:
            text, destination = self.outgoing.popleft()
            yield Transmit(text, len(text), destination)

    def next_event(self) -> tuple[bytes, float] | None:
        return self.events.popleft() if self.events else None


async def test_inputs_timers_and_commands_are_driven(autojump_clock: Clock) -> None:
    async with open_simnet(seed=3, link=Link(loss=0.3)) as net:
        one, two = net.socket_pair()
        asker, answerer = Counter(two.address), Counter(one.address)
        heard: dict[bytes, float] = {}

        def note(event: tuple[bytes, float]) -> None:
            heard[event[0]] = event[1]

        async with open_drive(asker, one, note) as drive, open_drive(answerer, two, note):
            for number in range(50):
                asker.say(bytes([number]), trio.current_time())
                drive.flush()
                await trio.sleep(0.001)
            await trio.sleep(30)
        assert sorted(heard) == [bytes([number]) for number in range(50)]
        assert max(heard.values()) > RETRY_AFTER


async def test_an_earlier_timeout_is_noticed(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        one, two = net.socket_pair()
        machine = Counter(two.address)
        async with open_drive(machine, one, lambda event: None) as drive:
            machine.unacknowledged[b"late"] = 100.0
            drive.flush()
            await trio.sleep(1)
            machine.unacknowledged[b"soon"] = 2.0
            drive.flush()
            await trio.sleep(1.2)
            [run] = await two.receive()
            assert bytes(run.data) == b"?soon"


async def test_commands_from_within_an_event_are_sent(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        one, two = net.socket_pair()
        asker, answerer = Counter(two.address), Counter(one.address)
        heard: list[bytes] = []

        def go_on(event: tuple[bytes, float]) -> None:
            heard.append(event[0])
            if len(heard) < 5:
                asker.say(bytes([len(heard)]), trio.current_time())
                drive.flush()

        async with open_drive(asker, one, go_on) as drive, open_drive(answerer, two, go_on):
            asker.say(b"\x00", trio.current_time())
            drive.flush()
            await trio.sleep(1)
            assert heard == [bytes([number]) for number in range(5)]


async def test_a_full_socket_is_resumed_where_it_stopped(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(rate=10_000)) as net:
        small, peer = net.host("small").bind(send_buffer=2000), net.host("peer").bind()
        machine = Counter(peer.address)
        async with open_drive(machine, small, lambda event: None) as drive:
            sent = [b"!" + bytes([number]) * 500 for number in range(40)]
            for text in sent:
                machine.outgoing.append((text, peer.address))
                drive.flush()
            assert machine.outgoing
            got: list[bytes] = []
            while len(got) < len(sent):
                got += [bytes(datagram) for run in await peer.receive() for datagram in run.datagrams()]
            assert got == sent


async def test_the_last_word_is_sent(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        one, two = net.socket_pair()
        machine = Counter(two.address)
        with pytest.raises(KeyError):
            async with open_drive(machine, one, lambda event: None):
                machine.say(b"goodbye", trio.current_time())
                raise KeyError
        [run] = await two.receive()
        assert bytes(run.data) == b"?goodbye"


async def test_a_bug_in_the_machine_surfaces(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        one, two = net.socket_pair()
        with pytest.raises(ServiceCrashed, match="ZeroDivisionError"):
            async with open_drive(Counter(two.address), one, lambda event: print(1 / 0)) as drive:
                drive._machine.say(b"x", 0.0)  # type: ignore[attr-defined]
                drive.flush()
                two.send_nowait(Transmit(b"!x", 2, one.address))
                await trio.sleep(1)
