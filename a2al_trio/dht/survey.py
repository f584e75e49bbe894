"""Searching a crowded neighbourhood (an answer to sybil nodes placed around a key).

Node ids are hashes of keys anybody may make, so an attacker can put many nodes nearer to a key than any honest one;
they then are all a plain search ends at. It shows: the nearest nodes lie far denser than the size of the network
explains. The honest holders are still where they would be without the crowd, in the rest of the region around the key
that should hold about `REGION_NODES` nodes. A survey finds them by searches for points in that region beside the
crowd, and asks them for the key itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import ID_BITS, as_int, bucket_index, random_id_in_bucket, to_node_id
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.operation import Operation
from a2al_trio.dht.query import QueryMode, QueryResult
from a2al_trio.dht.routing import RoutingTable
from a2al_trio.dht.searches import Searches
from a2al_trio.dht.timers import Timers
from a2al_trio.identity.address import NodeId

__all__ = ["Survey", "is_crowded", "region_bits"]

REGION_NODES = 32
"""How many nodes the surveyed region should hold by the estimated size of the network."""
CROWDED = 6
"""How many times denser than expected the nearest nodes must lie to count as a crowd."""
SIDE_SEARCHES = 4
MIN_ANSWERS = 8


def region_bits(nodes: int) -> int:
    """How many leading bits the ids of a region share that holds about REGION_NODES of so many nodes."""
    return max(0, (nodes // REGION_NODES).bit_length() - 1)


def is_crowded(distances: Sequence[int], nodes: int) -> bool:
    """Whether the nodes that answered, nearest first, lie too near for a network of that size."""
    if nodes < REGION_NODES or len(distances) < MIN_ANSWERS:
        return False
    # The i-th nearest of n random ids lies at about i/n of the whole space.
    expected = (MIN_ANSWERS << ID_BITS) // nodes
    return distances[MIN_ANSWERS - 1] * CROWDED < expected


class Survey:
    """Searches that do not end in a crowd."""

    def __init__(self, env: Environment, timers: Timers, table: RoutingTable, searches: Searches) -> None:
        self._env = env
        self._timers = timers
        self._table = table
        self._searches = searches

    def network_size(self) -> int:
        """The estimated number of nodes."""
        return self._table.estimate_size(self._timers.now - self._env.config.fresh_for).nodes

    def find_records(self, key: NodeId, mode: QueryMode, now: float, *, record_type: int) -> Operation[QueryResult]:
        """Search for records; if nothing is found in a crowded neighbourhood, its region is searched, too."""

        def done(finished: Operation[QueryResult]) -> None:
            result, nodes = finished.value(), self.network_size()
            if result.records or not is_crowded(result.distances, nodes):
                operation.finish(result)
            else:
                self._region(key, nodes, ask)

        def ask(contacts: Sequence[Contact]) -> None:
            wide = self._searches.search(
                key, mode, self._timers.now, record_type=record_type, only=contacts[:REGION_NODES]
            )
            wide.when_done(lambda finished: operation.finish(finished.value()))

        plain = self._searches.search(key, mode, now, record_type=record_type)
        operation: Operation[QueryResult] = Operation(on_abandoned=lambda: plain.give_up(done))
        plain.when_done(done)
        return operation

    def find_closest(self, key: NodeId, now: float, found: Callable[[Sequence[Contact], float], None]) -> None:
        """Search for the nodes a record belongs on; in a crowded neighbourhood, half of them beside the crowd."""
        half = self._env.config.replicas

        def done(finished: Operation[QueryResult]) -> None:
            result, nodes = finished.value(), self.network_size()
            if not is_crowded(result.distances, nodes):
                found(result.closest, self._timers.now)
                return

            def mixed(contacts: Sequence[Contact]) -> None:
                nearest = list(result.closest[:half])
                beside = [contact for contact in contacts if contact not in nearest]
                found(nearest + beside[: 2 * half], self._timers.now)

            self._region(key, nodes, mixed)

        self._searches.search(key, QueryMode.NODES, now).when_done(done)

    def _region(self, key: NodeId, nodes: int, found: Callable[[Sequence[Contact]], None]) -> None:
        """Find the nodes of the region around a key that lie beside its nearest neighbourhood."""
        target, bits = as_int(key), region_bits(nodes)
        gathered: dict[int, Contact] = {}
        pending = [SIDE_SEARCHES]

        def done(finished: Operation[QueryResult]) -> None:
            for contact in finished.value().closest:
                if bucket_index(contact.key, target) < bits + SIDE_SEARCHES:  # not of the crowd itself
                    gathered[contact.key] = contact
            pending[0] -= 1
            if not pending[0]:
                found(sorted(gathered.values(), key=lambda contact: contact.key ^ target))

        for offset in range(SIDE_SEARCHES):
            point = random_id_in_bucket(target, bits + offset, self._env.entropy)
            self._searches.search(to_node_id(point), QueryMode.NODES, self._timers.now).when_done(done)
