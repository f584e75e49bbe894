"""Whole networks of nodes in virtual time: joining, searching, losing nodes, partitions."""

from __future__ import annotations

import pytest

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import as_int
from a2al_trio.dht.events import DhtEvent, MailWaiting
from a2al_trio.dht.health import HealthState
from a2al_trio.dht.query import QueryMode
from a2al_trio.errors import RecordNotFound
from a2al_trio.identity import Identity, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import Ping, StoreResponse, WaitingMail
from a2al_trio.wire.payloads import topic_key
from a2al_trio.wire.records import RecordType, SignedRecord, sign_record
from benchmarks.dht_swarm import START, CheckCache, Node, Swarm, endpoint_record
from tests.dht.hostile import FakeSigner, Hostile
from tests.dht.support import always, topic


def make_swarm(count: int, *, seed: int = 1, loss: float = 0.0) -> Swarm:
    swarm = Swarm(seed, loss=loss, verify=CheckCache())
    swarm.add()
    swarm.grow(count - 1)
    swarm.run_for(20)
    return swarm


def publish(swarm: Swarm, publisher: Node, record: SignedRecord, key: NodeId | None = None) -> int:
    publication = swarm.wait(publisher, publisher.commands.publish(record, key, swarm.now))
    return len(publication.replicas)


def holders(swarm: Swarm, key: NodeId) -> list[Node]:
    return [node for node in swarm.nodes if node.core and node.core.store.get(key, START + int(swarm.now))]


def finders(swarm: Swarm, agents: list[Identity], *, askers: list[Node] | None = None) -> tuple[int, int]:
    """How many of the searches for the agents succeed, from every asker, and how many there were."""
    askers = [node for node in swarm.nodes if node.core] if askers is None else askers
    searches = []
    for node in askers:
        agent = swarm.random.choice(agents)
        operation = node.running.survey.find_records(
            agent.address.node_id, QueryMode.NEWEST, swarm.now, record_type=RecordType.ENDPOINT
        )
        searches.append((node, operation))
    swarm.wait_all(searches)
    return sum(bool(operation.value().records) for _, operation in searches), len(searches)


def test_the_nearest_nodes_are_found_and_hold_what_is_published() -> None:
    swarm = make_swarm(50)
    agent = swarm.identity()
    key = agent.address.node_id
    publisher = swarm.nodes[5]
    assert publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address)) == 8
    target = int.from_bytes(key, "big")
    nearest = sorted((n for n in swarm.nodes if n is not publisher), key=lambda n: n.running.env.own ^ target)
    held = [node for node in holders(swarm, key) if node is not publisher]
    assert len(held) == 8
    assert set(held) <= set(nearest[:10])
    assert finders(swarm, [agent]) == (50, 50)


def test_searches_survive_loss() -> None:
    swarm = make_swarm(60, loss=0.1)
    agents = [swarm.identity() for _ in range(5)]
    for agent in agents:
        node = swarm.random.choice(swarm.nodes)
        assert publish(swarm, node, endpoint_record(agent, swarm.now, node.address)) == 8
    found, tried = finders(swarm, agents)
    assert found == tried


def test_a_set_larger_than_an_answer_is_collected() -> None:
    swarm = make_swarm(30)
    key = topic_key("ai/test")
    people = [swarm.identity() for _ in range(40)]
    for person in people:
        node = swarm.random.choice(swarm.nodes)
        publish(swarm, node, topic(person, "ai/test", timestamp=START + int(swarm.now), brief="x" * 100), key)
    asker = swarm.nodes[11]
    found = swarm.wait(asker, asker.commands.find_all(key, RecordType.TOPIC, swarm.now, subscribe=False))
    assert {record.address for record in found} == {person.address for person in people}


def test_a_record_outlives_its_publisher_and_all_holders_but_one() -> None:
    swarm = make_swarm(50)
    agent = swarm.identity()
    publisher = swarm.nodes[5]
    publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address))
    swarm.kill(publisher)
    for node in holders(swarm, agent.address.node_id)[1:]:
        swarm.kill(node)
    assert len(holders(swarm, agent.address.node_id)) == 1
    swarm.run_for(1800)
    assert len(holders(swarm, agent.address.node_id)) >= 6
    found, tried = finders(swarm, [agent])
    assert found == tried


