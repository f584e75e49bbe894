"""Reaching the agent of a record: directly and through a hub, in one race (spec 04 §10.2–10.4)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import attrs
import trio

from a2al_trio.errors import AttemptFailure, ConnectError, IdentityMismatch, NoRoute
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import CONNECT_STAGGER, ICE_STAGGER
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.dial import Dialler
from a2al_trio.host.meet import Meetings
from a2al_trio.host.pending import CallRequest
from a2al_trio.host.targets import Endpoint, interleave_families, plan_path
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import Attempt, race
from a2al_trio.signaling import SignalingError
from a2al_trio.wire import EndpointPayload, NatType

__all__ = ["Reach", "head_start", "nats_in_the_way"]

logger = logging.getLogger(__name__)

HANDSHAKE_TRIPS = 3
"""Round trips after which a direct dial that works has been answered: it takes one, and some time to compute."""
SHORTEST_START = 0.1
"""Seconds: what the computing takes on a busy machine."""
DIRECT_LIMIT = 9.0
"""Seconds from the beginning in which a direct dial has to succeed: a call that is hopeless is to fail within 10."""
SHORTEST_DIAL = 1.0
"""Seconds that a dial has all the same which begins late, after meeting at a hub has failed."""


@attrs.define
class Reach:
    """Decides by a record how to reach its agent, and does it."""

    agents: AgentTable
    dialler: Dialler
    meetings: Meetings
    round_trips: Callable[[], Iterable[float]]
    """Round-trip times to other nodes, in seconds: what is usual on our side of the world."""

    def offering(self, *alpn: str) -> Reach:
        """The same, but for dials that offer these protocols, preferred first."""
        tls = self.dialler.tls.offering(*alpn)
        dialler = attrs.evolve(self.dialler, tls=tls)
        # Both call one pair at a time, and use each other's paths: the copy shares the tables of these.
        return attrs.evolve(self, dialler=dialler, meetings=attrs.evolve(self.meetings, tls=tls, dialler=dialler))

    async def connect(
        self, peer: Address, payload: EndpointPayload, *, local: Address | None = None
    ) -> AgentConnection:
        """Race the endpoints of a record, and a meeting at its hubs after their head start.

        Raises NoRoute if there is nothing to try, IdentityMismatch if only strangers answered, and ConnectError
        naming every attempt otherwise.
        """
        source = self.agents.get(local).address
        plan = plan_path(payload)
        addresses = await self._dialable(plan.direct)
        if not addresses and not plan.signals:
            raise NoRoute(_nothing_to_dial(peer, payload))
        # The second half of the head start is for preparing the meeting: most direct dials that work need less.
        half = head_start(self.round_trips()) / 2
        failed = trio.Event()

        async def ready() -> None:
            with trio.move_on_after(half):
                await failed.wait()

        deadline = trio.current_time() + DIRECT_LIMIT
        dial = functools.partial(self._dial_all, peer, local=source, deadline=deadline)
        request = CallRequest(
            peer=peer, hubs=plan.signals, local=source, place=plan.place, ready=ready if addresses else None
        )
        attempts = []
        kept = self.meetings.find_path(request)
        if kept is not None:
            over = functools.partial(self.meetings.call_over, kept, peer, local=source)
            attempts.append(Attempt(f"the path there is, {kept.meeting.description}", over))
        if addresses:
            attempts.append(Attempt("direct", functools.partial(dial, addresses, failed=failed)))
        if plan.signals:
            meet = functools.partial(self._meet, request, plan.deferred, dial)
            attempts.append(Attempt(f"ICE through {', '.join(plan.signals)}", meet))
        try:
            return await race(attempts, stagger=half, discard=_superseded)
        except ConnectError as error:
            ours, theirs = self.meetings.own_side().nat_type, payload.nat_type or 0
            raise _summary(peer, _flat(error.attempts), nats_in_the_way(ours, theirs)) from error

    async def _dial_all(
        self,
        peer: Address,
        addresses: Sequence[SocketAddress],
        *,
        local: Address,
        deadline: float,
        failed: trio.Event | None = None,
    ) -> AgentConnection:
        """Happy Eyeballs: 250 ms apart, and the next at once when one fails (spec 04 §10.3).

        Sets `failed` when all have.
        """

        async def dial(address: SocketAddress) -> AgentConnection:
            with trio.move_on_at(max(deadline, began + SHORTEST_DIAL)):
                return await self.dialler.dial(peer, address, local=local)
            raise ConnectError("it did not answer in time")

        began = trio.current_time()
        attempts = [Attempt(str(address), functools.partial(dial, address)) for address in addresses]
        try:
            return await race(attempts, stagger=CONNECT_STAGGER, discard=_superseded)
        except ConnectError:
            if failed is not None:
                failed.set()
            raise

    async def _meet(
        self,
        request: CallRequest,
        deferred: Sequence[Endpoint],
        dial: Callable[[Sequence[SocketAddress]], Awaitable[AgentConnection]],
    ) -> AgentConnection:
        """Meet at a hub; if no hub brings us together, dial what the NAT in front of the peer may yet let in."""
        peer, hubs = request.peer, request.hubs
        try:
            return await self.meetings.call(request)
        except (SignalingError, ConnectError) as error:
            addresses = await self._dialable(deferred)
            if not addresses or isinstance(error, IdentityMismatch):
                raise
            failed = _flat([AttemptFailure(f"ICE through {', '.join(hubs)}", error)])
        try:
            return await dial(addresses)
        except ConnectError as error:
            raise ConnectError(f"cannot connect to {peer}", (*failed, *error.attempts)) from error

    async def _dialable(self, endpoints: Iterable[Endpoint]) -> list[SocketAddress]:
        """Addresses a packet of ours can get to: no IPv6 from an IPv4-only socket, no port 0."""
        ipv6 = self.dialler.quic.local_address.is_ipv6
        found: list[SocketAddress] = []
        for endpoint in endpoints:
            if (address := endpoint.address) is not None:
                found.append(address)
                continue
            try:
                found += await self.meetings.place.network.resolve(endpoint.host, endpoint.port)
            except OSError as error:
                logger.debug("endpoint %s does not resolve: %s", endpoint.host, error)
        return [address for address in interleave_families(found) if address.port and (ipv6 or not address.is_ipv6)]


def head_start(round_trips: Iterable[float]) -> float:
    """Seconds that direct dials have before ICE begins: 2 s, or several of the longest round trips we know of.

    A direct dial that was not answered in that time is not worth waiting for; it goes on beside ICE.
    """
    longest = max(round_trips, default=ICE_STAGGER)
    return min(ICE_STAGGER, max(SHORTEST_START, HANDSHAKE_TRIPS * longest))


def _flat(attempts: Iterable[AttemptFailure]) -> tuple[AttemptFailure, ...]:
    """Each way that was tried, those inside of a group of attempts included."""
    found: list[AttemptFailure] = []
    for attempt in attempts:
        inner = attempt.error.attempts if isinstance(attempt.error, ConnectError) else ()
        found += inner or (attempt,)
    return tuple(found)


def nats_in_the_way(ours: int, theirs: int) -> str:
    """What to say of the two NATs when a call has failed: empty, or that there may be no direct path between them."""
    names = {NatType.RESTRICTED: "restricted", NatType.PORT_RESTRICTED: "restricted", NatType.SYMMETRIC: "symmetric"}
    if NatType.SYMMETRIC not in (ours, theirs) or not {ours, theirs} <= set(names):
        return ""
    pair = f"our NAT is {names[NatType(ours)]}, the peer's {names[NatType(theirs)]}"
    return f" ({pair}: perhaps only a relay connects them, see turn_servers)"


def _summary(peer: Address, attempts: tuple[AttemptFailure, ...], hint: str) -> ConnectError:
    if attempts and all(isinstance(attempt.error, IdentityMismatch) for attempt in attempts):
        return IdentityMismatch(f"cannot connect to {peer}, somebody else answers", attempts)
    return ConnectError(f"cannot connect to {peer}{hint}", attempts)


def _superseded(connection: AgentConnection) -> None:
    connection.close(0, "superseded by faster candidate")


def _nothing_to_dial(peer: Address, payload: EndpointPayload) -> str:
    if payload.endpoints:
        return f"none of the endpoints {peer} published can be dialled from here: {', '.join(payload.endpoints[:8])}"
    return f"{peer} has published no endpoint"
