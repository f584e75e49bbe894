"""The reference daemon at our hub and we at its: registrations, calls and ICE with its agent as the peer."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from a2al_trio.ice import IceConfig, IceSession, SystemNetwork, open_ice_session
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import UdpSocket, open_udp
from a2al_trio.signaling import Hub, IncomingCall, NoAgent, open_call, open_signaling, prove_registration, serve_hub
from tests.ice.turn_server import PASSWORD, USER, SimTurnServer
from tests.ice.world import receive, send
from tests.interop.conftest import REFERENCE_HOSTS, Lab
from tests.interop.reference_node import ReferenceNode, open_reference_node

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]
LIMIT = 60


def new_agent() -> str:
    return str(Identity.generate(os.urandom).address)


@asynccontextmanager
async def our_hub(lab: Lab) -> AsyncIterator[tuple[Hub, str]]:
    hub = Hub()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(partial(serve_hub, lab.hosts[4], 4121, hub=hub))
        yield hub, f"ws://{address}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stun_server(lab: Lab) -> AsyncIterator[SocketAddress]:
    """The daemon makes no candidates of addresses of a loopback device, so it must hear of its own from somebody."""
    host = lab.hosts[3]
    async with open_udp(SocketAddress(host, 3478)) as socket, trio.open_nursery() as nursery:
        server = SimTurnServer(socket, lambda: UdpSocket.bind(SocketAddress(host, 0)), host, nursery)
        nursery.start_soon(server.run)
        yield socket.local_address
        nursery.cancel_scope.cancel()
        for allocation in server.allocations.values():  # the daemon gives none back when it is killed
            allocation.socket.close()


@asynccontextmanager
async def daemon_at(lab: Lab, hub: str, stun: SocketAddress) -> AsyncIterator[ReferenceNode]:
    settings = [
        f'ice_signal_url = "{hub}"',
        "[[turn_servers]]",
        f'url = "turn:{stun}?transport=udp"',
        f'username = "{USER}"',
        f'credential = "{PASSWORD}"',
    ]
    directory = lab.directory / "daemon"
    async with open_reference_node(lab.binary, directory, REFERENCE_HOSTS[0], api_port=2121, settings=settings) as node:
        yield node


@asynccontextmanager
async def our_session(lab: Lab, *, controlling: bool) -> AsyncIterator[IceSession]:
    network = SystemNetwork(only_hosts=(lab.hosts[0],))
    async with open_ice_session(controlling=controlling, config=IceConfig(), network=network) as session:
        yield session


async def registered(hub: Hub, count: int) -> None:
    while hub.stats.aids_registered < count:  # noqa: ASYNC110  # another process's doing
        await trio.sleep(0.02)


async def test_the_daemon_registers_at_our_hub_and_takes_calls(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with our_hub(lab) as (hub, url), stun_server(lab) as stun, daemon_at(lab, url, stun) as node:
            agent = await node.add_agent(publish=False)
            await registered(hub, 2)  # its node and the agent
            caller = new_agent()
            async with our_session(lab, controlling=True) as session:
                call = open_call([url], local=caller, remote=agent.aid, credentials=session.credentials)
                async with call as room:
                    path = await session.connect(room)
                    assert path.description
                    assert session.controlling
            with pytest.raises(NoAgent):
                async with open_call([url], local=caller, remote=new_agent(), credentials=("u", "p")):
                    pass


async def test_we_call_each_other_through_the_hub_of_the_daemon(lab: Lab) -> None:
    identity = Identity.generate(os.urandom)
    caller, callee = new_agent(), str(identity.address)
    heard: list[bytes] = []

    async def answer(call: IncomingCall) -> None:
        assert (call.caller, call.target) == (caller, callee)
        async with our_session(lab, controlling=False) as session:
            async with call.join(credentials=session.credentials) as room:
                path = await session.connect(room)
            heard.append(await receive(path))
            await send(path, b"answer")

    def prove(agent: str, authority: str) -> str:
        """Its hub must not mind what only ours reads."""
        return prove_registration(identity, authority, unix_time=int(time.time()))

    with trio.fail_after(LIMIT):
        async with (
            lab.reference_nodes(1) as (node,),
            open_signaling([node.hub], [callee], prove=prove) as signaling,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(signaling.serve, answer)
            while not signaling.active_hubs:
                await signaling.wait_hubs_changed()
            while not (await node.get("/debug/stats"))["signal"]["aids_registered"]:  # noqa: ASYNC110
                await trio.sleep(0.02)
            async with our_session(lab, controlling=True) as session:
                call = open_call([node.hub], local=caller, remote=callee, credentials=session.credentials)
                async with call as room:
                    path = await session.connect(room)
                await send(path, b"question")
                assert await receive(path) == b"answer"
            assert heard == [b"question"]
            nursery.cancel_scope.cancel()
