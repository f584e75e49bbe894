"""One ICE session: gathering, trickling through a room, checking, and the path that comes of it.

The session must live as long as what runs on its path: leaving it closes all sockets and gives relays back.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

import attrs
import trio

from a2al_trio.errors import A2alError
from a2al_trio.ice.agent import AgentConfig, ConsentLost, Failed, IceAgent, Selected
from a2al_trio.ice.candidate import Candidate, CandidateType, candidate_priority, parse_candidate
from a2al_trio.ice.checks import Credentials
from a2al_trio.ice.driver.gather import Base, Gatherer
from a2al_trio.ice.driver.network import IceNetwork, SystemNetwork
from a2al_trio.ice.driver.path import IcePath
from a2al_trio.ice.driver.relay import open_relay
from a2al_trio.ice.errors import CandidateDecodeError, IceFailed, RelayFailed
from a2al_trio.ice.servers import ServerAddress, TurnServer, parse_server
from a2al_trio.ice.stun import is_stun
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.scopes import open_service_nursery

__all__ = ["IceConfig", "IceSession", "SignalMessage", "SignalRoom", "open_ice_session"]

_RESCUES: Final = (CandidateType.PEER_REFLEXIVE, CandidateType.HOST)
_RESCUE_AFTER: Final = 2.0
_KEEP_RELAYS: Final = 10.0
_GATHER_LIMIT: Final = 6.0
"""Seconds after which the peer is told that there are no more candidates; slower sources are as good as dead."""


class SignalMessage(Protocol):
    """What comes out of a room: `type` is `cred`, `cand` or `eoc`, the rest as spec 06 §5 says."""

    @property
    def type(self) -> str:
        """The type of the message."""

    @property
    def ufrag(self) -> str:
        """The peer's user name fragment."""

    @property
    def pwd(self) -> str:
        """The peer's password."""

    @property
    def candidate(self) -> str:
        """A candidate line."""


class SignalRoom(Protocol):
    """The way to the peer's agent. Methods raise an `A2alError` once it is closed."""

    async def send_candidate(self, line: str) -> None:
        """Tell the peer one candidate."""

    async def send_end_of_candidates(self) -> None:
        """Tell the peer that no more candidates will follow."""

    async def receive(self) -> SignalMessage:
        """Return the peer's next message."""


@attrs.frozen(kw_only=True)
class IceConfig:
    """How to find paths.

    `stun_servers` are URIs such as `stun:host:3478`; TURN servers over UDP are asked as STUN servers too. With
    `relay_only` nothing but relays is offered, which hides our addresses from the peer; without `use_relays` (as for
    DHT connections) there are none.
    """

    stun_servers: tuple[str, ...] = ()
    turn_servers: tuple[TurnServer, ...] = ()
    use_relays: bool = True
    relay_only: bool = False
    agent: AgentConfig = attrs.Factory(AgentConfig)

    def stun_addresses(self) -> list[ServerAddress]:
        """Return whom to ask for our address, each once; raises `ConfigurationError` for a bad URI."""
        found = [parse_server(url) for url in self.stun_servers]
        found += [server.address for server in self.turn_servers]
        unique: dict[tuple[str, int], ServerAddress] = {}
        for address in found:
            if address.transport == "udp" and not address.secure:
                unique.setdefault((address.host, address.port), address)
        return list(unique.values())


