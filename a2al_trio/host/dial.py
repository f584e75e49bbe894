"""Dialling an agent: one address, or all of a record's in a race (spec 04 §10)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

import attrs
import trio

from a2al_trio.errors import (
    A2alError,
    ConnectError,
    ConnectionLost,
    IdentityMismatch,
    NoRoute,
)
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import CONNECT_STAGGER
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.control import ControlReply, greet, read_reply
from a2al_trio.host.service_streams import Offers
from a2al_trio.host.targets import Endpoint, interleave_families, plan_path
from a2al_trio.host.tls import AgentTls
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import PeerRejected, QuicConnection, QuicEndpoint, QuicStream
from a2al_trio.scopes import Attempt, race
from a2al_trio.wire import EndpointPayload

__all__ = ["Dialler", "raise_if_mismatch"]

logger = logging.getLogger(__name__)

REPLY_LIMIT = 10.0
"""Seconds an acceptor has to answer on the control stream; nothing waits for it (spec 04 §5.3 no. 1)."""


@attrs.define
class Dialler:
    """Makes outgoing agent connections; `background` is the nursery of the host that owns this."""

    quic: QuicEndpoint
    agents: AgentTable
    tls: AgentTls
    background: trio.Nursery
    held_sequence: Callable[[Address], int]
    """The highest sequence number of a topic record of that agent held here (spec 04 §5.3 no. 2)."""
    take_reply: Callable[[Address, ControlReply], None]
    made: Callable[[AgentConnection], None]
    """Told of every connection."""

    async def dial(self, peer: Address, address: SocketAddress, *, local: Address | None = None) -> AgentConnection:
        """One direct dial: the handshake proves the peer, then the control stream names it (spec 04 §10.3).

        Raises IdentityMismatch if somebody else answers, ConnectionLost if nobody does or the peer refuses, and
        ConfigurationError for an unknown local agent.
        """
        source = self.agents.get(local)
        tls = self.tls.dialling(peer, source.address)
        try:
            quic = await self.quic.connect(address, tls=tls, server_name=str(peer))
        except ConnectionLost as lost:
            raise_if_mismatch(lost, f"{address} is not {peer}")
            raise
        return await self.introduce(quic, peer, source.address)

    async def introduce(
        self, quic: QuicConnection, peer: Address, local: Address, *, path: Callable[[], str] | None = None
    ) -> AgentConnection:
        """Dialler's first words on a connection whose peer is proven; closes it if they cannot be said.

        `path` tells how the peer is reached if not directly.
        """
        try:
            control = await quic.open_stream()
            await greet(control, peer, self.held_sequence(peer))
        except BaseException:
            quic.close(1, "control stream failed")
            raise
        offers = Offers()
        self.background.start_soon(self._finish_control, control, peer, offers, path is None)
        connection = AgentConnection(quic, local=local, remote=peer, offers=offers, path=path)
        self.made(connection)
        return connection

    async def dial_record(
        self, peer: Address, payload: EndpointPayload, *, local: Address | None = None
    ) -> AgentConnection:
        """Race the endpoints of a record, 250 ms apart and the next at once when one fails (spec 04 §10.3).

        Raises NoRoute if there is nothing to dial, IdentityMismatch if only strangers answered, and ConnectError
        naming every attempt otherwise.
        """
        self.agents.get(local)
        plan = plan_path(payload)
        addresses = await self._resolve((*plan.direct, *plan.deferred))
        addresses = [address for address in addresses if self._can_reach(address)]
        if not addresses:
            raise NoRoute(_nothing_to_dial(peer, payload))
        attempts = [
            Attempt(str(address), functools.partial(self.dial, peer, address, local=local)) for address in addresses
        ]
        try:
            return await race(attempts, stagger=CONNECT_STAGGER, discard=_superseded, goal=f"connect to {peer}")
        except ConnectError as error:
            if error.attempts and all(isinstance(attempt.error, IdentityMismatch) for attempt in error.attempts):
                raise IdentityMismatch(f"cannot connect to {peer}, somebody else answers", error.attempts) from error
            raise

    def _can_reach(self, address: SocketAddress) -> bool:
        """Leave out what no packet of ours can get to: IPv6 from an IPv4-only socket, port 0, multicast."""
        return bool(address.port) and (not address.is_ipv6 or self.quic.local_address.is_ipv6)

    async def _resolve(self, endpoints: Iterable[Endpoint]) -> list[SocketAddress]:
        found: list[SocketAddress] = []
        for endpoint in endpoints:
            if (address := endpoint.address) is not None:
                found.append(address)
                continue
            try:
                answers = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=trio.socket.SOCK_DGRAM)
            except OSError as error:
                logger.debug("endpoint %s does not resolve: %s", endpoint.host, error)
                continue
            found += [SocketAddress.of(str(sockaddr[0]), endpoint.port) for *_, sockaddr in answers]
        return interleave_families(found)

    async def _finish_control(self, control: QuicStream, peer: Address, offers: Offers, direct: bool) -> None:
        try:
            with trio.move_on_after(REPLY_LIMIT):
                try:
                    reply = await read_reply(control, peer)
                    offers.settle(service_streams=reply.service_streams)
                    # Only what is seen of the main socket says something about its address (spec 06 D10).
                    self.take_reply(peer, reply if direct else attrs.evolve(reply, observed=None))
                except A2alError as error:
                    logger.debug("control stream of %s: %s", peer, error)
        finally:
            offers.settle(service_streams=False)


def raise_if_mismatch(lost: ConnectionLost, message: str) -> None:
    """Raise IdentityMismatch if the handshake failed because the peer's certificate proves another AID."""
    if isinstance(lost.__cause__, PeerRejected):
        raise IdentityMismatch(f"{message}: {lost.__cause__}") from lost


def _superseded(connection: AgentConnection) -> None:
    connection.close(0, "superseded by faster candidate")


def _nothing_to_dial(peer: Address, payload: EndpointPayload) -> str:
    if payload.endpoints:
        return f"none of the endpoints {peer} published can be dialled from here: {', '.join(payload.endpoints[:8])}"
    return f"{peer} has published no endpoint"
