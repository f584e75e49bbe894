"""Keeping records alive on the nodes nearest their key (spec 03 §12, with §20.25-29 as rules).

A unit is one record slot of one publisher: key, type, publisher, and for mail the message itself. Its record is
stored on the nearest nodes that accept it, its holders are probed with growing intervals, and who is lost is
replaced. A publication during a run causes another run. Units end with their record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.health import HealthBook
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.dht.storing import FindClosest, StoreRun, store_message
from a2al_trio.dht.timers import Timers
from a2al_trio.dht.units import PROBE_FIRST, RETRY_REFILL, Publication, Replica, Unit, UnitName, unit_name
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.wire.bodies import Ping, StoreResponse, WaitingMail
from a2al_trio.wire.records import SignedRecord

__all__ = ["Replication"]

RUNS_AT_ONCE = 16
PINGS_AT_ONCE = 64
PING_LATER = 1.0
PROBE_MAX = 3600.0
LOST_AFTER = 2


class Replication:
    """All units of a node."""

    def __init__(
        self,
        env: Environment,
        timers: Timers,
        *,
        rpc: Rpc,
        health: HealthBook,
        find_closest: FindClosest,
        is_usable: Callable[[Contact], bool],
        on_replica_lost: Callable[[Contact, float], None],
        on_waiting_mail: Callable[[Address, tuple[WaitingMail, ...]], None],
    ) -> None:
        self._env = env
        self._config = env.config
        self._timers = timers
        self._rpc = rpc
        self._health = health
        self._find_closest = find_closest
        self._is_usable = is_usable
        self._on_replica_lost = on_replica_lost
        self._on_waiting_mail = on_waiting_mail
        self._units: dict[UnitName, Unit] = {}
        self._running = 0
        self._queued: dict[UnitName, Unit] = {}
        self._starting = False
        self._pings: dict[int, list[tuple[Unit, Replica]]] = {}

    def __len__(self) -> int:
        return len(self._units)

    def units(self) -> list[Unit]:
        """All units."""
        return list(self._units.values())

    def find(self, key: bytes, record: SignedRecord) -> Unit | None:
        """The unit a record belongs to."""
        return self._units.get(unit_name(key, record))

    # -- publishing --------------------------------------------------------------------------------------------

    def publish(
        self, key: NodeId, record: SignedRecord, now: float, on_done: Callable[[Publication], None] | None = None
    ) -> None:
        """Keep a record alive from now on; calls back after the first round of stores with this record."""
        name = unit_name(key, record)
        unit = self._units.get(name)
        if unit is None:
            unit = self._units[name] = Unit(key, record, self._config.replicas)
        unit.record = record
        if on_done is not None:
            unit.waiting.append(on_done)
        self._run(unit, now)

    def give_up_waiting(self, on_done: Callable[[Publication], None]) -> None:
        """The publisher no longer waits; the work goes on."""
        for unit in self._units.values():
            if on_done in unit.waiting:
                unit.waiting.remove(on_done)

    def withdraw(self, publisher: Address, record_type: int = 0, key: NodeId | None = None) -> int:
        """Stop keeping a publisher's records alive; what is stored lapses with its ttl."""
        doomed = [
            name
            for name, unit in self._units.items()
            if unit.record.address == publisher
            and record_type in {0, unit.record.record_type}
            and key in {None, unit.key}
        ]
        for name in doomed:
            self._drop(name)
        return len(doomed)

    def refill_all(self, now: float) -> None:
        """Run the units that lack holders: somebody new can be reached."""
        for unit in self.units():
            if len(unit.replicas) < self._config.replicas:
                self._run(unit, now)

    def renew_all(self, now: float) -> None:
        """Run every unit again: the network or our place in it has changed."""
        for unit in self.units():
            self._run(unit, now)

    def _drop(self, name: UnitName) -> None:
        unit = self._units.pop(name)
        for timer in (unit.refill_timer, unit.probe_timer):
            if timer is not None:
                timer.cancel()
        self._report(unit)

    def _report(self, unit: Unit) -> None:
        waiting, unit.waiting = unit.waiting, []
        for on_done in waiting:
            on_done(unit.publication())

    def _is_over(self, unit: Unit) -> bool:
        name = unit_name(unit.key, unit.record)
        if self._units.get(name) is not unit:
            return True
        if unit.record.expires_at < self._env.unix_seconds():
            self._drop(name)
            return True
        return False

    # -- a run: search, then store -----------------------------------------------------------------------------

    def _run(self, unit: Unit, now: float) -> None:
        """Search and store, when it is the unit's turn; during a run, have another one after it."""
        if unit.running:
            unit.again = True
        else:
            self._queued[unit_name(unit.key, unit.record)] = unit
            self._start_queued(now)

    def _start_queued(self, now: float) -> None:
        """Begin as many runs as may go on at a time; one may end at once, so this does not call itself."""
        if self._starting:
            return
        self._starting = True
        while self._queued and self._running < RUNS_AT_ONCE:
            unit = self._queued.pop(next(iter(self._queued)))
            if unit.running:
                unit.again = True
            elif not self._is_over(unit):
                self._begin(unit)
                self._search_and_store(unit, now)
        self._starting = False

    def _begin(self, unit: Unit) -> None:
        unit.running, unit.again, unit.refused = True, False, 0
        self._running += 1

    def _search_and_store(self, unit: Unit, now: float) -> None:
        record = unit.record

        def found(closest: Sequence[Contact], now: float) -> None:
            self._store_on(unit, record, closest, now)

        self._find_closest(unit.key, now, found)

    def _store_on(self, unit: Unit, record: SignedRecord, closest: Sequence[Contact], now: float) -> None:
        """Store on the nearest, holders included: they get the record again, which also proves them alive."""
        distance = int.from_bytes(unit.key, "big")
        # More candidates than a search gives mean that the neighbourhood is crowded: then twice as many replicas.
        crowded = len(closest) > self._config.bucket_size
        unit.width = self._config.replica_limit if crowded else self._config.replicas
        candidates = {contact.key: contact for contact in closest}
        for replica in unit.replicas.values():
            candidates.setdefault(replica.contact.key, replica.contact)
        ordered = sorted(candidates.values(), key=lambda contact: contact.key ^ distance)
        ordered = [contact for contact in ordered if self._may_store(contact, unit, now)]
        self._store(unit, record, ordered, unit.width, now)

    def _store(self, unit: Unit, record: SignedRecord, contacts: Sequence[Contact], wanted: int, now: float) -> None:
        def stored(contact: Contact, response: StoreResponse, now: float) -> None:
            self._confirmed(unit, contact, now)
            if response.waiting_mail:
                self._on_waiting_mail(record.address, response.waiting_mail)

        def refused(contact: Contact, now: float) -> None:
            unit.refused += 1
            unit.replicas.pop(contact.key, None)

        def done(now: float) -> None:
            self._ended(unit, now)

        StoreRun(
            self._rpc,
            store_message(record, unit.key),
            contacts,
            wanted=wanted,
            concurrency=self._config.store_concurrency,
            timeout=self._config.rpc_patience,
            on_stored=stored,
            on_refused=refused,
            on_done=done,
        ).advance(now)

    def _may_store(self, contact: Contact, unit: Unit, now: float) -> bool:
        if contact.key == self._env.own or not self._is_usable(contact):
            return False
        return contact.key in unit.replicas or self._health.may_contact(contact.key, now)

    def _confirmed(self, unit: Unit, contact: Contact, now: float) -> None:
        replica = unit.replicas.get(contact.key)
        if replica is None:
            unit.replicas[contact.key] = Replica(contact, now, now + PROBE_FIRST)
        else:
            replica.contact, replica.confirmed_at, replica.failures = contact, now, 0
        target = int.from_bytes(unit.key, "big")
        while len(unit.replicas) > self._config.replica_limit:
            del unit.replicas[max(unit.replicas, key=lambda key: key ^ target)]
        self._schedule_probe(unit, now)

    def _ended(self, unit: Unit, now: float) -> None:
        unit.running = False
        self._running -= 1
        target = int.from_bytes(unit.key, "big")
        # Only the nearest are probed from here on; what others hold lapses by itself (spec 03 §12.3).
        for key in sorted(unit.replicas, key=lambda key: key ^ target)[unit.width :]:
            del unit.replicas[key]
        if unit.again:
            self._run(unit, now)
            return
        self._report(unit)
        if len(unit.replicas) < self._config.replicas:
            self._refill_later(unit, now)
        else:
            unit.refill_delay = RETRY_REFILL[0]
        self._start_queued(now)

    def _refill_later(self, unit: Unit, now: float) -> None:
        if unit.refill_timer is not None and unit.refill_timer.callback is not None:
            return

        def refill(now: float) -> None:
            self._run(unit, now)

        unit.refill_timer = self._timers.at(now + unit.refill_delay, refill)
        unit.refill_delay = min(2 * unit.refill_delay, RETRY_REFILL[1])

    # -- probing holders ---------------------------------------------------------------------------------------

    def _schedule_probe(self, unit: Unit, now: float) -> None:
        if unit.probe_timer is not None:
            unit.probe_timer.cancel()
            unit.probe_timer = None
        if not unit.replicas:
            return
        due = min(replica.next_probe for replica in unit.replicas.values())

        def probe(now: float) -> None:
            self._probe_due(unit, now)

        unit.probe_timer = self._timers.at(max(due, now + 1.0), probe)

    def _probe_due(self, unit: Unit, now: float) -> None:
        if self._is_over(unit):
            return
        for replica in list(unit.replicas.values()):
            if replica.next_probe > now:
                continue
            if len(self._pings) < PINGS_AT_ONCE or replica.contact.key in self._pings:
                replica.next_probe = now + replica.delay
                self._ping(unit, replica, now)
            else:
                replica.next_probe = now + PING_LATER
        self._schedule_probe(unit, now)

    def _ping(self, unit: Unit, replica: Replica, now: float) -> None:
        """PING a holder once for all the units that want to know (spec 03 §20.29)."""
        key = replica.contact.key
        interested = self._pings.get(key)
        if interested is not None:
            interested.append((unit, replica))
            return
        self._pings[key] = [(unit, replica)]

        def replied(_reply: Reply, now: float) -> None:
            for _, each in self._pings.pop(key):
                each.failures = 0
                each.delay = min(2 * each.delay, PROBE_MAX)
                each.next_probe = now + each.delay

        def failed(now: float) -> None:
            for its_unit, each in self._pings.pop(key):
                self._missed(its_unit, each, now)

        self._rpc.call(
            replica.contact,
            Ping(self._env.identity.address),
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._config.rpc_timeout / 2, self._config.rpc_timeout),
            give_up_after=self._config.rpc_patience,
            probe=True,
        )

    def _missed(self, unit: Unit, replica: Replica, now: float) -> None:
        replica.failures += 1
        replica.delay = PROBE_FIRST
        replica.next_probe = now + PROBE_FIRST
        if replica.failures < LOST_AFTER:
            return
        if unit.replicas.get(replica.contact.key) is replica:
            del unit.replicas[replica.contact.key]
        self._on_replica_lost(replica.contact, now)
        unit.refill_delay = RETRY_REFILL[0]
        self._refill_later(unit, now)

    # -- handover ----------------------------------------------------------------------------------------------

    def newcomer(self, contact: Contact, now: float) -> None:
        """A node joined: units it is nearer to than their farthest holder are stored there at once."""
        for unit in self.units():
            if unit.running or contact.key in unit.replicas or self._is_over(unit):
                continue
            target = int.from_bytes(unit.key, "big")
            full = len(unit.replicas) >= self._config.replicas
            if full and all(key ^ target < contact.key ^ target for key in unit.replicas):
                continue
            if self._running < RUNS_AT_ONCE:
                self._begin(unit)
                self._store(unit, unit.record, [contact], 1, now)
            else:
                self._run(unit, now)
