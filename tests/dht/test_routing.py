"""The routing table: stories, and a state machine against a naive model."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from a2al_trio.dht.config import DhtConfig, Diversity
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.routing import Admission, RoutingTable
from a2al_trio.net.address import SocketAddress
from tests.dht.support import contact, contact_at, nearest

OWN = 0
FREE = DhtConfig(bucket_size=4, replacements=2, diversity=Diversity(exempt=("0.0.0.0/0",)))


def in_bucket(index: int, number: int, host: str | None = None) -> Contact:
    key = (1 << (255 - index)) | number
    return contact_at(key, f"11.{index}.{number}.1" if host is None else host)


def full_bucket(config: DhtConfig = FREE) -> tuple[RoutingTable, list[Contact]]:
    table = RoutingTable(OWN, config)
    members = [in_bucket(0, number) for number in range(config.bucket_size)]
    for at, member in enumerate(members):
        assert table.prove(member, float(at)) is Admission.ADDED
    return table, members


def test_hearsay_never_enters_main_nor_displaces_anybody() -> None:
    table, members = full_bucket()
    assert table.hear(in_bucket(0, 50), 10.0)
    assert table.hear(in_bucket(1, 60), 10.0)
    assert sorted(table.contacts(), key=lambda each: each.key) == members


def test_hearsay_never_changes_a_proven_address() -> None:
    table, members = full_bucket()
    forged = contact_at(members[0].key, "66.66.66.66")
    assert not table.hear(forged, 10.0)
    entry = table.get(members[0].key)
    assert entry is not None
    assert entry.contact.address == members[0].address


def test_a_full_bucket_keeps_its_entries_and_queues_the_newcomer() -> None:
    table, members = full_bucket()
    assert table.prove(in_bucket(0, 50), 10.0) is Admission.WAITING
    assert len(table) == len(members)
    table.remove(members[0].key)
    assert table.get(in_bucket(0, 50).key) is not None, "a proven replacement takes the place"


def test_a_node_that_moved_keeps_one_entry_at_its_new_address() -> None:
    table, members = full_bucket()
    moved = contact_at(members[0].key, "12.0.0.1", 9999)
    assert table.prove(moved, 10.0) is Admission.REFRESHED
    assert table.at_address(members[0].address) is None
    tenant = table.at_address(moved.address)
    assert tenant is not None
    assert tenant.contact == moved
    assert len(table) == len(members)


def test_one_socket_address_is_one_node() -> None:
    table, members = full_bucket()
    reborn = contact_at((1 << 200) + 5, members[1].address.host)
    assert table.prove(reborn, 10.0) is Admission.ADDED
    assert table.get(members[1].key) is None


def test_a_punched_contact_only_takes_free_room_and_gives_way_first() -> None:
    table, _ = full_bucket()
    assert table.prove(in_bucket(0, 70), 10.0, routed=True) is Admission.REFUSED
    table = RoutingTable(OWN, FREE)
    for number in range(4):
        table.prove(in_bucket(0, number), 1.0, routed=number == 2)
    assert table.prove(in_bucket(0, 80), 2.0) is Admission.ADDED
    assert table.get(in_bucket(0, 2).key) is None
    assert all(not entry.routed for entry in table)


def test_one_network_gets_its_share_and_no_more() -> None:
    config = DhtConfig(diversity=Diversity(per_bucket=2, per_table=3))
    table = RoutingTable(OWN, config)
    outcomes = [
        table.prove(in_bucket(index, number, f"12.0.0.{1 + 10 * index + number}"), 1.0)
        for index in range(4)
        for number in range(4)
    ]
    assert outcomes.count(Admission.ADDED) == 3
    assert Counter(table.index(each.key) for each in table.contacts()) == {0: 2, 1: 1}


def test_closest_is_what_brute_force_finds() -> None:
    rng = random.Random(7)
    config = DhtConfig(diversity=Diversity(exempt=("0.0.0.0/0",)))
    table = RoutingTable(rng.getrandbits(256), config)
    for number in range(400):
        table.prove(contact(number), 1.0)
    held = list(table.contacts())
    for _ in range(50):
        target = rng.choice([rng.getrandbits(256), table.own, rng.choice(held).key])
        found = [entry.contact for entry in table.closest(target, 16)]
        assert found == nearest(held, target, 16)


def test_the_size_estimate_is_of_the_right_order() -> None:
    rng = random.Random(5)
    config = DhtConfig(diversity=Diversity(exempt=("0.0.0.0/0",)))
    table = RoutingTable(rng.getrandbits(256), config)
    for number in range(2000):
        table.prove(contact(number), 100.0)
    estimate = table.estimate_size(0.0)
    assert 800 <= estimate.nodes <= 5000
    assert estimate.confidence == 1.0
    assert table.estimate_size(200.0).nodes == 0


# -- against a naive model -------------------------------------------------------------------------------------

SMALL = DhtConfig(bucket_size=3, replacements=2, diversity=Diversity(per_bucket=2, per_table=4))
POOL = [
    contact_at((1 << (255 - number % 3)) | number, f"11.0.{number % 5}.{number % 7}", 1 + number % 4)
    for number in range(40)
]


class Model:
    """The same rules, written without indexes: two plain lists, searched from end to end."""

    def __init__(self) -> None:
        self.main: list[Contact] = []
        self.waiting: list[tuple[Contact, bool]] = []

    @staticmethod
    def bucket(each: Contact) -> int:
        return 256 - each.key.bit_length()

    def members(self, newcomer: Contact) -> list[Contact]:
        return [each for each in self.main if self.bucket(each) == self.bucket(newcomer)]

    def queue(self, newcomer: Contact) -> list[tuple[Contact, bool]]:
        return [each for each in self.waiting if self.bucket(each[0]) == self.bucket(newcomer)]

    def allows(self, newcomer: Contact) -> bool:
        network = newcomer.network
        in_table = sum(each.network == network for each in self.main)
        in_bucket = sum(each.network == network for each in self.members(newcomer))
        return in_table < 4 and in_bucket < 2

    def drop_waiting(self, key: int) -> None:
        self.waiting = [each for each in self.waiting if each[0].key != key]

    def prove(self, newcomer: Contact) -> Admission:
        known = next((each for each in self.main if each.key == newcomer.key), None)
        if known is None:
            self.drop_waiting(newcomer.key)
        self.main = [each for each in self.main if each.key == newcomer.key or each.address != newcomer.address]
        if known is not None:
            self.main.remove(known)
            if known.address != newcomer.address and not self.allows(newcomer):
                return Admission.REFUSED
            self.main.append(newcomer)
            return Admission.REFRESHED
        if not self.allows(newcomer):
            return Admission.REFUSED
        if len(self.members(newcomer)) < 3:
            self.main.append(newcomer)
            return Admission.ADDED
        self.wait(newcomer, proven=True)
        return Admission.WAITING

    def wait(self, newcomer: Contact, *, proven: bool) -> None:
        queue = self.queue(newcomer)
        if len(queue) >= 2:
            hearsay = [each for each in queue if not each[1]]
            if not hearsay and not proven:
                return
            self.waiting.remove((hearsay or queue)[0])
        self.waiting.append((newcomer, proven))

    def hear(self, newcomer: Contact) -> bool:
        if any(each.key == newcomer.key or each.address == newcomer.address for each in self.main):
            return False
        if any(each.key == newcomer.key for each, _ in self.waiting) or not self.allows(newcomer):
            return False
        self.wait(newcomer, proven=False)
        return True

    def remove(self, key: int) -> None:
        gone = next((each for each in self.main if each.key == key), None)
        if gone is None:
            return
        self.main.remove(gone)
        for held, proven in reversed(self.queue(gone)):
            if proven and len(self.members(gone)) < 3:
                self.waiting.remove((held, True))
                self.main = [each for each in self.main if each.address != held.address]
                if self.allows(held):
                    self.main.append(held)


class TableMachine(RuleBasedStateMachine):
    """Any sequence of events keeps table and model alike."""

    @initialize()
    def begin(self) -> None:
        self.table = RoutingTable(OWN, SMALL)
        self.model = Model()
        self.now = 0.0

    @rule(who=st.sampled_from(POOL))
    def prove(self, who: Contact) -> None:
        self.now += 1
        assert self.table.prove(who, self.now) is self.model.prove(who)

    @rule(who=st.sampled_from(POOL), where=st.sampled_from(POOL))
    def prove_elsewhere(self, who: Contact, where: Contact) -> None:
        self.now += 1
        moved = Contact(who.node_id, who.node_address, where.address, who.key)
        assert self.table.prove(moved, self.now) is self.model.prove(moved)

    @rule(who=st.sampled_from(POOL))
    def hear(self, who: Contact) -> None:
        self.now += 1
        assert self.table.hear(who, self.now) == self.model.hear(who)

    @rule(who=st.sampled_from(POOL))
    def remove(self, who: Contact) -> None:
        self.table.remove(who.key)
        self.model.remove(who.key)

    @rule(who=st.sampled_from(POOL))
    def forget(self, who: Contact) -> None:
        self.table.forget_waiting(who.key)
        self.model.drop_waiting(who.key)

    @invariant()
    def alike(self) -> None:
        if not hasattr(self, "table"):
            return
        assert {(e.contact.key, e.contact.address) for e in self.table} == {
            (each.key, each.address) for each in self.model.main
        }
        for index in range(3):
            bucket = self.table.bucket(index)
            expected = [each for each in self.model.main if Model.bucket(each) == index]
            assert [entry.contact for entry in bucket.main] == expected
            queue = [(held.contact, held.verified_at is not None) for held in bucket.waiting]
            assert queue == [each for each in self.model.waiting if Model.bucket(each[0]) == index]

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "table"):
            return
        networks = Counter(each.network for each in self.table.contacts())
        assert not networks or max(networks.values()) <= 4
        addresses = Counter(each.address for each in self.table.contacts())
        assert not addresses or max(addresses.values()) == 1
        for each in self.table.contacts():
            tenant = self.table.at_address(each.address)
            assert tenant is not None
            assert tenant.contact == each

    @rule(point=st.integers(0, 2**256 - 1), count=st.integers(1, 10))
    def read(self, point: int, count: int) -> None:
        found = [entry.contact for entry in self.table.closest(point, count)]
        assert found == nearest(self.model.main, point, count)


TableMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTable = TableMachine.TestCase


def test_an_unspecified_socket_is_not_at_any_address() -> None:
    assert RoutingTable(OWN, SMALL).at_address(SocketAddress("1.2.3.4", 5)) is None
