"""The active probe through simulated NATs, with real DHT nodes as helpers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from a2al_trio.dht import open_dht
from a2al_trio.identity import Identity
from a2al_trio.nat.probe import ProbeFindings, Prober, probe_claimed, probe_fresh
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.testing import Nat, SimHost, SimNet, open_simnet
from a2al_trio.wire import NatProbeEcho, Ping, decode_message, encode_message

KINDS = {
    "public": None,
    "full_cone": Nat.full_cone(),
    "restricted": Nat.restricted(),
    "port_restricted": Nat.port_restricted(),
    "symmetric": Nat.symmetric(),
    "udp_blocked": Nat.udp_blocked(),
}
ENTROPY = random.Random(1).randbytes


@asynccontextmanager
async def open_helpers(net: SimNet, count: int) -> AsyncIterator[list[SocketAddress]]:
    """Real nodes, each on its own host."""
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for number in range(count):
            socket = net.host(f"helper{number}").bind(4121)
            node = Identity.from_seed((number + 1).to_bytes(32, "big"))
            await stack.enter_async_context(open_dht(socket, node))
            addresses.append(socket.address)
        yield addresses


def prober(us: SimHost, note: Callable[[SocketAddress], object] = id) -> Prober:
    async def ping(helper: SocketAddress) -> None:
        note(helper)
        await trio.lowlevel.checkpoint()

    return Prober(bind=us.bind, identity=Identity.from_seed(bytes(32)), ping_from_main=ping, entropy=ENTROPY)


def put_behind(net: SimNet, kind: str) -> SimHost:
    nat = KINDS[kind]
    return net.host("us", behind=net.nat("home", nat) if nat else None)


@pytest.mark.parametrize(
    ("kind", "reachable", "symmetric"),
    [
        ("public", True, False),
        ("full_cone", True, False),
        ("restricted", False, False),
        ("port_restricted", False, False),
        ("symmetric", False, True),
        ("udp_blocked", None, None),
    ],
)
@pytest.mark.parametrize("loss", [0.0, 0.05])
async def test_fresh_sockets_tell_the_kind_of_nat(
    kind: str, reachable: bool | None, symmetric: bool | None, loss: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_simnet(seed=3) as net, open_helpers(net, 4) as helpers:
        us = put_behind(net, kind)
        us.link = net.default_link if not loss else type(net.default_link)(latency=0.02, loss=loss)
        started = trio.current_time()
        findings = await probe_fresh(prober(us), helpers)
        assert (findings.reachable, findings.symmetric) == (reachable, symmetric)
        assert trio.current_time() - started <= 15
        us.bind(49152).close()  # the ports are free again


async def test_one_helper_is_not_enough(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_helpers(net, 1) as helpers:
        us = put_behind(net, "full_cone")
        assert await probe_fresh(prober(us), helpers) == ProbeFindings()
        assert await probe_fresh(prober(us), []) == ProbeFindings()


class MainSocket:
    """Stands for the node's own socket: knows its mapping, notices echoes."""

    def __init__(self, socket: DatagramSocket) -> None:
        self.socket = socket
        self.waiting: dict[bytes, trio.Event] = {}

    @contextlib.contextmanager
    def expect_echo(self, token: bytes) -> Iterator[trio.Event]:
        self.waiting[token] = trio.Event()
        yield self.waiting[token]
        del self.waiting[token]

    async def run(self) -> None:
        while True:
            for received in await self.socket.receive():
                for datagram in received.datagrams():
                    body = decode_message(datagram).body
                    if isinstance(body, NatProbeEcho) and body.token in self.waiting:
                        self.waiting[body.token].set()

    def say_something_to(self, address: SocketAddress) -> None:
        me = Identity.from_seed(bytes(32))
        message = encode_message(Ping(me.address), ENTROPY(20), me)
        self.socket.send_nowait(Transmit(message, len(message), address))


@pytest.mark.parametrize(
    ("kind", "reachable"), [("full_cone", True), ("port_restricted", False), ("restricted", False)]
)
async def test_the_main_mapping_is_probed_from_another_socket(
    kind: str, reachable: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_simnet() as net, open_helpers(net, 4) as helpers, trio.open_nursery() as nursery:
        us = put_behind(net, kind)
        main = MainSocket(us.bind(4121))
        nursery.start_soon(main.run)
        main.say_something_to(helpers[0])
        await trio.sleep(1)
        claimed = SocketAddress(net.nats["home"].address, 4121)
        pinged: list[SocketAddress] = []
        findings = await probe_claimed(prober(us, pinged.append), claimed, helpers[1:], expect_echo=main.expect_echo)
        assert findings == ProbeFindings(claimed, reachable, symmetric=False)
        assert not main.waiting
        assert sorted(pinged) == sorted(helpers[1:]), "they are told where we really are"
        nursery.cancel_scope.cancel()


async def test_a_claim_that_is_not_ours_is_not_echoed(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_helpers(net, 2) as helpers, trio.open_nursery() as nursery:
        us = put_behind(net, "full_cone")
        victim = MainSocket(net.host("victim").bind(4121))
        nursery.start_soon(victim.run)
        claimed = SocketAddress(net.hosts["victim"].addresses[0], 4121)
        findings = await probe_claimed(prober(us), claimed, helpers, expect_echo=victim.expect_echo)
        assert findings.reachable is None
        nursery.cancel_scope.cancel()


async def test_nonsense_and_strangers_do_not_disturb_a_probe(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_helpers(net, 3) as helpers, trio.open_nursery() as nursery:
        us = put_behind(net, "public")
        noise = net.host("noise").bind()

        async def make_noise() -> None:
            me = Identity.from_seed(bytes(32))
            junk = [b"x", bytes(300), encode_message(NatProbeEcho(bytes(8)), bytes(20), me)]
            while True:
                for port in (49152, 49153):
                    for data in junk:
                        noise.send_nowait(Transmit(data, len(data), SocketAddress(us.addresses[0], port)))
                await trio.sleep(0.01)

        nursery.start_soon(make_noise)
        assert (await probe_fresh(prober(us), helpers)).reachable is True
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0.0, 0.015, 0.05, 0.9])
async def test_a_probe_can_be_cancelled_at_any_time(after: float, autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, open_helpers(net, 3) as helpers:
        us = put_behind(net, "restricted")
        with trio.move_on_after(after):
            await probe_fresh(prober(us), helpers)
        for port in (49152, 49153):
            us.bind(port).close()