class IceSession:
    """Made by `open_ice_session`."""

    def __init__(self, *, controlling: bool, config: IceConfig, network: IceNetwork) -> None:
        self._config = config
        self._network = network
        self._agent = IceAgent(controlling=controlling, entropy=os.urandom, config=config.agent)
        self._gatherer = Gatherer(network, self._found)
        self._bases: dict[SocketAddress, Base] = {}
        self._relays: dict[SocketAddress, trio.CancelScope] = {}
        self._stun = config.stun_addresses()
        self._local: list[Candidate] = []
        self._local_more = trio.Event()
        self._gathered = trio.Event()
        self._timer = trio.CancelScope()
        self._decided = trio.Event()
        self._lost = trio.Event()
        self._error: A2alError | None = None
        self._reason = ""
        self._nursery: trio.Nursery | None = None
        self._trickled_to: list[SignalRoom] = []
        self.path = IcePath()

    @property
    def credentials(self) -> tuple[str, str]:
        """Our ufrag and pwd, to be sent when the room is joined."""
        return self._agent.credentials.ufrag, self._agent.credentials.pwd

    @property
    def controlling(self) -> bool:
        """Our role, settled once a path is selected: the controlling side dials QUIC, the other listens."""
        return self._agent.controlling

    @property
    def gathering_failures(self) -> list[str]:
        """The sources of candidates that gave nothing, and why."""
        return [str(failure) for failure in self._gatherer.failures]

    async def connect(self, room: SignalRoom) -> IcePath:
        """Exchange candidates through the room and return the path once one is selected.

        Our credentials must have been sent. Raises `IceFailed` if no pair works, or the room's error if it ends before
        the peer's credentials came; its loss after that does no harm. Call it once.
        """
        assert self._nursery is not None
        self._nursery.start_soon(self.trickle, room)
        self._nursery.start_soon(self._take_messages, room)
        await self._decided.wait()
        if self._error is not None:
            raise self._error
        return self.path

    async def wait_lost(self) -> str:
        """Wait until the peer has withdrawn its consent or vanished, and return what happened."""
        await self._lost.wait()
        return self._reason

    def network_changed(self) -> None:
        """The host's addresses may have changed: use new ones, drop those that are gone, and check at once."""
        hosts = set(self._network.hosts())
        now = trio.current_time()
        for base in list(self._bases.values()):
            if base.relay is None and base.address.host not in hosts:
                self._drop(base)
        known = {base.address.host for base in self._bases.values() if base.relay is None}
        if not self._config.relay_only:
            for host in hosts - known:
                base_or_none = self._gatherer.bind_host(host)
                if base_or_none is not None:
                    self._add_base(base_or_none)
        self._agent.network_changed(now)
        self._flush()

    # --- candidates -------------------------------------------------------------------------------------------

    def _found(self, candidate: Candidate) -> None:
        self._agent.add_local_candidate(candidate, trio.current_time())
        self._local.append(candidate)
        self._local_more.set()
        self._local_more = trio.Event()

    def _add_base(self, base: Base) -> None:
        assert self._nursery is not None
        self._bases[base.address] = base
        self._nursery.start_soon(self._run_base, base)
        self._found(base.candidate)
        self._flush()

    def _drop(self, base: Base) -> None:
        if self._bases.pop(base.address, None) is not None:
            base.socket.close()
            self._agent.remove_base(base.address, trio.current_time())
            self._flush()

    async def _gather(self) -> None:
        assert self._nursery is not None
        bases = [] if self._config.relay_only else self._gatherer.bind_hosts()
        for base in bases:
            self._add_base(base)
        pending: dict[trio.Event, str] = {}
        with trio.move_on_after(_GATHER_LIMIT):
            async with trio.open_nursery() as nursery:
                if not self._config.relay_only:
                    for server in self._stun:
                        nursery.start_soon(self._gatherer.ask, server, bases)
                if self._config.use_relays:
                    families = {":" in host for host in self._network.hosts()} | {False}
                    for turn in self._config.turn_servers:
                        for ipv6 in families:
                            ready = trio.Event()
                            pending[ready] = str(turn.address)
                            self._nursery.start_soon(partial(self._run_relay, turn, ready, ipv6=ipv6))
                            nursery.start_soon(ready.wait)
        for ready, name in pending.items():
            if not ready.is_set():
                self._gatherer.failed(name, RelayFailed(f"no answer within {_GATHER_LIMIT:.0f} s"))
        self._gathered.set()
        self._agent.end_local_candidates(trio.current_time())
        self._flush()

    async def _run_relay(self, server: TurnServer, ready: trio.Event, *, ipv6: bool) -> None:
        """Hold a relay for as long as it stands; `ready` is set when that is decided."""
        try:
            with trio.CancelScope() as scope:
                async with open_relay(server, network=self._network, ipv6=ipv6) as relay:
                    base = self._gatherer.relay_candidate(relay)
                    self._relays[base.address] = scope
                    self._add_base(base)
                    ready.set()
                    try:
                        await relay.wait_lost()
                    finally:
                        self._relays.pop(base.address, None)
                        self._drop(base)
        except (A2alError, OSError) as error:
            family = " for IPv6" if ipv6 else ""
            self._gatherer.failed(f"{server.address}{family}", error)
        finally:
            ready.set()

    async def trickle(self, room: SignalRoom) -> None:
        """Send our candidates to a room as they become known, then that there are no more; ends with the room.

        It may begin before the peer is in the room, which saves a round trip, and in rooms at several hubs. Only the
        first call for a room does anything; `connect` makes one.
        """
        if room in self._trickled_to:
            return
        self._trickled_to.append(room)
        sent = 0
        try:
            while True:
                more = self._local_more
                ended = self._gathered.is_set()
                for candidate in self._local[sent:]:
                    sent += 1
                    await room.send_candidate(str(candidate))
                if ended and sent == len(self._local):
                    break
                if sent == len(self._local):
                    await self._wait_for_either(more, self._gathered)
            await room.send_end_of_candidates()
            if not self._agent.controlling:
                await self._rescue(room)
        except A2alError:
            return  # the room is gone; what came through it stands

    @staticmethod
    async def _wait_for_either(one: trio.Event, other: trio.Event) -> None:
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, one)
            nursery.start_soon(wait, other)

    async def _rescue(self, room: SignalRoom) -> None:
        """Name our reflexive addresses again under other types.

        A controlling reference gives every pair eight checks and no more; a new type of candidate makes new pairs for
        it (spec 06 §13.2). Our own agents know the addresses and take no notice.
        """
        reflexive = [each for each in self._local if each.type is CandidateType.SERVER_REFLEXIVE]
        for kind in _RESCUES:
            with trio.move_on_after(_RESCUE_AFTER):
                await self._decided.wait()
                return
            for candidate in reflexive:
                again = attrs.evolve(candidate, type=kind, priority=candidate_priority(kind, 0))
                await room.send_candidate(str(again))

    async def _take_messages(self, room: SignalRoom) -> None:
        introduced = False
        while True:
            try:
                message = await room.receive()
            except A2alError as error:
                if not introduced:
                    self._decide(error)
                self._agent.end_remote_candidates(trio.current_time())
                self._flush()
                return
            now = trio.current_time()
            if message.type == "cred" and message.ufrag and message.pwd:
                introduced = True
                self._agent.set_remote_credentials(Credentials(message.ufrag, message.pwd), now)
            elif message.type == "cand":
                try:
                    self._agent.add_remote_candidate(parse_candidate(message.candidate), now)
                except CandidateDecodeError:
                    continue
            elif message.type == "eoc":
                self._agent.end_remote_candidates(now)
            self._flush()

    # --- datagrams and time -----------------------------------------------------------------------------------

    async def _run_base(self, base: Base) -> None:
        try:
            while True:
                for received in await base.socket.receive():
                    self._take(base, received)
                self._flush()
        except trio.ClosedResourceError:
            return
        finally:
            self._bases.pop(base.address, None)
            base.socket.close()

    def _take(self, base: Base, received: Received) -> None:
        now = trio.current_time()
        size, data = received.segment_size, received.data
        if len(data) <= size or all(data[start] >= 4 for start in range(0, len(data), size)):
            if is_stun(data) and len(data) <= size:
                self._take_stun(base, data, received.source, now)
            elif self._agent.accepts(received.source):
                self.path.deliver(received, data)
            return
        for datagram in received.datagrams():  # checks and data in one run
            if is_stun(datagram):
                self._take_stun(base, datagram, received.source, now)
            elif self._agent.accepts(received.source):
                self.path.deliver(received, datagram)

    def _take_stun(self, base: Base, data: memoryview, source: SocketAddress, now: float) -> None:
        if not self._gatherer.receive(base, data, source):
            self._agent.receive(base.address, data, source, now)

    def _flush(self) -> None:
        for transmit in self._agent.transmits():
            base = self._bases.get(transmit.base)
            if base is not None:  # a full socket loses the check, as the network may
                base.socket.send_nowait(Transmit(transmit.data, len(transmit.data), transmit.destination))
        while (event := self._agent.next_event()) is not None:
            match event:
                case Selected():
                    self._select(event)
                case Failed(reason):
                    self._decide(IceFailed("; ".join([reason, *self.gathering_failures])))
                case ConsentLost(reason):
                    self._lose(reason)
        timeout = self._agent.next_timeout()
        self._timer.deadline = float("inf") if timeout is None else timeout

    def _select(self, event: Selected) -> None:
        base = self._bases.get(event.base)
        if base is None:
            return
        self.path.move(base, event.remote, relayed=event.relayed, description=event.description)
        assert self._nursery is not None
        if not event.relayed:
            self._nursery.start_soon(self._release_relays)
        self._decided.set()

    def _decide(self, error: A2alError) -> None:
        if not self._decided.is_set():
            self._error = error
            self._decided.set()

    def _lose(self, reason: str) -> None:
        self.path.detach()
        self._reason = reason
        self._lost.set()

    async def _release_relays(self) -> None:
        """A direct path that has stood for a while needs no relay of ours any more."""
        await trio.sleep(_KEEP_RELAYS)
        if not self.path.relayed:
            for scope in list(self._relays.values()):
                scope.cancel()

    async def _run_timer(self) -> None:
        while True:
            timeout = self._agent.next_timeout()
            with trio.CancelScope(deadline=float("inf") if timeout is None else timeout) as self._timer:
                await trio.sleep_forever()
            self._agent.handle_timeout(trio.current_time())
            self._flush()


@asynccontextmanager
async def open_ice_session(
    *, controlling: bool, config: IceConfig | None = None, network: IceNetwork | None = None
) -> AsyncIterator[IceSession]:
    """Open a session; it gathers candidates at once. The caller is `controlling`, the callee is not.

    Raises `ConfigurationError` for a bad server URI. Leaving the block closes the path and all sockets.
    """
    session = IceSession(controlling=controlling, config=config or IceConfig(), network=network or SystemNetwork())
    async with open_service_nursery("ICE session") as nursery:
        session._nursery = nursery
        nursery.start_soon(session._run_timer)
        nursery.start_soon(session._gather)
        try:
            yield session
        finally:
            session.path.close()
