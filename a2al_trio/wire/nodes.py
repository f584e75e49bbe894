"""How nodes name each other in answers (spec 02 §6, NodeInfo)."""

from __future__ import annotations

import functools
from typing import Self

import attrs

from a2al_trio.cbor import CborValue, head
from a2al_trio.identity import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.errors import InvalidMessage, WireEncodeError
from a2al_trio.wire.observed import host_from_ip, ip_from_host

__all__ = ["NodeInfo", "node_from_map"]


@attrs.frozen
class NodeInfo:
    """A node as another one describes it: hearsay until the node itself has answered.

    `ip` is 4 or 16 bytes. Port 0 may occur and means nothing.
    """

    address: Address
    node_id: NodeId
    ip: bytes
    port: int

    @classmethod
    def of(cls, address: Address, socket_address: SocketAddress) -> Self:
        """Describe the node of `address`. Raises WireEncodeError if the host is not an IP address."""
        return cls(address, address.node_id, ip_from_host(socket_address.host), socket_address.port)

    @functools.cached_property
    def is_bound(self) -> bool:
        """Whether the NodeID is that of the address; drop nodes where it is not (spec 02 §15.2 item 1)."""
        return self.node_id == self.address.node_id

    @functools.cached_property
    def socket_address(self) -> SocketAddress:
        """Where the node is said to be."""
        return SocketAddress(host_from_ip(self.ip), self.port)

    @functools.cached_property
    def encoded(self) -> bytes:
        """The canonical map: 69 bytes for IPv4, 81 for IPv6. Raises WireEncodeError for wrong lengths."""
        if len(self.address) != 21 or len(self.node_id) != 32 or len(self.ip) not in (4, 16):
            raise WireEncodeError("a node's address, NodeID and IP address have 21, 32 and 4 or 16 bytes")
        if not 0 <= self.port <= 0xFFFF:
            raise WireEncodeError(f"port {self.port} is not in 0..65535")
        ip_head = b"\x03\x44" if len(self.ip) == 4 else b"\x03\x50"
        parts = (b"\xa4\x01\x55", self.address, b"\x02\x58\x20", self.node_id, ip_head, self.ip, b"\x04")
        return b"".join(parts) + head(0, self.port)


def node_from_map(fields: CborValue) -> NodeInfo:
    """The node in a decoded map. Raises InvalidMessage."""
    if not isinstance(fields, dict):
        raise InvalidMessage("a node is not a map")
    address, node_id, ip, port = fields.get(1), fields.get(2), fields.get(3), fields.get(4)
    if not isinstance(address, bytes) or len(address) != 21:
        raise InvalidMessage("node address is not 21 bytes")
    if not isinstance(node_id, bytes) or len(node_id) != 32:
        raise InvalidMessage("NodeID is not 32 bytes")
    if not isinstance(ip, bytes) or len(ip) not in (4, 16):
        raise InvalidMessage("node IP address is not 4 or 16 bytes")
    if type(port) is not int or not 0 <= port <= 0xFFFF:
        raise InvalidMessage("node port is not a 16-bit number")
    return _node(address, node_id, ip, port)


@functools.lru_cache(maxsize=4096)
def _node(address: bytes, node_id: bytes, ip: bytes, port: int) -> NodeInfo:
    """One object per node: answers name the same few hundred over and over."""
    return NodeInfo(Address(address), NodeId(node_id), ip, port)
