"""All searches of a node: equal ones share one run (spec 03 §20.23)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from a2al_trio.dht.collect import Collection
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.operation import Operation
from a2al_trio.dht.query import Query, QueryMode, QueryParts, QueryResult
from a2al_trio.dht.routing import RoutingTable
from a2al_trio.dht.store import Authority, RecordStore
from a2al_trio.identity.address import NodeId

__all__ = ["SearchCounters", "Searches"]


@attrs.define(eq=False)
class SearchCounters:
    """Counts since the start."""

    started: int = 0
    shared: int = 0
    exhausted: int = 0
    requests: int = 0


Name = tuple[QueryMode, bytes, int, bool]


class Searches:
    """Starts searches and lets equal ones share a run."""

    def __init__(self, parts: QueryParts, table: RoutingTable, store: RecordStore, *, authority: Authority) -> None:
        self._parts = parts
        self._table = table
        self._store = store
        self._authority = authority
        self._running: dict[Name, Operation[QueryResult]] = {}
        self.counters = SearchCounters()

    def search(
        self,
        target: NodeId,
        mode: QueryMode,
        now: float,
        *,
        record_type: int = 0,
        seeds: Sequence[Contact] = (),
        only: Sequence[Contact] | None = None,
    ) -> Operation[QueryResult]:
        """Begin a search, or join the equal one that is running; `seeds` are asked beside our own contacts.

        With `only`, just those are asked and nobody they name.
        """
        name: Name = (mode, bytes(target), record_type, only is not None)
        running = self._running.get(name)
        if running is not None:
            self.counters.shared += 1
            return running
        self.counters.started += 1
        collection = None
        if mode is not QueryMode.NODES:
            collection = Collection(self._parts.env, target, record_type, authority=self._authority)
            for record in self._store.get(target, self._parts.env.unix_seconds(), record_type):
                collection.add(record, trusted=True)
        operation: Operation[QueryResult] = Operation(on_abandoned=lambda: self._abandon(name, query))
        query = Query(
            self._parts,
            target,
            mode,
            collection=collection,
            record_type=record_type,
            fixed=None if only is None else len(only),
            on_done=lambda result, _now: self._finished(name, result),
        )
        self._running[name] = operation
        query.start(list(only) if only is not None else self._known(target) + list(seeds), now)
        return operation

    def _known(self, target: NodeId) -> list[Contact]:
        """Our own contacts nearest the target."""
        number, config = int.from_bytes(target, "big"), self._parts.env.config
        known = self._table.closest(number, config.bucket_size, routed=True)
        if len(known) < config.alpha:
            # Better to ask peers that failed lately than nobody (spec 03 §20.9).
            known = self._table.closest(number, config.bucket_size, routed=True, failing=True)
        return [entry.contact for entry in known]

    def _finished(self, name: Name, result: QueryResult) -> None:
        operation = self._running.pop(name)
        self.counters.requests += result.requests
        self.counters.exhausted += result.exhausted
        operation.finish(result)

    def _abandon(self, name: Name, query: Query) -> None:
        if not query.done:
            query.cancel()
            self._running.pop(name, None)
