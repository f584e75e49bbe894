"""A DHT of many whole nodes in virtual time: how far and how dear searches are, what is found, what a node weighs.

`--nodes N` sets the size; `--churn` searches a second time while 30 % of the nodes are replaced per virtual hour and
5 % of all datagrams are lost. Signatures are real; `--share-checks` lets all nodes share one cache of signature checks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

from a2al_trio.dht.operation import Operation
from a2al_trio.dht.query import QueryMode, QueryResult
from a2al_trio.identity import Identity
from a2al_trio.wire.records import RecordType
from benchmarks.dht_swarm import CheckCache, Node, Swarm, endpoint_record
from benchmarks.framework import OURS, Benchmark, Figures, Measurement

__all__ = ["BENCHMARK", "run"]

RECORDS = 200
SEARCHES = 2000
AT_ONCE = 50
SETTLE_S = 30.0
CHURN_PER_HOUR = 0.3
CHURN_LOSS = 0.05
CHURN_S = 300.0


def run(nodes: int, *, churn: bool, share_checks: bool, seed: int = 1) -> Figures:
    """Grow a network, publish in it, search in it."""
    began, before = time.perf_counter(), resident_kib()
    swarm = Swarm(seed, verify=CheckCache() if share_checks else None)
    swarm.add()
    swarm.grow(nodes - 1)
    joined = swarm.delivered
    swarm.run_for(SETTLE_S)
    agents = [swarm.identity() for _ in range(RECORDS)]
    publishers = publish_all(swarm, agents)
    weight = (resident_kib() - before) / nodes
    figures = summary(search_all(swarm, agents, keep=publishers, churn=False))
    if churn:
        swarm.loss = CHURN_LOSS
        shaken = summary(search_all(swarm, agents, keep=publishers, churn=True))
        figures |= {f"churn_{name}": value for name, value in shaken.items()}
    return {
        "nodes": nodes,
        **figures,
        "messages_per_join": joined / nodes,
        "contacts_per_node": statistics.mean(len(node.running.table) for node in swarm.nodes),
        "node_kib": weight,
        "peak_process_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "message_us": (time.perf_counter() - began) / swarm.delivered * 1e6,
        "run_s": time.perf_counter() - began,
    }


def summary(searches: list[QueryResult]) -> dict[str, float]:
    """What the searches found, how many hops away and at what price."""
    found = sum(bool(each.records) for each in searches)
    hops = sorted(each.hops for each in searches if each.records)
    return {
        "found_percent": 100 * found / len(searches),
        "hops_median": statistics.median(hops),
        "hops_p99": hops[int(0.99 * (len(hops) - 1))],
        "hops_mean": statistics.mean(hops),
        "messages_per_search": 2 * statistics.mean(each.requests for each in searches),
    }


def publish_all(swarm: Swarm, agents: list[Identity]) -> set[Node]:
    """Publish each agent's record from some node, a few at a time; returns the publishers."""
    publishers: set[Node] = set()
    for start in range(0, len(agents), AT_ONCE):
        pending = []
        for agent in agents[start : start + AT_ONCE]:
            node = swarm.random.choice(swarm.nodes)
            publishers.add(node)
            record = endpoint_record(agent, swarm.now)
            pending.append((node, node.commands.publish(record, None, swarm.now)))
        swarm.wait_all(pending)
    return publishers


def search_all(swarm: Swarm, agents: list[Identity], *, keep: set[Node], churn: bool) -> list[QueryResult]:
    """Search for random agents from random nodes, while nodes come and go if `churn`."""
    results: list[QueryResult] = []
    rounds = SEARCHES // AT_ONCE
    total = CHURN_PER_HOUR * len(swarm.nodes) * CHURN_S / 3600
    due = 0.0
    for _ in range(rounds):
        if churn:
            due += total / rounds
            while due >= 1:
                due -= 1
                replace_one(swarm, keep)
                swarm.run_for(CHURN_S / total)
        settled = swarm.nodes if not churn else swarm.nodes[: len(swarm.nodes) - 20]
        pending: list[tuple[Node, Operation[QueryResult]]] = []
        for _ in range(AT_ONCE):
            node = swarm.random.choice(settled)
            key = swarm.random.choice(agents).address.node_id
            search = node.running.searches.search(key, QueryMode.NEWEST, swarm.now, record_type=RecordType.ENDPOINT)
            pending.append((node, search))
        swarm.wait_all(pending)
        results += [search.value() for _, search in pending]
    return results


def replace_one(swarm: Swarm, keep: set[Node]) -> None:
    """One node vanishes, another one joins; publishers stay, they are who republishes."""
    victim = swarm.random.choice([node for node in swarm.random.sample(swarm.nodes, 20) if node not in keep])
    swarm.kill(victim)
    swarm.add(seeds=[node.address for node in swarm.random.sample(swarm.nodes, 3)])


def resident_kib() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--nodes", type=int, default=100, help="how many nodes (default: 100)")
    parser.add_argument("--churn", action="store_true", help="then search while nodes come and go and datagrams vanish")
    parser.add_argument("--share-checks", action="store_true", help="one signature check per record and process")


def configure(options: argparse.Namespace) -> Callable[[], Measurement]:
    """The measurement those options ask for."""
    return partial(measure, options.nodes, churn=options.churn, share_checks=options.share_checks)


def measure(nodes: int = 100, *, churn: bool = False, share_checks: bool = False) -> Measurement:
    """One network."""
    return {OURS: run(nodes, churn=churn, share_checks=share_checks)}


BENCHMARK = Benchmark(
    "dht_scale",
    "a DHT of N whole nodes in virtual time (--nodes N, --churn)",
    measure,
    rounds=1,
    add_options=add_options,
    configure=configure,
)
