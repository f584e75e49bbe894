"""Hosts behind simulated NATs, a hub, STUN and TURN between them: whole hosts, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
import trio.testing

from a2al_trio.host import AgentConnection, Host, HostConfig
from a2al_trio.ice import StaticCredentials, TurnServer
from a2al_trio.identity import Identity
from a2al_trio.signaling import Hub
from a2al_trio.testing import Link, Nat, SimHost, SimNet, open_simnet
from tests.host.world import identity, open_sim_host
from tests.ice.turn_server import PASSWORD, USER, SimTurnServer

SEED, ALICE, BOB = identity(1), identity(2), identity(3)
PORT = 4121
INFRA = "198.51.100.250"
HUB = f"ws://{INFRA}:{PORT}"

PORT_RESTRICTED = Nat.port_restricted()
KINDS: dict[str, Nat | None] = {
    "open": None,
    "full_cone": Nat.full_cone(),
    "restricted": Nat.restricted(),
    "port_restricted": Nat.port_restricted(),
    "symmetric": Nat.symmetric(),
}


@attrs.define(eq=False)
class World:
    """A public machine with a DHT node, a hub, STUN and TURN, and others behind whatever NATs."""

    net: SimNet
    infra: SimHost
    seed: Host
    hub: Hub
    nursery: trio.Nursery
    served: trio.CancelScope
    turn: bool = False
    stun: tuple[str, ...] = ()
    relay_only: bool = False
    link: Link | None = None
    """The cables of hosts to come."""
    listen: str = ""
    """Where they listen; empty is their first address."""

    async def restart_hub(self, *, after: float = 0.0) -> None:
        """The hub forgets everything and everybody; it is away for `after` seconds."""
        self.served.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(after)
        self.hub = Hub()
        self.open_hub()

    def open_hub(self) -> None:
        hub, self.served = self.hub, trio.CancelScope()
        listener = self.infra.listen(PORT)

        async def serve(stream: trio.abc.Stream) -> None:
            await hub.serve_stream(stream, "192.0.2.1")

        async def run(scope: trio.CancelScope) -> None:
            with scope:
                await trio.serve_listeners(serve, [listener])

        self.nursery.start_soon(run, self.served)

    @asynccontextmanager
    async def host(
        self, who: Identity, nat: Nat | None = None, *, name: str, hubs: tuple[str, ...] = ()
    ) -> AsyncIterator[Host]:
        behind = self.net.nat(f"{name}'s NAT", nat) if nat is not None else None
        machine = self.net.host(name, behind=behind, link=self.link)
        servers = (TurnServer(f"turn:{INFRA}:3478", StaticCredentials(USER, PASSWORD)),) if self.turn else ()
        config = HostConfig(
            listen=self.listen,
            signal_urls=hubs,
            turn_servers=servers,
            stun_servers=self.stun,
            min_observed_peers=1,
            relay_only=self.relay_only,
        )
        async with open_sim_host(machine, who, seeds=(self.seed,), config=config) as host:
            yield host


@asynccontextmanager
async def open_world(
    *, turn: bool = False, seed: int = 1, link: Link | None = None, listen: str = ""
) -> AsyncIterator[World]:
    """`link` is the cable of each host but the public machine, whose latency is 10 ms."""
    async with (
        open_simnet(seed=seed, link=Link(latency=0.01)) as net,
        trio.open_nursery() as nursery,
    ):
        infra = net.host("infra", address=INFRA)
        relay = SimTurnServer(infra.bind(3478), partial(infra.bind, 0), INFRA, nursery)
        nursery.start_soon(relay.run)
        async with open_sim_host(infra, SEED) as seed_host:
            world = World(net, infra, seed_host, Hub(), nursery, trio.CancelScope(), turn, link=link, listen=listen)
            world.open_hub()
            yield world
        nursery.cancel_scope.cancel()


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def ask(connection: AgentConnection, question: bytes) -> bytes:
    async with await connection.open_stream() as stream:
        await stream.send_all(question)
        await stream.send_eof()
        return bytes(await stream.receive_all(limit=10_000_000))


@asynccontextmanager
async def open_pair(
    alice: Nat | None = PORT_RESTRICTED,
    bob: Nat | None = PORT_RESTRICTED,
    *,
    turn: bool = False,
    serve: bool = True,
    seed: int = 1,
    link: Link | None = None,
    listen: str = "",
) -> AsyncIterator[tuple[World, Host, Host]]:
    """Alice, who is published and with `serve` echoes, and Bob, who is not and does not."""
    async with (
        open_world(turn=turn, seed=seed, link=link, listen=listen) as world,
        world.host(ALICE, alice, name="alice") as callee,
        world.host(BOB, bob, name="bob") as caller,
        trio.open_nursery() as nursery,
    ):
        if serve:
            await nursery.start(callee.serve, echo)
        await callee.publish()
        yield world, callee, caller
        nursery.cancel_scope.cancel()
