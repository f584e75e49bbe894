"""Which named contacts we are willing to send packets to (spec 03 §4 hairpin rule, §20.3, §20.7)."""

from __future__ import annotations

from collections.abc import Iterable

from a2al_trio.dht.addresses import Scope, scope_of
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.nodes import NodeInfo

__all__ = ["ContactFilter"]


class ContactFilter:
    """Drops contacts that are forged, unreachable for our socket, or aimed at somebody's inside."""

    def __init__(self, config: DhtConfig, local_address: SocketAddress) -> None:
        self._config = config
        self._port = local_address.port
        self._ipv4 = not local_address.is_ipv6 or local_address.host == "::"
        self._ipv6 = local_address.is_ipv6
        self.external_hosts: frozenset[str] = frozenset()

    def usable(self, address: SocketAddress) -> bool:
        """Whether we could send there at all."""
        if address.port == 0 or not (self._ipv6 if address.is_ipv6 else self._ipv4):
            return False
        if address.host in self.external_hosts and address.port != self._port:
            return False  # behind our own NAT: unreachable by its outer address
        return scope_of(address.host) is not Scope.UNUSABLE

    def named_by(
        self, responder: SocketAddress, nodes: Iterable[NodeInfo], known: dict[NodeInfo, Contact]
    ) -> list[Contact]:
        """The contacts an answer names that pass: global ones, and others only within the responder's own scope.

        `known` holds the contacts made so far; the answers of one search name mostly the same nodes.
        """
        inner = scope_of(responder.host)
        anywhere = self._config.private_contacts
        found = []
        for info in nodes:
            contact = known.get(info)
            if contact is None:
                contact = Contact.from_info(info)
                if contact is None or not self.usable(contact.address):
                    continue
                known[info] = contact
            scope = scope_of(contact.address.host)
            if scope is Scope.GLOBAL or anywhere or scope is inner:
                found.append(contact)
        return found
