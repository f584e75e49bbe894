"""The agents of one host: who they are, which certificate each shows (spec 04 §4, §7)."""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import (
    Address,
    Identity,
    InvalidAddress,
    certificate_renewal_time,
    make_certificate,
)
from a2al_trio.quic import Credentials
from a2al_trio.signaling import prove_registration

__all__ = ["AgentTable"]


@attrs.define
class _Agent:
    identity: Identity
    credentials: Credentials
    renew_at: float


class AgentTable:
    """The registered agents; the default one answers callers who name nobody.

    `unix_time` gives wall time: certificates carry it, and are renewed before they age (spec 04 §17 D19).
    """

    def __init__(self, default: Identity, *, unix_time: Callable[[], float], tolerance: int) -> None:
        self._unix_time = unix_time
        self._tolerance = tolerance
        self._agents: dict[Address, _Agent] = {}
        self._default = default.address
        self.register(default)

    @property
    def default(self) -> Identity:
        """The agent whose key also signs DHT messages."""
        return self._agents[self._default].identity

    @property
    def addresses(self) -> frozenset[Address]:
        """All registered AIDs, the default agent's included."""
        return frozenset(self._agents)

    def register(self, identity: Identity) -> None:
        """Add an agent; raises ConfigurationError if it is there already or its proof does not hold."""
        if identity.address in self._agents:
            raise ConfigurationError(f"agent {identity.address} is registered already")
        identity.check(now=self._unix_time(), tolerance=self._tolerance)
        self._agents[identity.address] = self._certify(identity)

    def unregister(self, address: Address) -> None:
        """Remove an agent; unknown ones and the default agent are left alone (spec 04 §7)."""
        if address != self._default:
            self._agents.pop(address, None)

    def get(self, address: Address | None) -> Identity:
        """Look up an agent, None being the default one; raises ConfigurationError for an unknown AID."""
        agent = self._agents.get(self._default if address is None else address)
        if agent is None:
            raise ConfigurationError(f"{address} is not an agent of this host; register it first")
        return agent.identity

    def prove(self, aid: str, hub: str) -> str:
        """Prove to the signaling hub `host:port` that an agent registers itself; empty for one that is gone."""
        agent = self._agents.get(Address.parse(aid))
        if agent is None:
            return ""
        return prove_registration(agent.identity, hub, unix_time=int(self._unix_time()))

    def credentials(self, address: Address | None) -> Credentials:
        """The certificate and key the agent shows, made anew when the old one ages."""
        identity = self.get(address)
        agent = self._agents[identity.address]
        if self._unix_time() >= agent.renew_at:
            agent = self._agents[identity.address] = self._certify(identity)
        return agent.credentials

    def named(self, server_name: str | None) -> Address:
        """The agent that a server name (SNI) means; the default one unless it names another of ours."""
        try:
            address = Address.parse(server_name or "")
        except InvalidAddress:
            return self._default
        return address if address in self._agents else self._default

    def select_credentials(self, server_name: str | None) -> Credentials:
        """What an acceptor shows to a dialer that sent this server name (spec 04 §4.4)."""
        return self.credentials(self.named(server_name))

    def _certify(self, identity: Identity) -> _Agent:
        certificate = make_certificate(identity, now=self._unix_time(), entropy=os.urandom)
        key = Ed25519PrivateKey.from_private_bytes(identity.key.seed)
        credentials = Credentials(chain=(certificate,), private_key=key)
        return _Agent(identity, credentials, certificate_renewal_time(certificate))
