"""A DHT of many whole nodes in virtual time: how far and how dear searches are, what is found, what a node weighs.

`--nodes N` sets the size; `--churn` searches a second time while 30 % of the nodes are replaced per virtual hour and
5 % of all datagrams are lost. Nobody is spared: publishers go like others, and what they published is kept alive by
its holders. Signatures are real; `--share-checks` lets all nodes share one cache of signature checks.

Large networks take a while, so progress and the figures had so far go to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import attrs

from a2al_trio.dht.operation import Operation
from a2al_trio.dht.query import QueryMode, QueryResult
from a2al_trio.identity import Identity
from a2al_trio.wire.records import RecordType
from benchmarks.dht_swarm import CheckCache, Node, Swarm, endpoint_record
from benchmarks.framework import OURS, Benchmark, Figures, Measurement

__all__ = ["BENCHMARK", "run"]

RECORDS = 200
RECORD_TTL = 7200
SEARCHES = 2000
AT_ONCE = 50
GROWTH_S = 100.0
"""A network grows to its full size in about this many virtual seconds, a small one sooner."""
SETTLE_S = 30.0
CHURN_PER_HOUR = 0.3
CHURN_LOSS = 0.05
CHURN_S = 300.0
NEWEST = 20
"""So many nodes are too young to search from, as they may still be joining."""


class Progress:
    """Tells on stderr how far a run is, and what each part of it took."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._cpu, self._messages = time.process_time(), 0

    def note(self, text: str) -> None:
        """One line: what is done, virtual time, messages and CPU time since the last line, memory."""
        cpu, messages = time.process_time(), self._swarm.delivered
        spent, delivered = cpu - self._cpu, messages - self._messages
        print(
            f"{text}: {self._swarm.now:.0f} virtual s, {delivered} messages in {spent:.1f} s of CPU,"
            f" {resident_kib() // 1024} MiB",
            file=sys.stderr,
            flush=True,
        )
        self._cpu, self._messages = cpu, messages

    def figures(self, figures: Figures) -> None:
        """The figures had so far, for whoever will not wait for the end."""
        print(json.dumps(figures), file=sys.stderr, flush=True)


@contextlib.contextmanager
def reference_counting_only() -> Iterator[None]:
    """No garbage collector meanwhile: nodes make no cycles, and to look at millions of objects for some takes long."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(nodes: int, *, churn_s: float = 0.0, share_checks: bool = False, seed: int = 1) -> Figures:
    """Grow a network, publish in it, search in it; then search for `churn_s` seconds while it changes."""
    began, before = time.process_time(), resident_kib()
    swarm = Swarm(seed, verify=CheckCache() if share_checks else None)
    progress = Progress(swarm)
    with reference_counting_only():
        grow(swarm, nodes, progress)
        joined = swarm.delivered
        swarm.run_for(SETTLE_S)
        idle = (swarm.delivered - joined) / SETTLE_S / nodes
        weight = (resident_kib() - before) / nodes
        progress.note("settled")
        agents = [swarm.identity() for _ in range(RECORDS)]
        publish_all(swarm, agents)
        figures: dict[str, float] = {
            "nodes": nodes,
            **summary(search_all(swarm, agents)),
            "messages_per_join": joined / nodes,
            "messages_per_node_s": idle,
            "contacts_per_node": statistics.mean(len(node.running.table) for node in swarm.nodes),
            "node_kib": weight,
        }
        progress.note("published and searched")
        progress.figures(figures)
        if churn_s:
            swarm.loss = CHURN_LOSS
            shaken = summary(search_all(swarm, agents, churn_s=churn_s))
            shaken["values_lost"] = sum(not is_held(swarm, agent) for agent in agents)
            figures |= {f"churn_{name}": value for name, value in shaken.items()}
            progress.note("searched amid churn")
    return figures | {
        "peak_process_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "message_us": (time.process_time() - began) / swarm.delivered * 1e6,
        "cpu_s": time.process_time() - began,
    }


def grow(swarm: Swarm, nodes: int, progress: Progress) -> None:
    """Let nodes join one after the other."""
    swarm.add()
    for part in range(10):
        swarm.grow((nodes - 1) * (part + 1) // 10 - (nodes - 1) * part // 10, gap=min(0.05, GROWTH_S / nodes))
        progress.note(f"{len(swarm.nodes)} nodes")


def is_held(swarm: Swarm, agent: Identity) -> bool:
    """Whether any living node has the agent's record."""
    key, unix_now = agent.address.node_id, swarm.unix_seconds()
    return any(node.running.store.get(key, unix_now, RecordType.ENDPOINT) for node in swarm.nodes)


