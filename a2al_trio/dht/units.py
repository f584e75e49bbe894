"""What a publisher keeps alive: one unit per record slot, with the nodes that confirmed to hold it (spec 03 §12.2)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.timers import Timer
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.records import RecordCategory, SignedRecord

__all__ = ["PROBE_FIRST", "RETRY_REFILL", "Publication", "Replica", "Unit", "UnitName", "unit_name"]

PROBE_FIRST = 30.0
RETRY_REFILL = (15.0, 600.0)


@attrs.frozen
class Publication:
    """What became of a published record: who holds it now, and how many refused it."""

    key: NodeId
    record: SignedRecord
    replicas: tuple[NodeId, ...]
    refused: int


@attrs.define(eq=False)
class Replica:
    """A node that confirmed to hold the record."""

    contact: Contact
    confirmed_at: float
    next_probe: float
    delay: float = PROBE_FIRST
    failures: int = 0


UnitName = tuple[object, ...]


def unit_name(key: bytes, record: SignedRecord) -> UnitName:
    """What a record shares with its successors under a key."""
    if record.category is RecordCategory.MAILBOX:
        return (key, record.record_type, record.address, record.payload)
    return (key, record.record_type, record.address)


@attrs.define(eq=False)
class Unit:
    """A record we keep alive."""

    key: NodeId
    record: SignedRecord
    width: int
    replicas: dict[int, Replica] = attrs.Factory(dict)
    running: bool = False
    again: bool = False
    refused: int = 0
    refill_delay: float = RETRY_REFILL[0]
    refill_timer: Timer | None = None
    probe_timer: Timer | None = None
    waiting: list[Callable[[Publication], None]] = attrs.Factory(list)

    def publication(self) -> Publication:
        """The present state, as the publisher sees it."""
        holders = tuple(replica.contact.node_id for replica in self.replicas.values())
        return Publication(self.key, self.record, holders, self.refused)
