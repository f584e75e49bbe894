"""What one node answers: sizes, amplification, NAT probes, pushes, and any bytes at all."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.dht.config import DhtConfig, RequestBudget
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.core import DhtCore
from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Identity, NodeId
from a2al_trio.identity.delegation import issue_delegation
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.wire.bodies import (
    Body,
    DhtPush,
    DhtPushAck,
    FindNode,
    FindNodeResponse,
    FindValue,
    FindValueResponse,
    NatProbeEcho,
    NatProbeRequest,
    Ping,
    Pong,
    Store,
    StoreReason,
    StoreResponse,
)
from a2al_trio.wire.messages import Message, decode_message, encode_message
from a2al_trio.wire.observed import encode_observed
from a2al_trio.wire.payloads import topic_key
from a2al_trio.wire.records import SignedRecord, sign_record
from tests.dht.support import NOW, contact, endpoint, forged, identity, topic

SOURCE = SocketAddress("8.8.4.4", 5353)
ASKER = identity(50)


@attrs.define
class Bench:
    """A core and a hand to feed it."""

    core: DhtCore
    now: float = 0.0

    def tell(self, data: bytes, source: SocketAddress = SOURCE) -> list[tuple[Message, SocketAddress, int]]:
        """Feed a datagram; returns what is sent, decoded, with destination and size."""
        self.core.receive_datagrams(Received(memoryview(data), max(len(data), 1), source), self.now)
        sent = list(self.core.datagrams_to_send(self.now))
        return [(decode_message(bytes(each.data)), each.destination, len(each.data)) for each in sent]

    def ask(self, body: Body, source: SocketAddress = SOURCE, who: Identity = ASKER) -> tuple[Message | None, int, int]:
        """Ask; returns the answer with its size, and the size of the request."""
        request = encode_message(body, bytes(20), who)
        for message, destination, size in self.tell(request, source):
            if message.transaction_id == bytes(20):
                assert destination == source
                return message, size, len(request)
        return None, 0, len(request)


def make_bench(neighbours: int = 100, config: DhtConfig | None = None) -> Bench:
    entropy = (number.to_bytes(32, "big") for number in itertools.count(1))
    core = DhtCore(
        identity(1),
        DhtConfig() if config is None else config,
        local_address=SocketAddress("0.0.0.0", 4121),
        entropy=lambda size: next(entropy)[-size:],
        unix_time=lambda: NOW,
    )
    core.start(0.0)
    for number in range(neighbours):
        core.table.prove(contact(number), 0.0)
    return Bench(core)


def prove_asker(bench: Bench) -> None:
    bench.core.handlers.note_proof(Contact.of(ASKER.address, SOURCE), 0.0)


def test_a_ping_is_answered_with_what_we_saw() -> None:
    message, _, _ = make_bench().ask(Ping(ASKER.address))
    assert message is not None
    assert message.body == Pong(identity(1).address, encode_observed(SOURCE))
    assert message.sender == identity(1).address


@pytest.mark.parametrize("source", [SOURCE, SocketAddress("2a00:1450::1", 5353)])
def test_answers_fit_a_datagram_and_name_as_many_as_fit(source: SocketAddress) -> None:
    bench = make_bench()
    bench.core.handlers.note_proof(Contact.of(ASKER.address, source), 0.0)
    message, size, _ = bench.ask(FindNode(contact(3).node_id), source)
    assert message is not None
    assert isinstance(message.body, FindNodeResponse)
    assert message.body.nodes is not None
    assert len(message.body.nodes) == (15 if source is SOURCE else 14)
    assert size <= 1200
    assert message.body.nodes[0].node_id == contact(3).node_id


def test_an_unproven_source_gets_at_most_three_times_what_it_sent() -> None:
    bench = make_bench()
    for body in (Ping(ASKER.address), FindNode(contact(3).node_id), FindValue(contact(3).node_id)):
        message, size, request = bench.ask(body)
        assert message is not None
        assert size <= 3 * request
    bench = make_bench()
    prove_asker(bench)
    _, size, request = bench.ask(FindNode(contact(3).node_id))
    assert size > 3 * request


def test_a_single_large_record_may_exceed_three_times_but_not_for_ever() -> None:
    bench = make_bench(config=DhtConfig(requests=RequestBudget(rate=1000, burst=1000, unproven_bytes=300)))
    agent = identity(60)
    record = sign_record(agent, 3, b"x" * 700, sequence=1, timestamp=NOW - 3, ttl=3600)
    bench.core.store.put(record, NOW)
    served = sum(
        isinstance(message.body, FindValueResponse) and bool(message.body.records)
        for _ in range(50)
        if (message := bench.ask(FindValue(agent.node_id))[0]) is not None
    )
    assert 0 < served <= 3


def test_the_largest_record_is_served_alone_or_gives_way_to_contacts() -> None:
    bench = make_bench()
    prove_asker(bench)
    agent = identity(60)
    record = sign_record(agent, 3, b"x" * 905, sequence=1, timestamp=NOW - 3, ttl=3600)
    message, _, _ = bench.ask(Store(record))
    assert message is not None
    assert message.body == StoreResponse(stored=True)
    message, size, _ = bench.ask(FindValue(agent.node_id))
    assert message is not None
    assert isinstance(message.body, FindValueResponse)
    assert message.body.records == (record,)
    assert size <= 1200
    far = SocketAddress("2a00:1450::1", 5353)  # 12 bytes more of observed address, and it no longer fits
    bench.core.handlers.note_proof(Contact.of(ASKER.address, far), 0.0)
    message, _, _ = bench.ask(FindValue(agent.node_id), far)
    assert message is not None
    assert isinstance(message.body, FindValueResponse)
    assert not message.body.records
    assert message.body.nodes


def test_a_full_topic_is_served_in_turn_and_says_that_there_is_more() -> None:
    bench = make_bench()
    prove_asker(bench)
    key = topic_key("ai/test")
    for number in range(30):
        bench.core.store.put(topic(identity(100 + number), "ai/test", brief="x" * 100), NOW, key=key)
    seen: set[SignedRecord] = set()
    for _ in range(12):
        message, size, _ = bench.ask(FindValue(key, 0x10))
        assert message is not None
        assert isinstance(message.body, FindValueResponse)
        assert size <= 1200
        assert len(message.body.nodes or ()) <= 1
        seen.update(message.body.records)
    assert len(seen) == 30


def test_store_answers_say_why() -> None:
    bench = make_bench()
    record = endpoint(ASKER)
    outcomes = []
    for each in (record, record, forged(record), endpoint(ASKER, timestamp=NOW + 100)):
        message, _, _ = bench.ask(Store(each))
        assert message is not None
        outcomes.append(message.body)
    invalid = StoreResponse(stored=False, reason=StoreReason.INVALID)
    assert outcomes == [StoreResponse(True), StoreResponse(True, already_had=True), invalid, invalid]
    full = make_bench(config=DhtConfig(store=attrs.evolve(DhtConfig().store, per_publisher_bytes=10)))
    message, _, _ = full.ask(Store(record))
    assert message is not None
    assert message.body == StoreResponse(stored=False, reason=StoreReason.POLICY)


def test_nat_echoes_go_only_to_the_askers_own_public_address_and_three_times() -> None:
    bench = make_bench()

    def echoes(claimed: SocketAddress, source: SocketAddress) -> list[SocketAddress]:
        request = NatProbeRequest(b"12345678", encode_observed(claimed))
        sent = bench.tell(encode_message(request, bytes(20), ASKER), source)
        return [to for message, to, _ in sent if isinstance(message.body, NatProbeEcho)]

    claimed = SocketAddress(SOURCE.host, 9)
    assert echoes(SocketAddress("8.8.4.5", 9), SOURCE) == []
    assert echoes(SocketAddress("10.0.0.1", 9), SocketAddress("10.0.0.1", 5)) == []
    assert [echoes(claimed, SOURCE) for _ in range(5)] == [[claimed], [claimed], [claimed], [], []]
    bench.now = 10.0
    assert echoes(claimed, SOURCE) == [claimed]


def test_a_pushed_record_is_acknowledged_and_only_a_good_one_is_handed_on() -> None:
    pushed: list[tuple[NodeId, SignedRecord]] = []
    bench = make_bench()
    core = bench.core

    def take(key: NodeId, record: SignedRecord) -> bool:
        pushed.append((key, record))
        return True

    core.handlers._on_push = take
    good = endpoint(ASKER)
    for record, renew in ((good, True), (forged(good), False)):
        message, _, _ = bench.ask(DhtPush(ASKER.node_id, record))
        assert message is not None
        assert message.body == DhtPushAck(ASKER.node_id, record.payload_id, renew)
    assert pushed == [(ASKER.node_id, good)]


def test_a_stranger_is_answered_and_asked_back_but_not_yet_a_contact() -> None:
    bench = make_bench(neighbours=0)
    sent = bench.tell(encode_message(FindNode(identity(1).node_id), bytes(20), ASKER))
    kinds = [type(message.body) for message, _, _ in sent]
    assert sorted(kind.__name__ for kind in kinds) == ["FindNodeResponse", "Ping"]
    assert len(bench.core.table) == 0
    ping = next(message for message, _, _ in sent if isinstance(message.body, Ping))
    pong = Pong(ASKER.address, encode_observed(SocketAddress("1.2.3.4", 5)))
    bench.tell(encode_message(pong, ping.transaction_id, ASKER))
    assert len(bench.core.table) == 1


@pytest.mark.parametrize("fault", ["source", "signer", "type"])
def test_an_answer_counts_only_from_who_was_asked(fault: str) -> None:
    bench = make_bench(neighbours=0)
    sent = bench.tell(encode_message(FindNode(identity(1).node_id), bytes(20), ASKER))
    ping = next(message for message, _, _ in sent if isinstance(message.body, Ping))
    signer = identity(51) if fault == "signer" else ASKER
    answer: Body = Pong(signer.address, encode_observed(SOURCE))
    if fault == "type":
        answer = FindNodeResponse(None, encode_observed(SOURCE))
    source = SocketAddress("9.9.9.9", 1) if fault == "source" else SOURCE
    bench.tell(encode_message(answer, ping.transaction_id, signer), source)
    held = {each.node_address for each in bench.core.table.contacts()}
    assert ASKER.address not in held
    # Who answered at that address has proven itself, whoever was asked for.
    assert held == ({signer.address} if fault == "signer" else set())


def test_a_node_needs_an_identity_of_its_own() -> None:
    agent = identity(1)
    proof = issue_delegation(identity(2).key, agent.public_key, issued_at=NOW, expires_at=0)
    delegated = Identity.delegated(agent.key, proof.encode(), now=NOW)
    with pytest.raises(ConfigurationError, match="identity of its own"):
        DhtCore(delegated, DhtConfig(), local_address=SOURCE, entropy=lambda size: bytes(size), unix_time=lambda: NOW)


BODIES: list[Body] = [
    Ping(ASKER.address),
    FindNode(contact(1).node_id),
    FindValue(contact(1).node_id, 1, subscribe=True),
    Store(endpoint(ASKER)),
    Pong(ASKER.address, encode_observed(SOURCE)),
    FindNodeResponse((contact(5).info(),), encode_observed(SOURCE)),
    FindValueResponse(None, encode_observed(SOURCE), (endpoint(ASKER),)),
    StoreResponse(stored=True),
    NatProbeRequest(b"12345678", encode_observed(SOURCE)),
    NatProbeEcho(b"12345678"),
    DhtPush(ASKER.node_id, endpoint(ASKER)),
    DhtPushAck(ASKER.node_id, bytes(32)),
]
MESSAGES = [encode_message(body, bytes([number]) * 20, ASKER) for number, body in enumerate(BODIES)]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=1300),
            st.sampled_from(MESSAGES),
            st.tuples(st.sampled_from(MESSAGES), st.integers(0, 400), st.integers(1, 255)).map(
                lambda each: (
                    each[0][: each[1]] + bytes([each[0][each[1] % len(each[0])] ^ each[2]]) + each[0][each[1] + 1 :]
                )
            ),
        ),
        max_size=8,
    )
)
def test_any_datagrams_leave_the_node_serving(datagrams: list[bytes]) -> None:
    bench = make_bench(neighbours=5)
    for data in datagrams:
        for _, _, size in bench.tell(data):
            assert size <= 1200
        bench.core.inject(data, ASKER.node_id, SOURCE, bench.now)
        bench.now += 1.0
        bench.core.handle_timeout(bench.now)
        list(bench.core.datagrams_to_send(bench.now))
    message, _, _ = bench.ask(Ping(ASKER.address))
    assert message is not None


def test_a_record_too_large_for_a_datagram_comes_by_connection_and_harms_nothing() -> None:
    bench = make_bench()
    core = bench.core
    record = sign_record(ASKER, 3, b"x" * 5000, sequence=1, timestamp=NOW - 3, ttl=3600)
    core.inject(encode_message(Store(record), bytes(20), ASKER, limit=65536), ASKER.node_id, SOURCE, 0.0)
    assert core.store.get(ASKER.node_id, NOW) == [record]
    core.table.prove(contact(999), 1.0)
    core.holding.newcomer(contact(999), 1.0)
    for at in range(0, 3000, 10):
        core.handle_timeout(float(at))
        list(core.datagrams_to_send(float(at)))


def test_storing_the_same_record_again_and_again_costs_no_memory() -> None:
    bench = make_bench(config=DhtConfig(requests=RequestBudget(rate=10_000, burst=10_000)))
    for _ in range(500):
        bench.ask(Store(endpoint(ASKER)))
    assert len(bench.core.holding._due) == 1
    assert len(bench.core.timers) < 500


def test_a_subscriber_is_pushed_the_next_record_and_again_if_it_renews() -> None:
    bench = make_bench()
    key = topic_key("ai/test")
    bench.core.store.put(topic(identity(100), "ai/test"), NOW, key=key)

    def pushes(number: int) -> list[Message]:
        record = topic(identity(number), "ai/test")
        sent = bench.tell(encode_message(Store(record, key), bytes([number]) * 20, identity(51)))
        return [message for message, to, _ in sent if isinstance(message.body, DhtPush) and to == SOURCE]

    bench.ask(FindValue(key, 0x10, subscribe=True))
    assert not pushes(101), "its address is not proven"
    prove_asker(bench)
    bench.ask(FindValue(key, 0x10, subscribe=True))
    (push,) = pushes(102)
    assert isinstance(push.body, DhtPush)
    assert push.body.record == topic(identity(102), "ai/test")
    ack = DhtPushAck(key, push.body.record.payload_id, renew=True)
    bench.tell(encode_message(ack, push.transaction_id, ASKER))
    assert len(pushes(103)) == 1
    assert not pushes(104), "that one was not renewed"
    bench.ask(FindValue(key, 0x10, subscribe=True))
    bench.now += 61
    assert not pushes(105), "a subscription lasts a minute"
