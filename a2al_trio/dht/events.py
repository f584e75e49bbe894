"""What the DHT core tells its driver."""

from __future__ import annotations

import attrs

from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import WaitingMail
from a2al_trio.wire.records import SignedRecord

__all__ = ["DhtEvent", "MailWaiting", "Observation", "PeerUnreachable"]


@attrs.frozen
class Observation:
    """A peer asked over plain UDP says that it saw us at `address`."""

    reporter: NodeId
    reporter_address: SocketAddress
    address: SocketAddress


@attrs.frozen
class PeerUnreachable:
    """A peer no longer answers over UDP, but its endpoint record names a signaling hub (spec 03 §15.2).

    `priority` is 2 for a replica holder of ours, 1 for a replica that just failed, 0 for a peer of a lookup.
    """

    node_id: NodeId
    record: SignedRecord
    priority: int


@attrs.frozen
class MailWaiting:
    """A holder of a publisher's record says that mail waits for it (spec 08 §2.2): a hint to poll."""

    publisher: Address
    mail: tuple[WaitingMail, ...]


DhtEvent = Observation | PeerUnreachable | MailWaiting
