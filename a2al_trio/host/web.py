"""HTTP/3 at the host's door: who is offered it, under which certificate, and who gets the connections.

An HTTP/3 connection has no control stream (RFC 9114 leaves no room for one): the server name alone says which agent
is called, and the certificate shown for it is that agent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import attrs
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import HTTP3
from a2al_trio.identity import Address
from a2al_trio.quic import ClientAuthentication, ClientOffer, Credentials, QuicConnection, ServerTls

__all__ = ["WebAgent", "WebConnection", "WebDoor"]

ACCEPT_QUEUE = 32
"""HTTP/3 connections that wait to be served."""
ED25519 = 0x0807
"""The one kind of signature that agents make, by its number of RFC 8446 §4.2.3."""


def _lower(names: Iterable[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise ConfigurationError(f"WebAgent.names: write a list, such as [{names!r}]")
    return frozenset(name.lower() for name in names)


@attrs.frozen(kw_only=True)
class WebAgent:
    """How an agent meets HTTP/3 clients that know nothing of agents, such as browsers and curl."""

    agent: Address
    """An agent of this host."""

    client_cert: Literal["required", "optional"] = "required"
    """"optional" lets clients connect without proving an AID. What such an anonymous caller may do is for
    `Host.access` to say, which refuses it unless told otherwise."""

    names: frozenset[str] = attrs.field(default=(), converter=_lower)
    """Host names that mean this agent, besides its AID."""

    credentials: Credentials | None = None
    """The certificate shown to who asks for one of `names`, or does not understand the agent's own (browsers do not
    take Ed25519). None shows the agent's own to all."""

    def __attrs_post_init__(self) -> None:
        if self.client_cert not in ("required", "optional"):
            raise ConfigurationError(f'WebAgent.client_cert is "required" or "optional", not {self.client_cert!r}')


@attrs.frozen(eq=False)
class WebConnection:
    """An incoming HTTP/3 connection."""

    quic: QuicConnection
    local: Address
    """The agent that is called."""
    remote: Address | None
    """The caller, as its certificate proves; None for an anonymous one."""
    path: str
    """How the caller is reached, in words, as in `AgentConnection.path`."""


class WebDoor:
    """Offers HTTP/3 to callers while somebody serves it."""

    def __init__(self, agents: AgentTable) -> None:
        self._agents = agents
        self._terms: dict[Address, WebAgent] = {}
        self._servers = 0
        self._ready = trio.open_memory_channel[WebConnection](ACCEPT_QUEUE)

    @contextmanager
    def open(self, web: Iterable[WebAgent]) -> Iterator[trio.MemoryReceiveChannel[WebConnection]]:
        """Offer HTTP/3 for the length of a block; yields where connections come.

        Raises ConfigurationError for an agent that is not of this host, or has terms already, and for a host name
        that two of them have.
        """
        terms = list(web)
        for term in terms:
            self._agents.get(term.agent)
        taken = [str(term.agent) for term in terms if term.agent in self._terms]
        if taken or len({term.agent for term in terms}) < len(terms):
            raise ConfigurationError(f"one WebAgent for each agent, please: {', '.join(taken) or 'one comes twice'}")
        names = [name for term in (*self._terms.values(), *terms) for name in term.names]
        if shared := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigurationError(f"a host name means one agent, but several have {', '.join(shared)}")
        self._terms |= {term.agent: term for term in terms}
        self._servers += 1
        try:
            yield self._ready[1]
        finally:
            self._servers -= 1
            for term in terms:
                del self._terms[term.agent]
            if not self._servers:
                self._turn_away()

    def close(self) -> None:
        """Nobody will come any more: tell so those who serve."""
        self._turn_away()
        self._ready[1].close()

    def hand_over(self, connection: WebConnection) -> bool:
        """Give a connection to whoever serves; False if nobody does any more, or too many wait already."""
        if not self._servers:
            return False
        try:
            self._ready[0].send_nowait(connection)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return False
        return True

    def _turn_away(self) -> None:
        """Close what waits to be served."""
        while True:
            try:
                connection = self._ready[1].receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                return
            connection.quic.close(0, "")

    def agent_named(self, server_name: str | None) -> Address:
        """The agent that a server name means; the default one unless it names another of ours."""
        name = (server_name or "").lower()
        for term in self._terms.values():
            if name in term.names:
                return term.agent
        return self._agents.named(server_name)

    def settings(self, base: ServerTls, offer: ClientOffer) -> ServerTls | None:
        """TLS settings for a client that speaks HTTP/3, made from those for agents; None if it is not offered."""
        if not self._servers or HTTP3 not in offer.alpn:
            return None
        agent = self.agent_named(offer.server_name)
        terms = self._terms.get(agent) or WebAgent(agent=agent)
        credentials = self._agents.credentials(agent)
        by_name = (offer.server_name or "").lower() in terms.names
        if terms.credentials is not None and (by_name or ED25519 not in offer.signature_schemes):
            credentials = terms.credentials
        optional = terms.client_cert == "optional"
        return attrs.evolve(
            base,
            alpn=(HTTP3,),
            credentials=credentials,
            select_credentials=None,
            client_authentication=ClientAuthentication.OPTIONAL if optional else ClientAuthentication.REQUIRED,
            adapt=None,
        )
