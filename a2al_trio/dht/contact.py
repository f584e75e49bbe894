"""A contact: a node and where it can be asked."""

from __future__ import annotations

import attrs

from a2al_trio.dht.addresses import network_of, packed_host, socket_address
from a2al_trio.dht.distance import as_int
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.nodes import NodeInfo

__all__ = ["Contact"]


@attrs.define(eq=False, repr=False)
class Contact:
    """A node id, the address it is the hash of, and a socket address; treat it as immutable.

    `key` is the node id as a number. Two contacts are equal if node and socket address are.
    """

    node_id: NodeId
    node_address: Address
    address: SocketAddress
    key: int

    @classmethod
    def of(cls, node_address: Address, address: SocketAddress) -> Contact:
        """The contact of a node; its id follows from its address."""
        node_id = node_address.node_id
        return cls(node_id, node_address, address, as_int(node_id))

    @classmethod
    def from_info(cls, info: NodeInfo) -> Contact | None:
        """The contact a message names, or None if the id is not that of the address or it cannot be dialled."""
        if info.port == 0 or not info.is_bound:
            return None
        return cls(info.node_id, info.address, socket_address(info.ip, info.port), as_int(info.node_id))

    @property
    def network(self) -> bytes:
        """The /24 or /56 the contact counts for."""
        return network_of(self.address.host)

    def info(self) -> NodeInfo:
        """How messages name the contact."""
        return NodeInfo(self.node_address, self.node_id, packed_host(self.address.host), self.address.port)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contact) and self.key == other.key and self.address == other.address

    def __hash__(self) -> int:
        return hash((self.key, self.address))

    def __repr__(self) -> str:
        return f"<{self.node_id.hex()[:8]} at {self.address}>"
