"""Attacks on the network, each with the number it must stay within (spec 03 §20)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import pytest

from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.query import QueryMode
from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import FindNode, Ping
from a2al_trio.wire.messages import encode_message
from a2al_trio.wire.nodes import NodeInfo
from a2al_trio.wire.records import RecordType
from benchmarks.dht_swarm import Node, Swarm, endpoint_record
from tests.dht.hostile import FakeSigner, Hostile, signer_near
from tests.dht.support import always

HONEST, SYBILS = 80, 20


def make_swarm(count: int, seed: int = 1) -> Swarm:
    swarm = Swarm(seed, verify=always)
    swarm.add()
    swarm.grow(count - 1)
    swarm.run_for(10)
    return swarm


def crowd(swarm: Swarm, key: NodeId, *, networks: int) -> list[Hostile]:
    """Sybils nearer to the key than any honest node; they name only each other and swallow what is stored."""
    sybils = []
    for number in range(SYBILS):
        host = f"77.{number % networks}.7.{number}"
        sybils.append(Hostile(swarm, signer_near(key, 11, number), SocketAddress(host, 4000 + number)))
    infos = [sybil.info for sybil in sybils]
    for sybil in sybils:
        sybil.names = lambda target: swarm.random.sample(infos, 14)
    honest = [node for node in swarm.nodes if node.core]
    for _ in range(2):
        for sybil in sybils:
            for victim in swarm.random.sample(honest, 20):
                sybil.say(victim.address, FindNode(key))
        swarm.run_for(10)
    return sybils


def success_rate(swarm: Swarm, agent: Identity, tries: int = 40) -> float:
    honest = [node for node in swarm.nodes if node.core]
    key, found = agent.address.node_id, 0
    operations = []
    for node in swarm.random.sample(honest, tries):
        search = node.running.survey.find_records(key, QueryMode.NEWEST, swarm.now, record_type=RecordType.ENDPOINT)
        operations.append((node, search))
    swarm.wait_all(operations)
    found = sum(bool(search.value().records) for _, search in operations)
    return found / tries


@pytest.mark.parametrize("networks", [5, SYBILS])
@pytest.mark.parametrize("published_first", [True, False])
def test_sybils_crowding_a_key_do_not_hide_it(networks: int, *, published_first: bool) -> None:
    """20 % of all nodes crowd one key, from few networks or from one each, before or after its publication."""
    swarm = make_swarm(HONEST)
    agent = swarm.identity()
    publisher = swarm.nodes[3]
    record = endpoint_record(agent, swarm.now, publisher.address)
    if published_first:
        swarm.wait(publisher, publisher.commands.publish(record, None, swarm.now))
        crowd(swarm, agent.address.node_id, networks=networks)
    else:
        crowd(swarm, agent.address.node_id, networks=networks)
        swarm.wait(publisher, publisher.commands.publish(record, None, swarm.now))
    swarm.kill(publisher)
    assert success_rate(swarm, agent) >= 0.95


def test_one_address_with_ten_thousand_identities_gets_its_share_of_no_table() -> None:
    swarm = make_swarm(25)
    honest = [node for node in swarm.nodes if node.core]
    for number in range(10_000):
        signer = FakeSigner(hashlib.sha256(b"identity %d" % number).digest())
        attacker = Hostile(swarm, signer, SocketAddress("66.6.6.6", 2000 + number))
        attacker.say(honest[number % 25].address, FindNode(signer.address.node_id))
        if number % 100 == 0:
            swarm.run_for(1.0)
    swarm.run_for(60)
    limits = DhtConfig().diversity
    for node in honest:
        table = node.running.table
        held = [entry.contact for entry in table if entry.contact.address.host == "66.6.6.6"]
        per_bucket = Counter(table.index(contact.key) for contact in held)
        assert len(held) <= limits.per_table
        assert max(per_bucket.values(), default=0) <= limits.per_bucket
        others = sum(entry.contact.address.host != "66.6.6.6" for entry in table)
        assert others >= 24 * 0.8


@pytest.mark.parametrize("same_network", [True, False])
def test_a_node_inventing_contacts_forever_does_not_hold_a_search(*, same_network: bool) -> None:
    swarm = make_swarm(30)
    liar = Hostile(swarm, FakeSigner(hashlib.sha256(b"liar").digest()))
    target = swarm.identity().address.node_id
    counter = iter(range(10**9))

    def invent(_target: NodeId) -> Sequence[NodeInfo]:
        infos = []
        for _ in range(14):
            number = next(counter)
            address = signer_near(target, 6, 1000 + number).address
            host = f"88.8.8.{number % 250}" if same_network else f"88.{number % 250}.{number // 250 % 250}.8"
            infos.append(NodeInfo.of(address, SocketAddress(host, 1000 + number % 60000)))
        return infos

    liar.names = invent
    for node in swarm.nodes:
        if node.core:
            liar.say(node.address, Ping(liar.signer.address))
    swarm.run_for(10)
    asker = swarm.nodes[5]
    began = swarm.now
    search = asker.commands.find_node(target, swarm.now)
    result = swarm.wait(asker, search)
    config = DhtConfig()
    assert result.requests <= config.lookup_budget
    assert swarm.now - began <= config.lookup_limit + 1
    others = [node for node in swarm.nodes if node.core and node is not asker]
    honest = sorted(node.running.env.own ^ int.from_bytes(target, "big") for node in others)
    found = {contact.key ^ int.from_bytes(target, "big") for contact in result.closest}
    assert len(found & set(honest[:16])) >= 12, "the honest nearest are found in spite of it"


def test_an_invented_contact_answered_by_somebody_else_proves_nothing() -> None:
    """One attacker answers at the addresses of many invented ids: they must not become contacts."""
    swarm = make_swarm(10)
    liar = Hostile(swarm, FakeSigner(hashlib.sha256(b"liar").digest()))
    invented = [signer_near(bytes([number]) + bytes(31), 6, number).address for number in range(50)]
    liar.names = lambda target: [NodeInfo.of(address, liar.node.address) for address in invented]
    victim = swarm.nodes[0]
    liar.say(victim.address, Ping(liar.signer.address))
    swarm.run_for(5)
    for _ in range(5):
        swarm.wait(victim, victim.commands.find_node(swarm.identity().address.node_id, swarm.now))
        swarm.run_for(20)
    held = {entry.contact.node_address for entry in victim.running.table}
    assert not held & set(invented)


def test_replayed_and_spoofed_requests_move_no_address() -> None:
    swarm = Swarm(3)  # real signatures: what is replayed is genuine
    swarm.add()
    swarm.grow(9)
    swarm.run_for(20)
    alice, bob = swarm.nodes[1], swarm.nodes[2]
    entry = bob.running.table.get(alice.running.env.own)
    assert entry is not None
    captured = [
        encode_message(body, swarm.random.randbytes(20), alice.identity)
        for body in (Ping(alice.identity.address), FindNode(bob.identity.node_id))
    ]
    elsewhere = swarm.add_scripted(lambda data, source, now: None, address=SocketAddress("99.9.9.9", 99))
    for _ in range(50):
        for message in captured:
            swarm.send(elsewhere, bob.address, message)
        swarm.run_for(2)
    entry = bob.running.table.get(alice.running.env.own)
    assert entry is not None
    assert entry.contact.address == alice.address
    assert bob.running.table.at_address(elsewhere.address) is None
    stranger = swarm.identity()
    swarm.send(elsewhere, bob.address, encode_message(Ping(stranger.address), bytes(20), stranger))
    swarm.run_for(30)
    assert bob.running.table.get(int.from_bytes(stranger.node_id, "big")) is None


def test_an_old_signed_record_does_not_win() -> None:
    """A third of the nodes nearest the key serve the agent's first record; the newest wins for everybody."""
    swarm = make_swarm(60)
    agent = swarm.identity()
    key = agent.address.node_id
    old = endpoint_record(agent, swarm.now, sequence=1)
    new = endpoint_record(agent, swarm.now, sequence=2)
    for number in range(5):
        replayer = Hostile(swarm, signer_near(key, 8, number))
        replayer.records = (old,)
        known = [NodeInfo.of(node.identity.address, node.address) for node in swarm.nodes if node.core]
        replayer.names = lambda target, known=known: swarm.random.sample(known, 14)  # type: ignore[misc]
        for node in swarm.nodes:
            if node.core:
                replayer.say(node.address, FindNode(key))
        swarm.run_for(5)
    publisher = swarm.nodes[7]
    swarm.wait(publisher, publisher.commands.publish(new, None, swarm.now))
    wins = 0
    askers = [node for node in swarm.nodes if node.core and node is not publisher]
    for node in askers:
        operation = node.commands.find_newest(key, RecordType.ENDPOINT, swarm.now, local=True)
        wins += swarm.wait(node, operation) == new
    assert wins == len(askers)


