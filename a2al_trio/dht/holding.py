"""What a holder does for records of others: hand them to nearer newcomers, renew them if the publisher has gone.

The reference leaves all of this to the publisher. A holder that has not seen a record refreshed for a while stores it
on the nearest nodes itself, so a value lives as long as one holder and the record's ttl do. Both are done only by
holders among the nearest to the key, one record at a time, so that what strangers store here can cost little.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.routing import RoutingTable
from a2al_trio.dht.rpc import Rpc
from a2al_trio.dht.slots import Held
from a2al_trio.dht.store import RecordStore
from a2al_trio.dht.storing import FindClosest, StoreRun, store_message
from a2al_trio.dht.timers import Timer, Timers
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.messages import MAX_DATAGRAM, MESSAGE_OVERHEAD

__all__ = ["Holding"]

NEWCOMERS_QUEUED = 32
RECORDS_PER_STEP = 200
HANDOVERS_PER_NEWCOMER = 32
STEP_INTERVAL = 0.2
RENEWAL_SPACING = 1.0
WORTH_RENEWING = 300
"""Seconds a record must still live to be worth renewing."""


class Holding:
    """The duties of a holder."""

    def __init__(
        self,
        env: Environment,
        timers: Timers,
        *,
        rpc: Rpc,
        table: RoutingTable,
        store: RecordStore,
        find_closest: FindClosest,
    ) -> None:
        self._env = env
        self._config = env.config
        self._timers = timers
        self._rpc = rpc
        self._table = table
        self._store = store
        self._find_closest = find_closest
        self._newcomers: deque[Contact] = deque(maxlen=NEWCOMERS_QUEUED)
        self._handover: tuple[Contact, Iterator[Held], int] | None = None
        self._stepping = False
        self._due: list[tuple[float, int, Held]] = []
        self._made = 0
        self._renewing = False
        self._renew_timer: Timer | None = None

    # -- handover ----------------------------------------------------------------------------------------------

    def newcomer(self, contact: Contact, now: float) -> None:
        """A node joined; what it should hold is given to it, a slice of the store at a time."""
        if not len(self._store):
            return
        self._newcomers.append(contact)
        if not self._stepping:
            self._stepping = True
            self._timers.at(now + STEP_INTERVAL, self._step)

    def _step(self, now: float) -> None:
        if self._handover is None:
            if not self._newcomers:
                self._stepping = False
                return
            self._handover = (self._newcomers.popleft(), iter(self._store), HANDOVERS_PER_NEWCOMER)
        contact, records, left = self._handover
        finished = True
        for count, held in enumerate(records):
            if self._is_for(contact, held):
                self._give(contact, held, now)
                left -= 1
            if count >= RECORDS_PER_STEP or not left:
                finished = not left
                break
        self._handover = None if finished else (contact, records, left)
        self._timers.at(now + STEP_INTERVAL, self._step)

    def _is_for(self, newcomer: Contact, held: Held) -> bool:
        """Whether the newcomer is among the nearest to the record and nobody else is nearer to it than we are."""
        if held.pinned or not held.alive or held.lasting is not None or not _travels(held):
            return False
        target = int.from_bytes(held.key, "big")
        if newcomer.key ^ target > self._env.own ^ target and len(self._table) >= self._config.replicas:
            nearest = self._table.closest(target, self._config.replicas)
            if all(entry.contact.key != newcomer.key for entry in nearest):
                return False
        others = [e for e in self._table.closest(target, 2) if e.contact.key != newcomer.key]
        return not others or self._env.own ^ target < others[0].contact.key ^ target

    def _give(self, contact: Contact, held: Held, now: float) -> None:
        self._store_on([contact], held, now, lambda _now: None, wanted=1)

    def _store_on(
        self, contacts: Sequence[Contact], held: Held, now: float, on_done: Callable[[float], None], *, wanted: int
    ) -> None:
        StoreRun(
            self._rpc,
            store_message(held.record, NodeId(held.key)),
            contacts,
            wanted=wanted,
            concurrency=self._config.store_concurrency,
            timeout=self._config.rpc_patience,
            on_stored=lambda _contact, _response, _now: None,
            on_refused=lambda _contact, _now: None,
            on_done=on_done,
        ).advance(now)

    # -- renewal -----------------------------------------------------------------------------------------------

    def watch(self, held: Held, now: float) -> None:
        """A record of somebody else was stored here, or refreshed."""
        if held.queued or not _travels(held):
            return
        jitter = 0.75 + self._env.entropy(1)[0] / 512
        self._look_again(held, now + self._config.holder_interval * jitter)
        if len(self._due) > 64 + 2 * self._store.usage.records:
            self._due = [each for each in self._due if each[2].alive]
            heapq.heapify(self._due)
        self._arm(now)

    def _arm(self, now: float) -> None:
        if self._renewing or not self._due:
            return
        when = max(self._due[0][0], now + RENEWAL_SPACING)
        if self._renew_timer is not None:
            if self._renew_timer.callback is not None and self._renew_timer.at <= when:
                return
            self._renew_timer.cancel()
        self._renew_timer = self._timers.at(when, self._renew_next)

    def _renew_next(self, now: float) -> None:
        unix_now = self._env.unix_seconds()
        while self._due and self._due[0][0] <= now:
            held = heapq.heappop(self._due)[2]
            held.queued = False
            if not held.alive or held.pinned or held.until < unix_now + WORTH_RENEWING:
                continue
            idle = unix_now - held.refreshed_at
            if idle < self._config.holder_interval / 2:  # refreshed since it was put in the queue
                self._look_again(held, now + self._config.holder_interval - idle)
            elif self._is_ours(held):
                self._renew(held, now)
                return
            else:
                self._look_again(held, now + self._config.holder_interval)
        self._arm(now)

    def _look_again(self, held: Held, when: float) -> None:
        held.queued = True
        self._made += 1
        heapq.heappush(self._due, (when, self._made, held))

    def _is_ours(self, held: Held) -> bool:
        target = int.from_bytes(held.key, "big")
        nearest = self._table.closest(target, self._config.replicas)
        own = self._env.own ^ target
        return len(nearest) < self._config.replicas or own < nearest[-1].contact.key ^ target

    def _renew(self, held: Held, now: float) -> None:
        self._renewing = True
        held.refreshed_at = self._env.unix_seconds()

        def done(now: float) -> None:
            self._renewing = False
            self.watch(held, now)

        def found(closest: Sequence[Contact], now: float) -> None:
            others = [contact for contact in closest if contact.key != self._env.own]
            self._store_on(others, held, now, done, wanted=self._config.replicas - 1)

        self._find_closest(NodeId(held.key), now, found)


def _travels(held: Held) -> bool:
    """Whether a datagram can carry the record; one that came over a connection may be larger."""
    return len(store_message(held.record, NodeId(held.key)).encode()) + MESSAGE_OVERHEAD <= MAX_DATAGRAM
