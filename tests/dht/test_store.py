"""The record store: its rules one by one, floods, and a state machine against a naive model."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from a2al_trio.dht.config import StoreLimits
from a2al_trio.dht.slots import slot_of
from a2al_trio.dht.store import OVERHEAD_BYTES, KeyMismatch, PolicyRefused, RecordStore, StaleRecord, standard_authority
from a2al_trio.identity import Address, NodeId, ed25519
from a2al_trio.wire.errors import InvalidRecord, RecordExpired, RecordNotAuthorized, RecordNotYetValid
from a2al_trio.wire.payloads import topic_key
from a2al_trio.wire.records import RecordType, SignedRecord, decode_record, is_newer, sign_record
from tests.dht.support import NOW, always, endpoint, forged, identity, topic

ALICE, BOB, MALLORY = identity(1), identity(2), identity(3)
TOPIC = topic_key("ai/test")


def new_store(limits: StoreLimits | None = None) -> RecordStore:
    limits = StoreLimits() if limits is None else limits
    return RecordStore(limits, verify=ed25519.verify, authority=standard_authority(60))


def test_a_newer_record_replaces_an_older_one_and_never_the_reverse() -> None:
    store = new_store()
    old, new = endpoint(ALICE, sequence=1), endpoint(ALICE, sequence=2)
    store.put(new, NOW)
    with pytest.raises(StaleRecord):
        store.put(old, NOW)
    with pytest.raises(StaleRecord):
        store.put(new, NOW)
    assert store.get(ALICE.node_id, NOW) == [new]


def test_a_record_for_somebody_else_is_refused() -> None:
    store = new_store()
    stolen = decode_record(endpoint(MALLORY).encoded.replace(MALLORY.address, ALICE.address))
    for record in (stolen, forged(endpoint(ALICE))):
        with pytest.raises(InvalidRecord):
            store.put(record, NOW)
    with pytest.raises((KeyMismatch, RecordNotAuthorized)):
        store.put(endpoint(MALLORY), NOW, key=ALICE.node_id)
    assert len(store) == 0


def test_topics_and_mail_stay_under_their_own_key() -> None:
    store = new_store()
    store.put(topic(ALICE, "ai/test"), NOW, key=TOPIC)
    with pytest.raises(InvalidRecord):
        store.put(topic(ALICE, "ai/other"), NOW, key=TOPIC)
    assert len(store.get(TOPIC, NOW)) == 1


def test_time_bounds_what_is_taken_and_what_is_served() -> None:
    store = new_store()
    with pytest.raises(RecordNotYetValid):
        store.put(endpoint(ALICE, timestamp=NOW + 61), NOW)
    with pytest.raises(RecordExpired):
        store.put(endpoint(ALICE, timestamp=NOW - 3601), NOW)
    store.put(endpoint(ALICE, timestamp=NOW + 60), NOW)
    store.put(endpoint(BOB, ttl=100, timestamp=NOW), NOW)
    assert store.get(BOB.node_id, NOW + 100)
    assert not store.get(BOB.node_id, NOW + 101)
    assert store.sweep(NOW + 101) == 1
    assert len(store) == 1


def test_a_ttl_of_years_is_kept_for_a_day() -> None:
    store = new_store()
    store.put(endpoint(ALICE, ttl=2**32 - 1, timestamp=NOW), NOW)
    assert store.get(ALICE.node_id, NOW + 24 * 3600)
    assert not store.get(ALICE.node_id, NOW + 24 * 3600 + 1)


def test_the_signature_of_a_record_is_checked_once() -> None:
    checks: list[bytes] = []

    def counting(public_key: bytes, message: bytes, signature: bytes) -> bool:
        checks.append(signature)
        return ed25519.verify(public_key, message, signature)

    store = RecordStore(StoreLimits(), verify=counting, authority=standard_authority(60))
    record = endpoint(ALICE)
    store.put(record, NOW)
    for _ in range(5):
        with pytest.raises(StaleRecord):
            store.put(record, NOW)
        store.get(ALICE.node_id, NOW)
    assert len(checks) == 1


def test_a_flood_on_a_topic_crowds_out_only_its_own_network() -> None:
    limits = StoreLimits(topic_per_key=10)
    store = RecordStore(limits, verify=always, authority=standard_authority(60))
    honest = [topic(identity(number), "ai/test", timestamp=NOW - 1000) for number in range(5)]
    for number, record in enumerate(honest):
        store.put(record, NOW, key=TOPIC, source=b"net%d" % number)
    for number in range(100, 200):
        store.put(topic(identity(number), "ai/test", timestamp=NOW), NOW, key=TOPIC, source=b"bad")
    held = store.get(TOPIC, NOW)
    assert len(held) == 10
    assert all(record in held for record in honest)


def test_a_sender_has_four_places_in_a_mailbox() -> None:
    store = RecordStore(StoreLimits(bind_content_to_key=False), verify=always, authority=standard_authority(60))
    for number in range(6):
        mail = sign_record(
            MALLORY,
            RecordType.MAILBOX,
            b"mail %d" % number,
            sequence=1,
            timestamp=NOW - 10 + number,
            ttl=3600,
        )
        store.put(mail, NOW, key=ALICE.node_id)
    assert [record.payload for record in store.get(ALICE.node_id, NOW)] == [b"mail %d" % n for n in range(2, 6)]


def test_one_source_and_one_publisher_have_a_quota() -> None:
    limits = StoreLimits(per_source_bytes=12_000, per_publisher_bytes=5000)
    store = RecordStore(limits, verify=always, authority=standard_authority(60))
    refused = 0
    for number in range(50):
        try:
            store.put(endpoint(identity(number)), NOW, source=b"one")
        except PolicyRefused:
            refused += 1
    assert refused > 30
    store.put(endpoint(identity(100)), NOW, source=b"other")
    taken = 0
    for kind in range(1, 16):
        record = sign_record(ALICE, kind, b"\xa1\x01\x01" if kind == 2 else b"\xa0", sequence=1, timestamp=NOW, ttl=60)
        try:
            store.put(record, NOW, source=b"third")
        except PolicyRefused:
            break
        taken += 1
    assert 1 < taken <= 5000 // OVERHEAD_BYTES


def test_a_million_records_from_one_source_leave_the_others_alone() -> None:
    """What is over the share is refused before its signature is checked, at a few microseconds each."""
    limits, checked = StoreLimits(max_bytes=400_000, per_source_bytes=100_000), 0

    def counting(_public_key: bytes, _message: bytes, _signature: bytes) -> bool:
        nonlocal checked
        checked += 1
        return True

    store = RecordStore(limits, verify=counting, authority=None)
    honest = [endpoint(identity(number)) for number in range(200)]
    for number, record in enumerate(honest):
        store.put(record, NOW, source=b"n%d" % (number % 40))
    checked = 0
    floods = [flood_record(number) for number in range(1000)]
    put, kept = store.put, 0
    for _ in range(1000):  # the same thousand again and again: those refused are as new as others would be
        for flood, key in floods:
            try:
                put(flood, NOW, key=key, source=b"flood")
                kept += 1
            except (PolicyRefused, StaleRecord):
                pass
    assert kept == checked <= 100_000 // OVERHEAD_BYTES
    assert store.usage.encoded_bytes <= 400_000
    assert all(store.get(record.address.node_id, NOW) == [record] for record in honest)


def flood_record(number: int) -> tuple[SignedRecord, NodeId]:
    """A record of a publisher of its own, signed by nobody."""
    address = Address(b"\xa0" + number.to_bytes(20, "big"))
    signature = number.to_bytes(64, "big")
    record = SignedRecord(address, 3, b"", 1, NOW, 3600, MALLORY.public_key, signature, None, address)
    return record, address.node_id


def test_a_full_store_lets_the_far_keys_of_a_network_go_first() -> None:
    own = int.from_bytes(ALICE.node_id, "big")
    store = RecordStore(StoreLimits(max_keys=20), verify=always, authority=None, own=own)
    records = [endpoint(identity(number)) for number in range(120)]
    for record in records:
        store.put(record, NOW, source=b"one")
    distance = [int.from_bytes(record.address.node_id, "big") ^ own for record in records]
    held = [each for each, record in zip(distance, records, strict=True) if store.get(record.address.node_id, NOW)]
    assert len(held) == 20
    assert sum(held) / 20 < sum(distance) / 120 / 2, "those kept lie much nearer than the average"


def test_a_flood_from_many_networks_evicts_the_heaviest_first() -> None:
    store = RecordStore(StoreLimits(max_bytes=60_000), verify=always, authority=None)
    light = [endpoint(identity(number)) for number in range(10)]
    for number, record in enumerate(light):
        store.put(record, NOW, source=b"light%d" % number)
    for number in range(100, 600):
        with contextlib.suppress(PolicyRefused):  # a far key may be the first to go itself
            store.put(endpoint(identity(number)), NOW, source=b"heavy%d" % (number % 3))
    assert store.usage.encoded_bytes <= 60_000
    assert all(store.get(record.address.node_id, NOW) for record in light)


def test_what_this_node_publishes_is_never_evicted() -> None:
    store = RecordStore(StoreLimits(max_keys=5), verify=always, authority=None)
    own = [endpoint(identity(number)) for number in range(4)]
    for record in own:
        store.put(record, NOW, pinned=True)
    for number in range(100, 150):
        store.put(endpoint(identity(number)), NOW, source=b"x%d" % number)
    assert all(store.get(record.address.node_id, NOW) for record in own)
    assert len(store) == 5
    store.invalidate(own[0].address.node_id)
    assert store.get(own[0].address.node_id, NOW)
    store.unpin(own[0].address)
    assert not store.get(own[0].address.node_id, NOW)


# -- against a naive model -------------------------------------------------------------------------------------

LIMITS = StoreLimits(
    max_keys=6,
    max_bytes=16_700,
    per_source_bytes=9500,
    per_publisher_bytes=6200,
    sovereign_per_key=3,
    topic_per_key=3,
    mailbox_per_key=3,
    mailbox_per_sender=2,
    retention_topic=50,
    bind_content_to_key=False,
)
PEOPLE = [identity(number) for number in range(4)]
KEYS = [person.node_id for person in PEOPLE] + [TOPIC]
SOURCES = [b"a", b"b", b"c"]
OWN = int.from_bytes(PEOPLE[1].node_id, "big")


@attrs.define(eq=False)
class Row:
    """A record as the model holds it."""

    record: SignedRecord
    key: NodeId
    source: bytes
    until: int

    @property
    def size(self) -> int:
        return len(self.record.encoded) + OVERHEAD_BYTES

    @property
    def kind(self) -> str:
        number = self.record.record_type
        return "topic" if number == 0x10 else "mail" if number == 0x80 else "own"


class Model:
    """One list of rows in order of arrival; every rule is a scan."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def at(self, key: NodeId) -> list[Row]:
        return [row for row in self.rows if row.key == key]

    def put(self, record: SignedRecord, key: NodeId, source: bytes, now: int) -> str:
        for row in self.at(key):
            if row.record.encoded == record.encoded and row.until >= now:
                return "stale"
        if record.timestamp > now + 60 or record.timestamp + record.ttl < now:
            return "invalid"
        until = min(record.timestamp + record.ttl, now + self.retention(record))
        new = Row(record, key, source, until)
        if new.kind == "own" and key != record.address.node_id:
            return "invalid"
        self.rows = [row for row in self.rows if row.key != key or row.until >= now]
        former = next((row for row in self.at(key) if slot_of(row.record) == slot_of(record)), None)
        if former is not None and not is_newer(record, former.record):
            return "stale"
        others = [row for row in self.rows if row is not former]
        publisher = sum(row.size for row in others if row.record.address == record.address)
        own_source = sum(row.size for row in others if row.source == source)
        if publisher + new.size > LIMITS.per_publisher_bytes or own_source + new.size > LIMITS.per_source_bytes:
            return "policy"
        self.rows = others
        mine = self.at(key)
        self.rows = [row for row in self.rows if row.key != key]
        self.rows += [row for row in mine if row.kind != new.kind] + [row for row in mine if row.kind == new.kind]
        self.rows.append(new)
        self.arrivals = [row for row in getattr(self, "arrivals", []) if row is not former] + [new]
        self.cap(new)
        return self.shrink(new)

    @staticmethod
    def retention(record: SignedRecord) -> int:
        return {0x10: LIMITS.retention_topic, 0x80: LIMITS.retention_mailbox}.get(
            record.record_type, LIMITS.retention_sovereign
        )

    def cap(self, new: Row) -> None:
        same = [row for row in self.at(new.key) if row.kind == new.kind]
        if new.kind == "own" and len(same) > 3:
            others = [row for row in same if row.record.record_type != 1]
            self.drop(others[0] if others else min(same, key=lambda row: row.record.timestamp))
        elif new.kind == "topic" and len(same) > 3:
            self.drop(self.oldest_of_heaviest(same))
        elif new.kind == "mail":
            own = [row for row in same if row.record.public_key == new.record.public_key]
            if len(own) > 2:
                self.drop(min(own, key=lambda row: row.record.timestamp))
            elif len(same) > 3:
                self.drop(self.oldest_of_heaviest(same))

    @staticmethod
    def oldest_of_heaviest(same: list[Row]) -> Row:
        count = {row.source: sum(each.source == row.source for each in same) for row in same}
        most = max(count.values())
        return min((row for row in same if count[row.source] == most), key=lambda row: row.record.timestamp)

    def shrink(self, new: Row) -> str:
        while sum(row.size for row in self.rows) > LIMITS.max_bytes or len({r.key for r in self.rows}) > 6:
            weight = {source: sum(row.size for row in self.rows if row.source == source) for source in SOURCES}
            heaviest = min(SOURCES, key=lambda source: (-weight[source], source))
            oldest = [row for row in self.arrivals if row.source == heaviest and row in self.rows][:16]
            victim = max(oldest, key=lambda row: int.from_bytes(row.key, "big") ^ OWN)
            self.drop(victim)
            if victim is new:
                return "policy"
        return "stored"

    def drop(self, row: Row) -> None:
        self.rows = [each for each in self.rows if each is not row]


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of puts, reads and passing time keeps store and model alike."""

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.store = RecordStore(LIMITS, verify=always, authority=None, own=OWN)
        self.model = Model()

    @rule(
        who=st.sampled_from(PEOPLE),
        key=st.sampled_from(KEYS),
        kind=st.sampled_from([1, 1, 2, 3, 4, 0x10, 0x10, 0x80]),
        sequence=st.integers(1, 3),
        age=st.integers(-70, 120),
        ttl=st.sampled_from([10, 60, 3600]),
        filler=st.integers(0, 200),
        source=st.sampled_from(SOURCES),
    )
    def put(
        self, who: object, key: NodeId, kind: int, sequence: int, age: int, ttl: int, filler: int, source: bytes
    ) -> None:
        person = PEOPLE[PEOPLE.index(who)]  # type: ignore[arg-type]
        if kind == 1:
            record = endpoint(person, sequence=sequence, timestamp=self.now - age, ttl=ttl, port=1000 + filler)
        elif kind == 0x10:
            brief = "x" * min(filler, 140)
            record = topic(person, "ai/test", sequence=sequence, timestamp=self.now - age, ttl=ttl, brief=brief)
        else:
            record = sign_record(person, kind, bytes(filler % 4), sequence=sequence, timestamp=self.now - age, ttl=ttl)
        if kind < 0x10 and filler % 5:
            key = person.node_id
        expected = self.model.put(record, key, source, self.now)
        try:
            self.store.put(record, self.now, key=key, source=source)
            outcome = "stored"
        except StaleRecord:
            outcome = "stale"
        except PolicyRefused:
            outcome = "policy"
        except InvalidRecord:
            outcome = "invalid"
        assert outcome == expected

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        self.store.sweep(self.now)
        self.model.rows = [row for row in self.model.rows if row.until >= self.now]

    @rule(key=st.sampled_from(KEYS))
    def invalidate(self, key: NodeId) -> None:
        self.store.invalidate(key)
        self.model.rows = [row for row in self.model.rows if row.key != key]

    @invariant()
    def alike(self) -> None:
        if not hasattr(self, "store"):
            return
        for key in KEYS:
            expected = [row.record for row in self.model.at(key) if row.until >= self.now]
            assert self.store.get(key, self.now) == expected
        usage = self.store.usage
        assert usage.records == len(self.model.rows)
        assert usage.encoded_bytes == sum(row.size for row in self.model.rows)
        assert usage.keys == len({row.key for row in self.model.rows})
        for person in PEOPLE:
            found = self.store.published_by(person.address, self.now)
            assert len(found) == sum(
                row.record.address == person.address and row.until >= self.now for row in self.model.rows
            )


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStore = StoreMachine.TestCase