@attrs.frozen
class Search:
    """What is counted of one search."""

    found: bool
    hops: int
    requests: int

    @classmethod
    def of(cls, result: QueryResult) -> Search:
        """The figures of a result, without the contacts and records it holds."""
        return cls(bool(result.records), result.hops, result.requests)


def summary(searches: list[Search]) -> dict[str, float]:
    """What the searches found, how many hops away and at what price."""
    found = sum(each.found for each in searches)
    hops = sorted(each.hops for each in searches if each.found)
    return {
        "found_percent": 100 * found / len(searches),
        "hops_median": statistics.median(hops),
        "hops_p99": hops[int(0.99 * (len(hops) - 1))],
        "hops_mean": statistics.mean(hops),
        "messages_per_search": 2 * statistics.mean(each.requests for each in searches),
    }


def publish_all(swarm: Swarm, agents: list[Identity]) -> None:
    """Publish each agent's record from some node, a few at a time."""
    for start in range(0, len(agents), AT_ONCE):
        pending = []
        for agent in agents[start : start + AT_ONCE]:
            node = swarm.random.choice(swarm.nodes)
            record = endpoint_record(agent, swarm.now, node.address, ttl=RECORD_TTL)
            pending.append((node, node.commands.publish(record, None, swarm.now)))
        swarm.wait_all(pending)


def search_all(swarm: Swarm, agents: list[Identity], *, churn_s: float = 0.0) -> list[Search]:
    """Search for random agents from random nodes; with `churn_s` spread over that time, while nodes come and go."""
    results: list[Search] = []
    rounds = SEARCHES // AT_ONCE
    total = CHURN_PER_HOUR * len(swarm.nodes) * churn_s / 3600
    due = 0.0
    for _ in range(rounds):
        due += total / rounds
        while due >= 1:
            due -= 1
            replace_one(swarm)
            swarm.run_for(churn_s / total)
        settled = swarm.nodes[:-NEWEST] if churn_s else swarm.nodes
        pending: list[tuple[Node, Operation[QueryResult]]] = []
        for _ in range(AT_ONCE):
            node = swarm.random.choice(settled)
            key = swarm.random.choice(agents).address.node_id
            search = node.running.searches.search(key, QueryMode.NEWEST, swarm.now, record_type=RecordType.ENDPOINT)
            pending.append((node, search))
        swarm.wait_all(pending)
        results += [Search.of(search.value()) for _, search in pending]
    return results


def replace_one(swarm: Swarm) -> None:
    """One node vanishes without a word, another one joins."""
    swarm.kill(swarm.random.choice(swarm.nodes))
    swarm.add(seeds=[node.address for node in swarm.random.sample(swarm.nodes, 3)])


def resident_kib() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--nodes", type=int, default=100, help="how many nodes (default: 100)")
    parser.add_argument("--churn", action="store_true", help="then search while nodes come and go and datagrams vanish")
    parser.add_argument("--churn-minutes", type=float, default=CHURN_S / 60, help="for so long (default: %(default)g)")
    parser.add_argument("--share-checks", action="store_true", help="one signature check per record and process")


def configure(options: argparse.Namespace) -> Callable[[], Measurement]:
    """The measurement those options ask for."""
    churn_s = 60 * options.churn_minutes if options.churn else 0.0
    return partial(measure, options.nodes, churn_s=churn_s, share_checks=options.share_checks)


def measure(nodes: int = 100, *, churn_s: float = 0.0, share_checks: bool = False) -> Measurement:
    """One network."""
    return {OURS: run(nodes, churn_s=churn_s, share_checks=share_checks)}


BENCHMARK = Benchmark(
    "dht_scale",
    "a DHT of N whole nodes in virtual time (--nodes N, --churn)",
    measure,
    rounds=1,
    add_options=add_options,
    configure=configure,
)
