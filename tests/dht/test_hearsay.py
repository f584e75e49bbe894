"""Records that strangers store: believed for two minutes unless their publisher answers (spec 08 §2.3)."""

from __future__ import annotations

import itertools

import pytest

from a2al_trio.dht import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.core import DhtCore
from a2al_trio.dht.hearsay import ASKS_PER_HOST
from a2al_trio.dht.store import HEARSAY_LIFETIME
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import FindNode, FindNodeResponse, Store, StoreResponse
from a2al_trio.wire.messages import Message, encode_message
from a2al_trio.wire.observed import encode_observed
from a2al_trio.wire.payloads import ProfilePayload, topic_key
from a2al_trio.wire.records import RecordType, SignedRecord, sign_record
from tests.dht.support import NOW, contact, endpoint, identity, topic
from tests.dht.test_answers import SOURCE, Bench

AGENT, STRANGER, HOST = identity(60), identity(50), identity(70)
PUBLISHER = SocketAddress("203.0.113.9", 4121)
"""Where the records of `endpoint` say that their publisher is."""
TTL = 3600


class Node(Bench):
    """A node amid a hundred others, and its memory of a record."""

    def store(
        self, record: SignedRecord, who: Identity = STRANGER, source: SocketAddress = SOURCE
    ) -> list[tuple[Message, SocketAddress]]:
        """Have it stored; returns what others are asked on that account, and where."""
        key = topic_key("ai/test") if record.record_type == RecordType.TOPIC else None
        sent = self.tell(encode_message(Store(record, key), bytes(20), who), source)
        [response] = [message.body for message, _, _ in sent if message.transaction_id == bytes(20)]
        assert isinstance(response, StoreResponse)
        assert response.stored
        return [(message, to) for message, to, _ in sent if isinstance(message.body, FindNode)]

    def holds(self, record: SignedRecord, *, after: float) -> bool:
        self.now = after
        self.core.handle_timeout(after)
        list(self.core.datagrams_to_send(after))
        self.core.store.sweep(self.core.env.unix_seconds())
        return record in self.core.store.get(record.address.node_id, self.core.env.unix_seconds(), record.record_type)


def make_node() -> Node:
    entropy = (number.to_bytes(32, "big") for number in itertools.count(1))
    node: Node
    core = DhtCore(
        identity(1),
        DhtConfig(),
        local_address=SocketAddress("0.0.0.0", 4121),
        entropy=lambda size: next(entropy)[-size:],
        unix_time=lambda: NOW + node.now,
    )
    node = Node(core)
    core.start(0.0)
    for number in range(100):
        core.table.prove(contact(number), 0.0)
    return node


def profile() -> SignedRecord:
    payload = ProfilePayload(name="agent").encode()
    return sign_record(AGENT, RecordType.PROFILE, payload, sequence=1, timestamp=NOW - 3, ttl=TTL)


def test_a_strangers_copy_is_visible_for_two_minutes() -> None:
    node = make_node()
    record = endpoint(AGENT)
    node.store(record)
    assert node.holds(record, after=HEARSAY_LIFETIME)
    assert not node.holds(record, after=HEARSAY_LIFETIME + 1)


def test_the_publisher_is_asked_and_its_answer_makes_the_copy_last() -> None:
    node = make_node()
    record = endpoint(AGENT)
    [(question, to)] = node.store(record)
    assert (question.body, to) == (FindNode(AGENT.node_id), PUBLISHER)
    node.now = 1.0
    answer = encode_message(FindNodeResponse(None, encode_observed(SOURCE)), question.transaction_id, HOST)
    node.tell(answer, PUBLISHER)
    assert node.holds(record, after=TTL - 10)
    assert not node.holds(record, after=TTL)


def test_an_answer_that_comes_too_late_revives_nothing() -> None:
    node = make_node()
    record = endpoint(AGENT)
    [(question, _)] = node.store(record)
    assert not node.holds(record, after=HEARSAY_LIFETIME + 1)
    answer = encode_message(FindNodeResponse(None, encode_observed(SOURCE)), question.transaction_id, HOST)
    node.tell(answer, PUBLISHER)
    assert not node.holds(record, after=HEARSAY_LIFETIME + 2)


def test_what_the_publisher_itself_stores_lasts() -> None:
    for who, source in ((AGENT, SOURCE), (HOST, SocketAddress(PUBLISHER.host, 999))):
        node = make_node()
        record = endpoint(AGENT)
        assert node.store(record, who, source) == []
        assert node.holds(record, after=TTL - 10)


def test_a_publisher_that_stores_what_a_stranger_brought_confirms_it() -> None:
    node = make_node()
    record = endpoint(AGENT)
    node.store(record)
    node.now = 60.0
    node.store(record)  # the stranger's word again changes nothing
    node.store(record, AGENT)
    assert node.holds(record, after=TTL - 10)


def test_holders_near_the_key_are_believed() -> None:
    node = make_node()
    record = endpoint(AGENT)
    source = SocketAddress("9.9.9.9", 4121)
    node.core.table.prove(Contact.of(STRANGER.address, source), 0.0)
    for entry in node.core.table.closest(int.from_bytes(AGENT.node_id, "big"), 50):
        if entry.contact.node_address != STRANGER.address:
            node.core.table.remove(entry.contact.key)
    assert node.store(record, STRANGER, source) == []
    assert node.holds(record, after=TTL - 10)


@pytest.mark.parametrize("endpoint_first", [False, True])
def test_other_records_of_an_agent_follow_its_endpoints(endpoint_first: bool) -> None:
    """Without endpoints there is nobody to ask, and the record is kept as any."""
    node = make_node()
    if endpoint_first:
        node.store(endpoint(AGENT), AGENT)
    record = profile()
    assert len(node.store(record)) == endpoint_first
    assert node.holds(record, after=HEARSAY_LIFETIME + 1) is not endpoint_first


def test_a_newer_record_may_come_from_anybody() -> None:
    node = make_node()
    node.store(endpoint(AGENT), AGENT)
    newer = endpoint(AGENT, sequence=2)
    assert node.store(newer) == []
    assert node.holds(newer, after=TTL - 10)


def test_a_newer_copy_in_the_place_of_a_copy_is_one_too() -> None:
    node = make_node()
    node.store(endpoint(AGENT))
    newer = endpoint(AGENT, sequence=2)
    node.store(newer)
    assert not node.holds(newer, after=HEARSAY_LIFETIME + 1)


def test_topics_and_mail_come_from_anybody() -> None:
    node = make_node()
    record = topic(AGENT, "ai/test")
    node.store(record)
    assert record.record_type == RecordType.TOPIC
    assert not node.core.store.held(record.address.node_id, NOW)  # it is under the key of its topic
    assert all(held.lasting is None for held in node.core.store)


def test_records_cannot_aim_our_questions_at_somebody() -> None:
    node = make_node()
    asked = sum(len(node.store(endpoint(identity(number)))) for number in range(1000, 1060))
    assert asked == ASKS_PER_HOST
    assert len(node.core.store) == 60
