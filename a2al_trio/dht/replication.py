"""Keeping records alive on the nodes nearest their key (spec 03 §12, with §20.25-29 as rules).

A unit is one record slot of one publisher: key, type, publisher, and for mail the message itself. Its record is
stored on the nearest nodes that accept it, its holders are probed with growing intervals, and who is lost is
replaced. A publication during a run causes another run. Units end with their record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.health import HealthBook
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.dht.timers import Timer, Timers
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.wire.bodies import Ping, Store, StoreResponse, WaitingMail
from a2al_trio.wire.records import RecordCategory, SignedRecord

__all__ = ["Publication", "Replica", "Replication", "StoreRun", "Unit", "store_message", "unit_name"]

PROBE_FIRST = 30.0
PROBE_MAX = 3600.0
LOST_AFTER = 2
RETRY_REFILL = (15.0, 600.0)

FindClosest = Callable[[NodeId, float, Callable[[Sequence[Contact], float], None]], None]
"""Search for the nodes nearest a key and call back with them."""


@attrs.frozen
class Publication:
    """What became of a published record: who holds it now, and how many refused it."""

    key: NodeId
    record: SignedRecord
    replicas: tuple[NodeId, ...]
    refused: int


@attrs.define(eq=False)
class Replica:
    """A node that confirmed to hold the record."""

    contact: Contact
    confirmed_at: float
    next_probe: float
    delay: float = PROBE_FIRST
    failures: int = 0


UnitName = tuple[object, ...]


def unit_name(key: bytes, record: SignedRecord) -> UnitName:
    """What a record shares with its successors under a key."""
    if record.category is RecordCategory.MAILBOX:
        return (key, record.record_type, record.address, record.payload)
    return (key, record.record_type, record.address)


def store_message(record: SignedRecord, key: NodeId) -> Store:
    """The STORE of a record under a key, which is left out where it follows from the record."""
    return Store(record, None if key == record.address.node_id else key)


@attrs.define(eq=False)
class Unit:
    """A record we keep alive."""

    key: NodeId
    record: SignedRecord
    width: int
    replicas: dict[int, Replica] = attrs.Factory(dict)
    running: bool = False
    again: bool = False
    refused: int = 0
    refill_delay: float = RETRY_REFILL[0]
    refill_timer: Timer | None = None
    probe_timer: Timer | None = None
    waiting: list[Callable[[Publication], None]] = attrs.Factory(list)

    def publication(self) -> Publication:
        """The present state, as the publisher sees it."""
        holders = tuple(replica.contact.node_id for replica in self.replicas.values())
        return Publication(self.key, self.record, holders, self.refused)


class StoreRun:
    """Stores one record on the first of many candidates that accept it, a few at a time."""

    def __init__(
        self,
        rpc: Rpc,
        store: Store,
        candidates: Sequence[Contact],
        *,
        wanted: int,
        concurrency: int,
        timeout: float,
        on_stored: Callable[[Contact, StoreResponse, float], None],
        on_refused: Callable[[Contact, float], None],
        on_done: Callable[[float], None],
    ) -> None:
        self._rpc = rpc
        self._store = store
        self._candidates = deque(candidates)
        self._wanted = wanted
        self._concurrency = concurrency
        self._timeout = timeout
        self._on_stored = on_stored
        self._on_refused = on_refused
        self._on_done = on_done
        self._active = 0
        self._ended = False

    def advance(self, now: float) -> None:
        """Send what may be sent; reports the end once nothing is left to wait for."""
        while self._candidates and self._active < min(self._concurrency, self._wanted):
            self._active += 1
            self._send(self._candidates.popleft(), now)
        if not self._active and not self._ended:
            self._ended = True
            self._on_done(now)

    def _send(self, contact: Contact, now: float) -> None:
        def replied(reply: Reply, now: float) -> None:
            self._active -= 1
            if isinstance(reply.body, StoreResponse) and reply.body.stored:
                self._wanted -= 1
                self._on_stored(contact, reply.body, now)
            else:
                self._on_refused(contact, now)
            self.advance(now)

        def failed(now: float) -> None:
            self._active -= 1
            self.advance(now)

        self._rpc.call(
            contact,
            self._store,
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._timeout / 5, self._timeout / 2),
            give_up_after=self._timeout,
        )


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
        if self._is_over(unit):
            return
        if unit.running:
            unit.again = True
            return
        unit.running, unit.again, unit.refused = True, False, 0
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

        def stored(contact: Contact, response: StoreResponse, now: float) -> None:
            self._confirmed(unit, contact, now)
            if response.waiting_mail:
                self._on_waiting_mail(record.address, response.waiting_mail)

        def refused(contact: Contact, now: float) -> None:
            unit.refused += 1
            unit.replicas.pop(contact.key, None)

        def done(now: float) -> None:
            self._ended(unit, record, now)

        StoreRun(
            self._rpc,
            store_message(record, unit.key),
            ordered,
            wanted=unit.width,
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

    def _ended(self, unit: Unit, record: SignedRecord, now: float) -> None:
        unit.running = False
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
            if replica.next_probe <= now:
                replica.next_probe = now + replica.delay
                self._ping(unit, replica, now)
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
            unit.running = True
            self._store_newcomer(unit, contact, now)

    def _store_newcomer(self, unit: Unit, contact: Contact, now: float) -> None:
        record = unit.record

        def stored(contact: Contact, response: StoreResponse, now: float) -> None:
            self._confirmed(unit, contact, now)
            if response.waiting_mail:
                self._on_waiting_mail(record.address, response.waiting_mail)

        def refused(contact: Contact, now: float) -> None:
            unit.refused += 1

        def done(now: float) -> None:
            self._ended(unit, record, now)

        StoreRun(
            self._rpc,
            store_message(record, unit.key),
            [contact],
            wanted=1,
            concurrency=1,
            timeout=self._config.rpc_patience,
            on_stored=stored,
            on_refused=refused,
            on_done=done,
        ).advance(now)