def test_a_flood_of_requests_delays_nobody_else() -> None:
    swarm = make_swarm(5)
    victim = swarm.nodes[0]
    flooder = Hostile(swarm, FakeSigner(hashlib.sha256(b"flood").digest()))
    for _ in range(5000):
        flooder.say(victim.address, FindNode(victim.identity.node_id))
    before = victim.running.handlers.answered
    began = swarm.now
    other: Node = swarm.nodes[3]
    result = swarm.wait(other, other.commands.ping(victim.address, swarm.now))
    assert swarm.now - began < 0.2
    assert result.contact.node_address == victim.identity.address
    swarm.run_for(1)
    budget = DhtConfig().requests
    assert victim.running.handlers.answered - before <= budget.burst + 2 * budget.rate
    assert victim.running.limiter.refused > 4000


def test_addresses_inside_a_network_are_taken_from_no_outsider() -> None:
    swarm = make_swarm(10)
    liar = Hostile(swarm, FakeSigner(hashlib.sha256(b"liar").digest()))
    inner = ["10.0.0.1", "127.0.0.1", "192.168.1.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]
    hits: list[SocketAddress] = []
    for host in inner:
        swarm.add_scripted(lambda data, source, now: hits.append(source), address=SocketAddress(host, 53))
    addresses = [Address(b"\xa0" + bytes([number] * 20)) for number in range(len(inner))]
    infos = [NodeInfo.of(address, SocketAddress(host, 53)) for address, host in zip(addresses, inner, strict=True)]
    liar.names = lambda target: infos
    victim = swarm.nodes[0]
    liar.say(victim.address, Ping(liar.signer.address))
    swarm.run_for(5)
    for _ in range(3):
        swarm.wait(victim, victim.commands.find_node(swarm.identity().address.node_id, swarm.now))
        swarm.run_for(30)
    assert not hits
