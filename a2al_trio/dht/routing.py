"""The routing table (spec 03 §3, with §20.1-10 as rules).

256 buckets by shared prefix. A bucket's main list holds only contacts that proved their address by a round trip,
least recently proven first; everything else waits in a short list of replacements, from which a contact enters main
once it is proven and there is room. A full bucket never gives way to a newcomer before its least recently proven
entry has failed a check, and that check happens elsewhere: the table only says which entry it would like checked.
Old contacts are thereby preferred, and hearsay can neither displace nor redirect anybody.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from a2al_trio.dht.addresses import is_exempt
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import ID_BITS
from a2al_trio.net.address import SocketAddress

__all__ = ["Admission", "Bucket", "Entry", "Refill", "Replacement", "RoutingTable", "SizeEstimate"]


class Admission(enum.Enum):
    """What became of a proven contact."""

    ADDED = "added"
    REFRESHED = "refreshed"
    WAITING = "waiting"
    """The bucket is full: it waits among the replacements until an entry fails its check."""
    REFUSED = "refused"
    """It is ourselves, or its network already has its share."""


@attrs.define(eq=False)
class Entry:
    """A contact in the main list; `routed` marks one that was only reached over a punched connection."""

    contact: Contact
    added_at: float
    verified_at: float
    failures: int = 0
    routed: bool = False
    limited: bool = True
    encoded: bytes | None = None


@attrs.define(eq=False)
class Replacement:
    """A contact waiting for room; `verified_at` is None for hearsay."""

    contact: Contact
    arrived_at: float
    verified_at: float | None = None


@attrs.define(eq=False)
class Refill:
    """When a region of the table was last searched for more contacts, how many it had then, and how often in vain."""

    at: float = float("-inf")
    members: int = 0
    futile: int = 0


@attrs.define(eq=False)
class Bucket:
    """One bucket: entries least recently proven first, replacements oldest first."""

    main: list[Entry] = attrs.Factory(list)
    waiting: list[Replacement] = attrs.Factory(list)
    checking: bool = False
    refill: Refill = attrs.Factory(Refill)


@attrs.frozen
class SizeEstimate:
    """How many nodes the network seems to have, and how far to trust that (0 to 1)."""

    nodes: int
    confidence: float


class RoutingTable:
    """The contacts of one node."""

    def __init__(self, own: int, config: DhtConfig) -> None:
        self.own = own
        self._config = config
        self._buckets: dict[int, Bucket] = {}
        self._order: list[int] = []
        self._entries: dict[int, Entry] = {}
        self._networks: Counter[bytes] = Counter()
        self._by_address: dict[SocketAddress, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, key: int) -> Entry | None:
        """The main entry of a node."""
        return self._entries.get(key)

    def at_address(self, address: SocketAddress) -> Entry | None:
        """The entry proven to be at that socket address."""
        return self._by_address.get(address)

    def index(self, key: int) -> int:
        """The bucket a node belongs to."""
        return ID_BITS - (self.own ^ key).bit_length()

    def buckets(self) -> list[tuple[int, Bucket]]:
        """All buckets that hold or held something, far ones first."""
        return [(index, self._buckets[index]) for index in self._order]

    def bucket(self, index: int) -> Bucket:
        """The bucket with that index."""
        found = self._buckets.get(index)
        if found is None:
            found = self._buckets[index] = Bucket()
            insort(self._order, index)
        return found

    # -- admission ---------------------------------------------------------------------------------------------

    def prove(self, contact: Contact, now: float, *, routed: bool = False) -> Admission:
        """A round trip showed that the node is at the contact's address.

        `routed` says that the round trip went over a punched connection: such a contact only takes free room and
        never changes the address of a known one (spec 03 §3.3).
        """
        if contact.key == self.own:
            return Admission.REFUSED
        entry = self._entries.get(contact.key)
        bucket = self.bucket(self.index(contact.key))
        if entry is not None:
            if routed and not entry.routed:
                return Admission.REFRESHED  # says nothing about the address others would use
            if not routed and not self._move(entry, contact):
                return Admission.REFUSED
            entry.verified_at = max(entry.verified_at, now)
            entry.failures = 0
            bucket.main.remove(entry)
            bucket.main.append(entry)
            return Admission.REFRESHED
        self._forget_waiting(bucket, contact.key)
        self._displace_tenant(contact, routed=routed)
        if not self._allows(bucket, contact):
            return Admission.REFUSED
        if len(bucket.main) < self._config.bucket_size:
            self._admit(bucket, contact, now, routed=routed)
            return Admission.ADDED
        if routed:
            return Admission.REFUSED
        tenant = next((held for held in bucket.main if held.routed), None)
        if tenant is not None:
            self._expel(bucket, tenant)
            self._admit(bucket, contact, now, routed=False)
            return Admission.ADDED
        self._wait(bucket, Replacement(contact, now, verified_at=now))
        return Admission.WAITING

    def hear(self, contact: Contact, now: float) -> bool:
        """Somebody named the contact; returns whether it now waits among the replacements."""
        if contact.key == self.own or contact.key in self._entries or contact.address in self._by_address:
            return False
        bucket = self.bucket(self.index(contact.key))
        if any(held.contact.key == contact.key for held in bucket.waiting):
            return False
        if not self._allows(bucket, contact):
            return False
        self._wait(bucket, Replacement(contact, now))
        return True

    def _wait(self, bucket: Bucket, newcomer: Replacement) -> None:
        """Queue a replacement; a full list loses its oldest hearsay first, then its oldest."""
        waiting = bucket.waiting
        if len(waiting) >= self._config.replacements:
            oldest = next((held for held in waiting if held.verified_at is None), None)
            if oldest is None:
                if newcomer.verified_at is None:
                    return
                oldest = waiting[0]
            waiting.remove(oldest)
        waiting.append(newcomer)

    def _allows(self, bucket: Bucket, contact: Contact) -> bool:
        """Whether the contact's network has room in bucket and table."""
        limits = self._config.diversity
        if is_exempt(contact.address.host, limits.exempt):
            return True
        network = contact.network
        in_table = self._networks.get(network)
        if not in_table:
            return True  # the usual case on the Internet, and asked for every contact anybody names
        if in_table >= limits.per_table:
            return False
        held = sum(1 for entry in bucket.main if entry.limited and entry.contact.network == network)
        return held < limits.per_bucket

    def has_room_for(self, contact: Contact) -> bool:
        """Whether the contact's network still has room in its bucket and in the table."""
        return self._allows(self.bucket(self.index(contact.key)), contact)

    def _admit(self, bucket: Bucket, contact: Contact, now: float, *, routed: bool) -> None:
        self._index(bucket, Entry(contact, now, now, routed=routed))

    def _index(self, bucket: Bucket, entry: Entry) -> None:
        """Append the entry to main and count it."""
        contact = entry.contact
        entry.limited = not is_exempt(contact.address.host, self._config.diversity.exempt)
        bucket.main.append(entry)
        self._entries[contact.key] = entry
        if not entry.routed:
            self._by_address[contact.address] = entry
        if entry.limited:
            self._networks[contact.network] += 1

    def _expel(self, bucket: Bucket, entry: Entry) -> None:
        bucket.main.remove(entry)
        del self._entries[entry.contact.key]
        if self._by_address.get(entry.contact.address) is entry:
            del self._by_address[entry.contact.address]
        if entry.limited:
            self._release(entry.contact.network)

    def _release(self, network: bytes) -> None:
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]

    def _displace_tenant(self, contact: Contact, *, routed: bool) -> None:
        """One node per socket address: who just answered there is who is there now."""
        tenant = None if routed else self._by_address.get(contact.address)
        if tenant is not None and tenant.contact.key != contact.key:
            self._expel(self.bucket(self.index(tenant.contact.key)), tenant)

    def _move(self, entry: Entry, contact: Contact) -> bool:
        """Give a known node its newly proven address; False if the diversity rule forbids that network."""
        if entry.contact.address == contact.address:
            if entry.routed:
                entry.routed = False
                self._displace_tenant(contact, routed=False)
                self._by_address[contact.address] = entry
            return True
        bucket = self.bucket(self.index(contact.key))
        self._displace_tenant(contact, routed=False)
        self._expel(bucket, entry)
        if not self._allows(bucket, contact):
            return False
        entry.contact, entry.routed, entry.encoded = contact, False, None
        self._index(bucket, entry)
        return True

    # -- leaving -----------------------------------------------------------------------------------------------

    def remove(self, key: int) -> Contact | None:
        """Drop a node from main; a proven replacement takes its place."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        bucket = self.bucket(self.index(key))
        self._expel(bucket, entry)
        self._promote(bucket)
        return entry.contact

    def _promote(self, bucket: Bucket) -> None:
        """Fill free room with the most recently proven replacements."""
        proven = [held for held in bucket.waiting if held.verified_at is not None]
        for held in reversed(proven):
            if len(bucket.main) >= self._config.bucket_size:
                return
            bucket.waiting.remove(held)
            self._displace_tenant(held.contact, routed=False)
            if self._allows(bucket, held.contact):
                self._admit(bucket, held.contact, held.verified_at or 0.0, routed=False)

    def forget_waiting(self, key: int) -> None:
        """Drop a replacement that did not answer."""
        self._forget_waiting(self.bucket(self.index(key)), key)

    def _forget_waiting(self, bucket: Bucket, key: int) -> None:
        for held in bucket.waiting:
            if held.contact.key == key:
                bucket.waiting.remove(held)
                return

    def expire_waiting(self, now: float) -> None:
        """Drop replacements older than their lifetime (spec 03 §3.6 step 1)."""
        oldest = now - self._config.replacement_lifetime
        for bucket in self._buckets.values():
            if bucket.waiting:
                bucket.waiting[:] = [held for held in bucket.waiting if held.arrived_at >= oldest]

    # -- reading -----------------------------------------------------------------------------------------------

    def closest(self, target: int, count: int, *, routed: bool = False, failing: bool = False) -> list[Entry]:
        """The `count` entries nearest to the target: those others may be told of, unless more are asked for.

        `routed` adds those only a punched connection of ours leads to, `failing` those that failed lately.

        Everything in the bucket that shares `index` leading bits with us lies on one side of us as seen from the
        target: nearer if the target's next bit differs from ours, the more so the smaller the index, and else
        farther, the more so the smaller the index.
        """
        found: list[Entry] = []
        for bucket in self._outward(target):
            near = {
                entry.contact.key ^ target: entry
                for entry in bucket.main
                if (failing or entry.failures < 2) and (routed or not entry.routed)
            }
            found += map(near.__getitem__, sorted(near))
            if len(found) >= count:
                return found[:count]
        return found

    def _outward(self, target: int) -> Iterator[Bucket]:
        """Buckets by rising distance from the target."""
        difference, buckets = (self.own ^ target) << 1, self._buckets
        for index in self._order:
            if difference >> (ID_BITS - index) & 1:
                yield buckets[index]
        for index in reversed(self._order):
            if not difference >> (ID_BITS - index) & 1:
                yield buckets[index]

    def estimate_size(self, fresh_since: float) -> SizeEstimate:
        """The network's size from how full the nearest buckets are (spec 03 §3.7)."""
        samples = []
        for index in reversed(self._order):
            bucket = self._buckets[index]
            members = sum(1 for entry in bucket.main if entry.verified_at > fresh_since)
            if members:
                samples.append(members << min(index + 1, 62))
            if len(samples) == 5:
                break
        if not samples:
            return SizeEstimate(0, 0.0)
        samples.sort()
        return SizeEstimate(samples[len(samples) // 2], len(samples) / 5)

    def contacts(self) -> Iterable[Contact]:
        """The contacts of the main lists."""
        return [entry.contact for entry in self._entries.values()]