def test_a_publisher_replaces_holders_that_vanish() -> None:
    swarm = make_swarm(50)
    agent = swarm.identity()
    publisher = swarm.nodes[5]
    publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address))
    for node in [node for node in holders(swarm, agent.address.node_id) if node is not publisher][:6]:
        swarm.kill(node)
    swarm.run_for(300)
    assert len(holders(swarm, agent.address.node_id)) >= 8


def test_a_newcomer_nearest_the_key_is_handed_the_record() -> None:
    swarm = make_swarm(40)
    agent = swarm.identity()
    key = agent.address.node_id
    publisher = swarm.nodes[5]
    publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address))
    swarm.kill(publisher)
    goal = int.from_bytes(key, "big")
    identity = swarm.identity()
    while (int.from_bytes(identity.node_id, "big") ^ goal).bit_length() > 256 - 8:
        identity = swarm.identity()
    newcomer = swarm.add(identity=identity, seeds=[swarm.nodes[9].address])
    swarm.run_for(60)
    assert newcomer.running.store.get(key, START + int(swarm.now))


def test_a_new_publication_during_a_run_is_replicated_too() -> None:
    swarm = make_swarm(30)
    agent = swarm.identity()
    publisher = swarm.nodes[5]
    first = publisher.commands.publish(
        endpoint_record(agent, swarm.now, publisher.address, sequence=1), None, swarm.now
    )
    swarm.run_for(0.05)
    newer = endpoint_record(agent, swarm.now, publisher.address, sequence=2)
    second = publisher.commands.publish(newer, None, swarm.now)
    swarm.wait_all([(publisher, first), (publisher, second)])
    assert second.value().record == newer
    now = START + int(swarm.now)
    held = [node.running.store.get(agent.address.node_id, now) for node in holders(swarm, agent.address.node_id)]
    assert len(held) == 9
    assert all(records == [newer] for records in held)


def test_endpoint_and_profile_of_one_agent_are_two_units() -> None:
    swarm = make_swarm(20)
    agent = swarm.identity()
    publisher = swarm.nodes[5]
    profile = sign_record(
        agent, RecordType.PROFILE, b"\xa1\x01\x01", sequence=1, timestamp=START + int(swarm.now), ttl=3600
    )
    operations = [
        publisher.commands.publish(record, None, swarm.now)
        for record in (endpoint_record(agent, swarm.now, publisher.address), profile)
    ]
    swarm.wait_all([(publisher, operation) for operation in operations])
    asker = swarm.nodes[9]
    for kind in (RecordType.ENDPOINT, RecordType.PROFILE):
        operation = asker.commands.find_newest(agent.address.node_id, kind, swarm.now, local=True)
        assert swarm.wait(asker, operation).record_type == kind


def test_nothing_is_kept_alive_after_its_ttl() -> None:
    swarm = make_swarm(20)
    agent = swarm.identity()
    publisher = swarm.nodes[5]
    publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address, ttl=600))
    swarm.run_for(1500)
    assert not holders(swarm, agent.address.node_id)
    assert len(publisher.running.replication) == 0
    asker = swarm.nodes[9]
    operation = asker.commands.find_newest(agent.address.node_id, 1, swarm.now, local=True)
    with pytest.raises(RecordNotFound, match="nodes were asked"):
        swarm.wait(asker, operation)


def test_a_healed_partition_resolves_everything_from_both_sides() -> None:
    swarm = make_swarm(40)
    agents = {side: [swarm.identity() for _ in range(4)] for side in ("before", "left", "right")}
    for agent in agents["before"]:
        node = swarm.random.choice(swarm.nodes)
        publish(swarm, node, endpoint_record(agent, swarm.now, node.address))
    for number, node in enumerate(swarm.nodes):
        node.group = number % 2
    swarm.partitioned = True
    swarm.run_for(120)
    for group, side in enumerate(("left", "right")):
        members = [node for node in swarm.nodes if node.group == group]
        for agent in agents[side]:
            node = swarm.random.choice(members)
            publish(swarm, node, endpoint_record(agent, swarm.now, node.address))
    swarm.run_for(480)
    swarm.partitioned = False
    swarm.run_for(120)
    for group in (0, 1):
        askers = [node for node in swarm.nodes if node.group == group]
        for published in agents.values():
            found, tried = finders(swarm, published, askers=askers)
            assert found == tried


