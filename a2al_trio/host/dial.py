"""Dialling an agent: one address, or all of a record's in a race (spec 04 §10)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from a2al_trio.errors import (
    A2alError,
    ConnectionLost,
    IdentityMismatch,
)
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import HTTP3
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.control import ControlReply, greet, read_reply
from a2al_trio.host.service_streams import Offers
from a2al_trio.host.tls import AgentTls
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import PeerRejected, QuicConnection, QuicEndpoint, QuicStream

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
    take_reply: Callable[[Address, ControlReply, SocketAddress], None]
    """Told what the agent at that address has to say."""
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

        `path` tells how the peer is reached if not directly. HTTP/3 has no place for a control stream: the server
        name has said who is called.
        """
        if quic.alpn == HTTP3:
            connection = AgentConnection(quic, local=local, remote=peer, path=path, background=self.background)
            self.made(connection)
            return connection
        try:
            control = await quic.open_stream()
            await greet(control, peer, self.held_sequence(peer))
        except BaseException:
            quic.close(1, "control stream failed")
            raise
        offers = Offers()
        self.background.start_soon(self._finish_control, control, quic.peer_address, peer, offers, path is None)
        connection = AgentConnection(quic, local=local, remote=peer, offers=offers, path=path)
        self.made(connection)
        return connection

    async def _finish_control(
        self, control: QuicStream, source: SocketAddress, peer: Address, offers: Offers, direct: bool
    ) -> None:
        try:
            with trio.move_on_after(REPLY_LIMIT):
                try:
                    reply = await read_reply(control, peer)
                    offers.settle(service_streams=reply.service_streams)
                    # Only what is seen of the main socket says something about its address (spec 06 D10).
                    self.take_reply(peer, reply if direct else attrs.evolve(reply, observed=None), source)
                except A2alError as error:
                    logger.debug("control stream of %s: %s", peer, error)
        finally:
            offers.settle(service_streams=False)


def raise_if_mismatch(lost: ConnectionLost, message: str) -> None:
    """Raise IdentityMismatch if the handshake failed because the peer's certificate proves another AID."""
    if isinstance(lost.__cause__, PeerRejected):
        raise IdentityMismatch(f"{message}: {lost.__cause__}") from lost
