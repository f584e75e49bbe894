"""How a routing table is kept true: who is asked again, who leaves, and that nobody waits for it."""

from __future__ import annotations

from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import as_int, random_id_in_bucket, to_node_id
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import FindNode, Ping
from a2al_trio.wire.messages import parse_message
from a2al_trio.wire.nodes import NodeInfo
from benchmarks.dht_swarm import Node, Swarm
from tests.dht.hostile import Hostile, signer_near
from tests.dht.support import always

CONFIG = DhtConfig(bucket_size=2, replacements=3, passive=True)  # no searches of its own
ONE_WAY = 0.02


def lone_node(config: DhtConfig = CONFIG) -> tuple[Swarm, Node]:
    swarm = Swarm(1, config, verify=always, latency=(ONE_WAY, ONE_WAY))
    return swarm, swarm.add()


def neighbour(swarm: Swarm, node: Node, number: int, *, bucket: int = 0) -> Hostile:
    """A scripted node in a bucket of that node's table; it answers PING and names nobody."""
    region = to_node_id(random_id_in_bucket(node.running.env.own, bucket, lambda size: bytes(size)))
    return Hostile(swarm, signer_near(region, bucket + 1, number))


def key_of(peer: Hostile) -> int:
    return as_int(peer.signer.address.node_id)


def meet(swarm: Swarm, node: Node, peer: Hostile) -> None:
    peer.say(node.address, Ping(peer.signer.address))
    swarm.run_for(5)


def is_known(node: Node, peer: Hostile) -> bool:
    return node.running.table.get(key_of(peer)) is not None


def test_a_dead_entry_of_a_full_bucket_gives_way_and_the_newcomer_is_answered_at_once() -> None:
    swarm, node = lone_node()
    dead, alive, newcomer = (neighbour(swarm, node, number) for number in range(3))
    meet(swarm, node, dead)
    meet(swarm, node, alive)
    swarm.run_for(400)
    swarm.kill(dead.node)
    answers: list[float] = []
    plain = newcomer.node.deliver
    assert plain is not None

    def deliver(data: bytes, source: SocketAddress, now: float) -> None:
        if parse_message(data).message_type == 4:
            answers.append(now)
        plain(data, source, now)

    newcomer.node.deliver = deliver
    asked = swarm.now
    newcomer.say(node.address, FindNode(node.identity.node_id))
    swarm.run_for(15)
    assert answers[0] - asked <= 2 * ONE_WAY + 1e-6
    assert is_known(node, newcomer)
    assert is_known(node, alive)
    assert not is_known(node, dead)


def test_entries_that_answer_keep_newcomers_out_until_one_falls_silent() -> None:
    swarm, node = lone_node()
    first, second, newcomer = (neighbour(swarm, node, number) for number in range(3))
    meet(swarm, node, first)
    meet(swarm, node, second)
    swarm.run_for(400)
    before = first.requests
    meet(swarm, node, newcomer)
    assert first.requests == before + 1, "the least recently proven is checked"
    assert is_known(node, first)
    assert is_known(node, second)
    assert not is_known(node, newcomer)
    swarm.kill(first.node)
    swarm.run_for(3600)
    assert not is_known(node, first)
    assert is_known(node, newcomer), "it waited among the replacements"


def test_proven_entries_are_proven_again_and_leave_after_repeated_silence() -> None:
    swarm, node = lone_node()
    faithful, silent = (neighbour(swarm, node, number) for number in range(2))
    meet(swarm, node, faithful)
    meet(swarm, node, silent)
    swarm.kill(silent.node)
    swarm.run_for(CONFIG.fresh_for + 60)
    entry = node.running.table.get(key_of(faithful))
    assert entry is not None
    assert entry.verified_at > swarm.now - CONFIG.fresh_for
    assert not is_known(node, silent)


def test_hearsay_becomes_a_contact_only_by_its_own_answer() -> None:
    swarm, node = lone_node()
    gossip, real = (neighbour(swarm, node, number) for number in range(2))
    ghost = signer_near(real.signer.address.node_id, 1, 77).address
    names = [real.info, NodeInfo.of(ghost, SocketAddress("66.1.2.3", 4121))]
    gossip.names = lambda target: names
    meet(swarm, node, gossip)
    swarm.wait(node, node.commands.find_node(swarm.identity().node_id, swarm.now))
    swarm.run_for(120)
    assert is_known(node, real)
    assert node.running.table.get(as_int(ghost.node_id)) is None


def test_a_named_node_whose_id_is_not_that_of_its_address_is_dropped() -> None:
    swarm, node = lone_node()
    gossip, lure = (neighbour(swarm, node, number) for number in range(2))
    other = neighbour(swarm, node, 5).signer.address
    gossip.names = lambda target: [NodeInfo(lure.signer.address, other.node_id, bytes([88, 1, 1, 1]), 4121)]
    meet(swarm, node, gossip)
    swarm.wait(node, node.commands.find_node(swarm.identity().node_id, swarm.now))
    swarm.run_for(120)
    assert len(node.running.table) == 1
    assert lure.requests == 0


def test_waiting_buckets_take_turns() -> None:
    swarm, node = lone_node()
    table = node.running.table
    # Nobody answers in the ten near buckets, which always have somebody new to ask; one far bucket has one contact.
    for bucket in range(2, 12):
        for number in range(3):
            address = signer_near(to_node_id(node.running.env.own ^ 1 << 255 - bucket), bucket + 1, number).address
            table.hear(Contact.of(address, SocketAddress(f"66.{bucket}.{number}.1", 4121)), swarm.now)
    far = neighbour(swarm, node, 1)
    assert table.hear(Contact.of(far.signer.address, far.node.address), swarm.now)
    swarm.run_for(60)
    assert is_known(node, far)


def test_peers_that_all_failed_are_still_asked_rather_than_nobody() -> None:
    swarm, node = lone_node()
    peer = neighbour(swarm, node, 1)
    meet(swarm, node, peer)
    entry = node.running.table.get(key_of(peer))
    assert entry is not None
    entry.failures = 2
    node.running.health.failure(key_of(peer), swarm.now)
    node.running.health.failure(key_of(peer), swarm.now)
    result = swarm.wait(node, node.commands.find_node(swarm.identity().node_id, swarm.now))
    assert [contact.key for contact in result.closest] == [key_of(peer)]
    assert entry.failures == 0
