"""Mutual TLS between agents: certificates are judged by the AID they prove, nothing else (spec 04 §4)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import attrs

from a2al_trio.errors import IdentityMismatch
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import ALPN
from a2al_trio.host.web import WebDoor
from a2al_trio.identity import Address, InvalidCertificate, peer_address, verify_peer
from a2al_trio.quic import ClientAuthentication, ClientOffer, ClientTls, PeerRejected, ServerTls

__all__ = ["AgentTls"]


class AgentTls:
    """Makes the TLS settings for dialling and accepting as one of the host's agents."""

    def __init__(
        self,
        agents: AgentTable,
        *,
        unix_time: Callable[[], float],
        tolerance: int,
        keylog: Callable[[str], None] | None = None,
    ) -> None:
        self._agents = agents
        self._keylog = keylog
        self._unix_time = unix_time
        self._tolerance = tolerance
        self._offers: tuple[str, ...] = (ALPN,)
        self.web = WebDoor(agents)
        """Who gets callers that speak HTTP/3."""

    def offering(self, *alpn: str) -> AgentTls:
        """The same, but for dials that offer these protocols, preferred first."""
        other = copy.copy(self)
        other._offers = alpn
        return other

    def dialling(self, peer: Address, local: Address | None) -> ClientTls:
        """Settings for a dial: the peer must prove to be `peer` (spec 04 §4.6, §17 D2–D3)."""

        def verify(chain: Sequence[bytes], _server_name: str | None) -> None:
            try:
                verify_peer(chain, peer, now=self._unix_time(), tolerance=self._tolerance)
            except (InvalidCertificate, IdentityMismatch) as error:
                raise PeerRejected(str(error)) from error

        credentials = self._agents.credentials(local)
        return ClientTls(alpn=self._offers, credentials=credentials, verify_peer=verify, keylog=self._keylog)

    def accepting(self) -> ServerTls:
        """Settings for the listener: every caller must prove its AID before anything else (§17 D1, D3).

        Those who speak HTTP/3 get the settings of `web`, while it is served.
        """

        def verify(chain: Sequence[bytes], _server_name: str | None) -> None:
            try:
                self.address_of(chain)
            except InvalidCertificate as error:
                raise PeerRejected(str(error)) from error

        agents_only = ServerTls(
            alpn=(ALPN,),
            select_credentials=self._agents.select_credentials,
            client_authentication=ClientAuthentication.REQUIRED,
            verify_peer=verify,
            keylog=self._keylog,
        )

        def adapt(offer: ClientOffer) -> ServerTls:
            return self.web.settings(agents_only, offer) or agents_only

        return attrs.evolve(agents_only, adapt=adapt)

    def address_of(self, chain: Sequence[bytes]) -> Address:
        """The AID a certificate chain proves; raises InvalidCertificate."""
        return peer_address(chain, now=self._unix_time(), tolerance=self._tolerance)
