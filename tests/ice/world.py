"""Simulated hosts as networks of ICE, a STUN and TURN server among them, and rooms between two agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from a2al_trio.errors import A2alError
from a2al_trio.ice.driver.path import IcePath
from a2al_trio.ice.driver.session import IceConfig, IceSession, open_ice_session
from a2al_trio.ice.servers import StaticCredentials, TurnServer
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.signaling.frames import Frame, FrameType
from a2al_trio.testing import Link, Nat, SimHost, SimNet, open_simnet
from tests.ice.turn_server import PASSWORD, USER, SimTurnServer

STUN = "203.0.113.1"


class RoomClosedError(A2alError):
    pass


@attrs.define(eq=False)
class SimIceNetwork:
    """The port of ICE on a simulated host. Names are IP addresses; there is no TCP."""

    host: SimHost

    def hosts(self) -> Sequence[str]:
        return self.host.addresses

    def bind(self, host: str) -> DatagramSocket:
        return self.host.bind(host="" if host in ("0.0.0.0", "::") else host)

    async def resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        await trio.lowlevel.checkpoint()
        if not host[0].isdigit():
            raise OSError(f"no such name: {host}")
        return [SocketAddress.of(host, port)]

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        raise OSError("there is no TCP here")


@attrs.define(eq=False)
class MemoryRoom:
    """One end of a room that takes `delay` seconds one way."""

    nursery: trio.Nursery
    outbox: trio.MemorySendChannel[Frame]
    inbox: trio.MemoryReceiveChannel[Frame]
    delay: float
    closed: bool = False
    sent: list[Frame] = attrs.Factory(list)

    def put(self, frame: Frame) -> None:
        if self.closed:
            raise RoomClosedError("the room is closed")
        self.sent.append(frame)
        self.nursery.start_soon(self._later, frame)

    async def _later(self, frame: Frame) -> None:
        await trio.sleep(self.delay)
        try:
            self.outbox.send_nowait(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def send_credentials(self, ufrag: str, pwd: str) -> None:
        self.put(Frame(type=FrameType.CREDENTIALS, ufrag=ufrag, pwd=pwd))
        await trio.lowlevel.checkpoint()

    async def send_candidate(self, line: str) -> None:
        self.put(Frame(type=FrameType.CANDIDATE, candidate=line))
        await trio.lowlevel.checkpoint()

    async def send_end_of_candidates(self) -> None:
        self.put(Frame(type=FrameType.END_OF_CANDIDATES))
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Frame:
        try:
            return await self.inbox.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise RoomClosedError("the room is closed") from None

    def close(self) -> None:
        self.closed = True
        self.outbox.close()
        self.inbox.close()


@attrs.define(eq=False)
class IceWorld:
    net: SimNet
    server: SimTurnServer
    nursery: trio.Nursery
    stun: bool = True

    def host(self, name: str, nat: Nat | None = None, *, link: Link | None = None, ipv6: bool = False) -> SimHost:
        behind = self.net.nat(f"{name}'s NAT", nat) if nat is not None else None
        return self.net.host(name, behind=behind, link=link, ipv6=ipv6)

    def config(self, *, turn: bool = False, **settings: object) -> IceConfig:
        if turn:
            settings["turn_servers"] = (TurnServer(f"turn:{STUN}:3478", StaticCredentials(USER, PASSWORD)),)
        stun = (f"stun:{STUN}:3478",) if self.stun else ()
        return IceConfig(stun_servers=stun, **settings)  # type: ignore[arg-type]

    def rooms(self, delay: float = 0.02) -> tuple[MemoryRoom, MemoryRoom]:
        to_one, from_other = trio.open_memory_channel[Frame](1000)
        to_other, from_one = trio.open_memory_channel[Frame](1000)
        return (
            MemoryRoom(self.nursery, to_other, from_other, delay),
            MemoryRoom(self.nursery, to_one, from_one, delay),
        )


@asynccontextmanager
async def open_world(seed: int = 1, *, link: Link | None = None) -> AsyncIterator[IceWorld]:
    async with open_simnet(seed=seed, link=link or Link(latency=0.01)) as net, trio.open_nursery() as nursery:
        host = net.host("stun", address=STUN, link=Link(latency=0.01))
        server = SimTurnServer(host.bind(3478), partial(host.bind, 0), STUN, nursery)
        nursery.start_soon(server.run)
        yield IceWorld(net, server, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_side(
    host: SimHost, room: MemoryRoom, config: IceConfig, *, controlling: bool
) -> AsyncIterator[IceSession]:
    async with open_ice_session(controlling=controlling, config=config, network=SimIceNetwork(host)) as session:
        await room.send_credentials(*session.credentials)
        yield session


async def send(path: IcePath, data: bytes) -> None:
    assert path.send_nowait(Transmit(data, len(data), path.peer_address)) == len(data)
    await trio.lowlevel.checkpoint()


async def receive(path: IcePath) -> bytes:
    return b"".join(bytes(received.data) for received in await path.receive())
