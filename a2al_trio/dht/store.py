"""The record store (spec 03 §11, with §20.15-18 as rules).

A signature is checked once, when a record enters. Afterwards only time matters: what expired is never served and
is swept in order of expiry. Memory is bounded in keys and bytes, and what one network or one publisher may hold is
bounded too, so that a flood displaces only what came the same way. Records this node publishes are pinned.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator

import attrs

from a2al_trio.dht.config import StoreLimits
from a2al_trio.dht.slots import Held, category_of, slot_of, surplus
from a2al_trio.errors import A2alError
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.wire.content import check_content_key
from a2al_trio.wire.errors import InvalidRecord
from a2al_trio.wire.records import (
    RecordCategory,
    RecordType,
    SignedRecord,
    Verify,
    check_authority,
    check_record,
    check_record_time,
    is_newer,
)

__all__ = [
    "Authority",
    "KeyMismatch",
    "PolicyRefused",
    "RecordStore",
    "StaleRecord",
    "StoreUsage",
    "standard_authority",
]

Authority = Callable[[SignedRecord, NodeId, int], int | None]
"""Raises if the signer may not publish the record under that key at that Unix time; else until when it may."""
OVERHEAD_BYTES = 1300
"""What one record costs beside its encoded bytes, in the store and in the duties of a holder; measured."""
HEARSAY_LIFETIME = 120
"""Seconds a record from a stranger is believed without a word from its publisher (spec 08 §2.3)."""
EVICTION_SAMPLE = 16
ZERO_KEY = bytes(32)


class StaleRecord(A2alError):
    """An equal or newer record is already held."""


class KeyMismatch(InvalidRecord):
    """The record does not belong under that key."""


class PolicyRefused(A2alError):
    """This node has no room for the record, by its own policy."""


@attrs.frozen
class StoreUsage:
    """What the store holds."""

    keys: int
    records: int
    encoded_bytes: int


class RecordStore:
    """Records by key. `authority` is asked after integrity; None accepts any signer.

    `own` is this node's id: when the store is full, what lies far from it goes first (spec 03 §20.17).
    """

    def __init__(
        self, limits: StoreLimits, *, verify: Verify, authority: Authority | None = None, own: int = 0
    ) -> None:
        self._limits = limits
        self._own = own
        self._verify = verify
        self._authority = authority
        self._keys: OrderedDict[bytes, list[Held]] = OrderedDict()
        self._expiry: list[tuple[int, int, Held]] = []
        self._made = 0
        self._records = 0
        self._bytes = 0
        self._source_bytes: dict[bytes, int] = {}
        self._by_source: dict[bytes, OrderedDict[Held, None]] = {}
        self._by_publisher: dict[bytes, list[Held]] = {}
        self._weights: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def usage(self) -> StoreUsage:
        """How much is held."""
        return StoreUsage(len(self._keys), self._records, self._bytes)

    # -- admission ---------------------------------------------------------------------------------------------

    def put(
        self,
        record: SignedRecord,
        now: int,
        *,
        key: NodeId | None = None,
        source: bytes = b"",
        pinned: bool = False,
        hearsay: bool = False,
    ) -> Held:
        """Admit a record; `now` is Unix time, `source` the network it came from.

        `hearsay` says that a stranger stores it: into an empty slot it goes for two minutes only, see `confirm`.

        Raises InvalidRecord (RecordExpired, RecordNotYetValid, KeyMismatch ...), StaleRecord or PolicyRefused.
        """
        key = record.address.node_id if key is None or key == ZERO_KEY else key
        if self._is_held(record, key, now):
            raise StaleRecord("this very record is already held")
        check_record_time(record, now=now, tolerance=self._limits.clock_tolerance)
        if category_of(record.record_type) is RecordCategory.SOVEREIGN and key != record.address.node_id:
            raise KeyMismatch("a sovereign record belongs under the id of its own address")
        if not pinned:
            self._check_quota(record, key, source, now)  # before the signature, so that a flood costs little
        check_record(record, now=now, tolerance=self._limits.clock_tolerance, verify=self._verify)
        ends = None
        if self._authority is not None:
            ends = self._authority(record, key, now)
        if self._limits.bind_content_to_key:
            check_content_key(record, key)
        until = self._retained_until(record, now)
        if ends is not None:
            until = min(until, ends - 1)
        return self._merge(Held(record, key, source, until, now, pinned=pinned), now, hearsay=hearsay)

    def _is_held(self, record: SignedRecord, key: bytes, now: int) -> bool:
        """Whether exactly these bytes are held; then no signature needs checking again."""
        for held in self._keys.get(key, ()):
            if held.record.signature == record.signature and held.record.encoded == record.encoded:
                if held.until < now:
                    return False
                held.refreshed_at = now
                return True
        return False

    def _merge(self, held: Held, now: int, *, hearsay: bool) -> Held:
        record, key = held.record, held.key
        self._drop_expired(key, now)
        former = self._former(record, key)
        if former is not None and not is_newer(record, former.record):
            raise StaleRecord("an equal or newer record is already held")
        if hearsay and (former is None or former.lasting is not None):
            held.lasting, held.until = held.until, min(held.until, now + HEARSAY_LIFETIME)
        if former is not None:
            self._remove(former)
        self._add(held)
        for victim in surplus(self._keys[key], held, self._limits):
            self._remove(victim)
        self._shrink(held)
        return held

    def _former(self, record: SignedRecord, key: bytes) -> Held | None:
        """What is in the record's slot."""
        records = self._keys.get(key)
        if not records:
            return None
        slot = slot_of(record)
        return next((held for held in records if slot_of(held.record) == slot), None)

    def confirm(self, held: Held) -> None:
        """The publisher of a record that came by hearsay has been heard of: it stays as long as any."""
        if held.alive and held.lasting is not None:
            held.until, held.lasting = held.lasting, None
            self._expire_later(held)

    def confirm_stored(self, record: SignedRecord, key: bytes) -> None:
        """The same, because somebody who is believed has stored the very record that is held."""
        for held in self._keys.get(key, ()):
            if held.lasting is not None and held.record.signature == record.signature:
                self.confirm(held)

    def _retained_until(self, record: SignedRecord, now: int) -> int:
        limits = self._limits
        retention = {
            RecordCategory.TOPIC: limits.retention_topic,
            RecordCategory.MAILBOX: limits.retention_mailbox,
        }.get(category_of(record.record_type), limits.retention_sovereign)
        return min(record.timestamp + record.ttl, now + retention)

    def _check_quota(self, record: SignedRecord, key: bytes, source: bytes, now: int) -> None:
        """Refuse what would exceed the share of its network or publisher."""
        size = _size(record)
        published = self._by_publisher.get(record.address)
        in_share = size + sum(_size(held.record) for held in published) if published else size
        in_network = self._source_bytes.get(source, 0) + size if source else 0
        if in_share <= self._limits.per_publisher_bytes and in_network <= self._limits.per_source_bytes:
            return
        if key in self._keys:
            self._drop_expired(key, now)
        former = self._former(record, key)
        if former is not None:
            if not is_newer(record, former.record):
                return  # it will not be held in any case
            in_share -= _size(former.record)
            if former.source == source:
                in_network -= _size(former.record)
        if in_share > self._limits.per_publisher_bytes:
            raise PolicyRefused("the publisher's share of this node's store is used up")
        if in_network > self._limits.per_source_bytes:
            raise PolicyRefused("the sender network's share of this node's store is used up")

    def _shrink(self, newcomer: Held) -> None:
        """Return within the limits at the cost of the network that holds most."""
        limits = self._limits
        while self._bytes > limits.max_bytes or len(self._keys) > limits.max_keys:
            victim = self._heaviest()
            if victim is None:
                return
            self._remove(victim)
            if victim is newcomer:
                raise PolicyRefused("this node's store is full")

    def _heaviest(self) -> Held | None:
        """Of the oldest records of the network with most bytes the one farthest from us; without sources, one of the
        least recently used key.
        """
        weights = self._weights
        while weights:
            weight, source = weights[0]
            actual = self._source_bytes.get(source, 0)
            if actual == -weight and self._by_source.get(source):
                oldest = itertools.islice(self._by_source[source], EVICTION_SAMPLE)
                return max(oldest, key=lambda held: int.from_bytes(held.key, "big") ^ self._own)
            heapq.heappop(weights)
            if actual:
                heapq.heappush(weights, (-actual, source))
        for records in self._keys.values():
            for held in records:
                if not held.pinned:
                    return held
        return None

    # -- bookkeeping -------------------------------------------------------------------------------------------

    def _add(self, held: Held) -> None:
        records = self._keys.setdefault(held.key, [])
        category = category_of(held.record.record_type)
        # Records of the touched category end up behind those of the others (spec 03 §11.2).
        records.sort(key=lambda each: category_of(each.record.record_type) is category)
        records.append(held)
        self._keys.move_to_end(held.key)
        self._expire_later(held)
        size = _size(held.record)
        self._records += 1
        self._bytes += size
        self._by_publisher.setdefault(held.record.address, []).append(held)
        if held.source and not held.pinned:
            self._source_bytes[held.source] = self._source_bytes.get(held.source, 0) + size
            self._by_source.setdefault(held.source, OrderedDict())[held] = None
            heapq.heappush(self._weights, (-self._source_bytes[held.source], held.source))
            if len(self._weights) > 64 + 4 * len(self._source_bytes):
                self._weights = [(-weight, source) for source, weight in self._source_bytes.items()]
                heapq.heapify(self._weights)
        if len(self._expiry) > 64 + 2 * self._records:
            self._expiry = [each for each in self._expiry if each[2].alive]
            heapq.heapify(self._expiry)

    def _expire_later(self, held: Held) -> None:
        self._made += 1
        heapq.heappush(self._expiry, (held.until, self._made, held))

    def _remove(self, held: Held) -> None:
        if not held.alive:
            return
        held.alive = False
        records = self._keys[held.key]
        records.remove(held)
        if not records:
            del self._keys[held.key]
        size = _size(held.record)
        self._records -= 1
        self._bytes -= size
        publisher = held.record.address
        self._by_publisher[publisher].remove(held)
        if not self._by_publisher[publisher]:
            del self._by_publisher[publisher]
        if held.source and not held.pinned:
            _subtract(self._source_bytes, held.source, size)
            del self._by_source[held.source][held]
            if not self._by_source[held.source]:
                del self._by_source[held.source]

    def _drop_expired(self, key: bytes, now: int) -> None:
        for held in [held for held in self._keys.get(key, ()) if held.until < now]:
            self._remove(held)

    def sweep(self, now: int) -> int:
        """Drop all that expired before `now` (Unix time); returns how many records went."""
        dropped = 0
        while self._expiry and (self._expiry[0][0] < now or not self._expiry[0][2].alive):
            held = heapq.heappop(self._expiry)[2]
            if held.alive and held.until < now:
                self._remove(held)
                dropped += 1
        return dropped

    # -- reading -----------------------------------------------------------------------------------------------

    def held(self, key: bytes, now: int, record_type: int = 0) -> list[Held]:
        """Live records under a key in order of insertion; type 0 means any."""
        records = self._keys.get(key)
        if records is None:
            return []
        live = [held for held in records if held.until >= now]
        return [held for held in live if held.record.record_type == record_type] if record_type else live

    def get(self, key: bytes, now: int, record_type: int = 0) -> list[SignedRecord]:
        """The records of `held`."""
        return [held.record for held in self.held(key, now, record_type)]

    def endpoint(self, key: bytes, now: int) -> SignedRecord | None:
        """The endpoint record under a key."""
        newest: SignedRecord | None = None
        for record in self.get(key, now, RecordType.ENDPOINT):
            if newest is None or is_newer(record, newest):
                newest = record
        return newest

    def published_by(self, publisher: Address, now: int, record_type: int = 0) -> list[SignedRecord]:
        """All live records of one publisher."""
        return [
            held.record
            for held in self._by_publisher.get(publisher, ())
            if held.until >= now and (record_type in {0, held.record.record_type})
        ]

    def invalidate(self, key: bytes, record_type: int = 0) -> int:
        """Drop the records under a key that we do not publish ourselves; returns how many."""
        doomed = [
            held
            for held in self._keys.get(key, ())
            if not held.pinned and (record_type in {0, held.record.record_type})
        ]
        for held in doomed:
            self._remove(held)
        return len(doomed)

    def unpin(self, publisher: Address, record_type: int = 0, key: NodeId | None = None) -> None:
        """Drop a publisher's own records: all, or those of one type or under one key."""
        for held in list(self._by_publisher.get(publisher, ())):
            wanted = record_type in {0, held.record.record_type} and key in {None, held.key}
            if held.pinned and wanted:
                self._remove(held)

    def __iter__(self) -> Iterator[Held]:
        for records in list(self._keys.values()):
            yield from list(records)


def _size(record: SignedRecord) -> int:
    return len(record.encoded) + OVERHEAD_BYTES


def _subtract(totals: dict[bytes, int], name: bytes, amount: int) -> None:
    totals[name] -= amount
    if totals[name] <= 0:
        del totals[name]


def standard_authority(tolerance: int) -> Authority:
    """The authority rule of spec 04 §13, with a clock tolerance in seconds for delegations."""

    def check(record: SignedRecord, key: NodeId, now: int) -> int | None:
        return check_authority(record, key, now=now, tolerance=tolerance)

    return check
