"""Keeping many records alive at once: bounded work, nothing forgotten."""

from __future__ import annotations

import pytest

from a2al_trio.dht.replication import PINGS_AT_ONCE, RUNS_AT_ONCE
from a2al_trio.identity import Identity
from benchmarks.dht_swarm import CheckCache, Node, Swarm, endpoint_record
from tests.dht.support import always


def make_swarm(count: int) -> Swarm:
    swarm = Swarm(1, verify=CheckCache())
    swarm.add()
    swarm.grow(count - 1)
    swarm.run_for(10)
    return swarm


def publish_at_once(swarm: Swarm, node: Node, count: int) -> list[Identity]:
    agents = [swarm.identity() for _ in range(count)]
    for agent in agents:
        node.commands.publish(endpoint_record(agent, swarm.now, node.address), None, swarm.now)
    swarm.drain(node)
    return agents


def holders(swarm: Swarm, agent: Identity) -> int:
    return sum(bool(node.running.store.get(agent.address.node_id, swarm.unix_seconds())) for node in swarm.nodes)


def test_many_records_are_replicated_a_few_at_a_time() -> None:
    swarm = make_swarm(20)
    publisher = swarm.nodes[3]
    agents = publish_at_once(swarm, publisher, 60)
    most_calls = most_pings = 0

    def look() -> bool:
        nonlocal most_calls, most_pings
        most_calls = max(most_calls, len(publisher.running.rpc))
        most_pings = max(most_pings, len(publisher.running.replication._pings))
        return False

    swarm.run_until(swarm.now + 60, stop=look)
    config = publisher.running.env.config
    resent = 3  # ids one request may have
    assert most_calls <= resent * (RUNS_AT_ONCE * config.alpha + PINGS_AT_ONCE + 64)
    assert 0 < most_pings <= PINGS_AT_ONCE
    assert all(holders(swarm, agent) >= 9 for agent in agents)


def test_a_lonely_node_with_many_records_neither_recurses_nor_floods() -> None:
    swarm = Swarm(1, verify=always)
    loner = swarm.add()
    publish_at_once(swarm, loner, 300)
    swarm.run_for(60)
    assert len(loner.running.replication) == 300
    friend = swarm.add(seeds=[loner.address])
    swarm.run_for(200)
    assert len(friend.running.store) == 300


def test_after_a_network_change_everything_is_stored_again() -> None:
    swarm = make_swarm(15)
    publisher = swarm.nodes[3]
    agents = publish_at_once(swarm, publisher, 5)
    swarm.run_for(20)
    for node in swarm.nodes:
        for agent in agents:
            node.running.store.invalidate(agent.address.node_id)
    assert [holders(swarm, agent) for agent in agents] == [1] * 5
    publisher.running.maintenance.network_changed(swarm.now)
    swarm.drain(publisher)
    swarm.run_for(10)
    assert all(holders(swarm, agent) >= 9 for agent in agents)


@pytest.mark.parametrize("again", [1, 3])
def test_a_withdrawn_record_is_not_replicated_when_its_turn_comes(again: int) -> None:
    swarm = make_swarm(10)
    publisher = swarm.nodes[3]
    agents = publish_at_once(swarm, publisher, RUNS_AT_ONCE + 5)
    for _ in range(again):
        publisher.running.replication.renew_all(swarm.now)
    for agent in agents[-5:]:
        assert publisher.commands.withdraw(agent.address) == 1
    swarm.run_for(30)
    assert [holders(swarm, agent) for agent in agents] == [9] * RUNS_AT_ONCE + [0] * 5