def test_churn_and_loss_lose_next_to_nothing() -> None:
    """30 % of the nodes are replaced per virtual hour, 5 % of the datagrams vanish."""
    swarm = make_swarm(40, loss=0.05)
    agents = [swarm.identity() for _ in range(10)]
    publishers = swarm.nodes[:10]
    for agent, node in zip(agents, publishers, strict=True):
        publish(swarm, node, endpoint_record(agent, swarm.now, node.address))
    found = tried = 0
    keep = set(publishers)
    for _ in range(8):
        swarm.run_for(295)  # one of forty each 300 s
        victim = swarm.random.choice([node for node in swarm.nodes if node not in keep])
        swarm.kill(victim)
        swarm.add(seeds=[node.address for node in swarm.random.sample(swarm.nodes, 3)])
        swarm.run_for(5)
        more, asked = finders(swarm, agents, askers=swarm.random.sample(swarm.nodes, 20))
        found, tried = found + more, tried + asked
    assert found / tried >= 0.99


def test_an_idle_hour_is_cheap() -> None:
    swarm = make_swarm(20)
    before = swarm.delivered
    swarm.run_for(3600)
    per_node_and_minute = (swarm.delivered - before) / 20 / 60
    assert per_node_and_minute < 30


def test_a_node_that_lost_everybody_comes_back_through_its_seeds() -> None:
    swarm = make_swarm(10)
    loner = swarm.add(seeds=[swarm.nodes[0].address])
    swarm.run_for(30)
    loner.group = 1
    swarm.partitioned = True
    swarm.run_for(3 * 3600)
    assert len(loner.running.table) == 0
    swarm.partitioned = False
    swarm.run_for(400)
    assert len(loner.running.table) >= 9


def test_an_answer_three_seconds_late_is_taken_and_charges_nobody() -> None:
    """As the reference's first answer is (spec 03 §19.14)."""
    swarm = make_swarm(10)
    late: list[tuple[bytes, SocketAddress]] = []
    slow = Hostile(swarm, FakeSigner(bytes(32)))
    asker = swarm.nodes[3]
    asker.running.env.verify = always
    slow.node.deliver = lambda data, source, now: late.append((data, source))
    target = slow.signer.address.node_id
    asker.running.table.prove(Contact.of(slow.signer.address, slow.node.address), swarm.now)
    search = asker.commands.find_node(target, swarm.now)
    swarm.drain(asker)
    swarm.run_for(3.0)
    assert search.done, "the search did not wait for it"
    assert slow.signer.address not in [contact.node_address for contact in search.value().closest]
    for data, source in late:
        slow.deliver(data, source, swarm.now)
    swarm.run_for(3.0)
    key = as_int(target)
    assert asker.running.health.state(key) is HealthState.GOOD
    entry = asker.running.table.get(key)
    assert entry is not None
    assert entry.failures == 0


def test_in_passive_mode_nothing_is_refilled() -> None:
    swarm = make_swarm(5)
    node = swarm.nodes[0]
    node.running.maintenance.passive = True
    before = node.running.searches.counters.started
    agent = swarm.identity()
    assert publish(swarm, node, endpoint_record(agent, swarm.now, node.address)) == 4
    swarm.run_for(600)
    assert node.running.searches.counters.started == before


def test_a_holder_tells_a_publisher_of_waiting_mail() -> None:
    swarm = Swarm(1, verify=always)
    publisher = swarm.add()
    holder = Hostile(swarm, FakeSigner(bytes(32)))
    hint = WaitingMail(RecordType.MAILBOX, 2, (bytes(32),))
    holder.stored = StoreResponse(stored=True, waiting_mail=(hint,))
    holder.say(publisher.address, Ping(holder.signer.address))
    swarm.run_for(5)
    told: list[DhtEvent] = []
    publisher.on_event = told.append
    agent = swarm.identity()
    assert publish(swarm, publisher, endpoint_record(agent, swarm.now, publisher.address)) == 1
    assert MailWaiting(agent.address, (hint,)) in told
