"""Keeping the routing table true (spec 03 §3.4, §3.6, §13, with §20.1, §20.9-11 and §20.31 as rules).

Everything here is a bounded number of small steps on timers; nothing waits. Newcomers are asked back before they
count, a full bucket has its least recently proven entry checked, entries that grew stale are asked again and leave
after repeated silence. Contacts that fell silent are remembered for a while: after a partition it is they who lead
back to the other side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import attrs

from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import random_id_in_bucket, to_node_id
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.routing import Admission, Bucket, Refill, RoutingTable
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.dht.timers import Timers
from a2al_trio.dht.vetting import ContactFilter
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import Ping

__all__ = ["Maintenance"]

PENDING_PROBES = 5
STALE_PROBES = 10
LOST_PROBES = 3
REFILLS = 2
LOST_REMEMBERED = 128
LOST_FIRST, LOST_OFTEN, LOST_RARELY = 15.0, 240.0, 900.0
LOST_LIFETIME = 1800.0
LOST_KEPT = 8
PROBES_AT_ONCE = 32
ASKED_BACK_AT_ONCE = 16  # strangers may take only a part, for they come as they like
ASKED_BACK_REMEMBERED = 2048
ASK_BACK_INTERVAL = 60.0
CHECK_AFTER = 300.0
STALE_AFTER = 0.8
DROP_AFTER = 3
REFILL_COOLDOWNS = (30.0, 120.0, 600.0, 900.0)
FAR_BUCKETS_ON_JOIN = 2
RECOVERY_INTERVAL = 30.0
RETRY_BOOTSTRAP = (5.0, 300.0)

StartLookup = Callable[[NodeId, float, Sequence[Contact]], None]
"""Begin a search for nodes: target, time, and contacts to start from beside our own."""


@attrs.define(eq=False)
class Lost:
    """A contact that fell silent: since when, and when it is asked again."""

    contact: Contact
    since: float
    next_at: float
    delay: float


class Maintenance:
    """The background work of a routing table."""

    def __init__(
        self,
        env: Environment,
        timers: Timers,
        *,
        table: RoutingTable,
        rpc: Rpc,
        contacts: ContactFilter,
        find_node: StartLookup,
        on_newcomer: Callable[[Contact, float], None],
        on_recovery: Callable[[float], None],
    ) -> None:
        self._env = env
        self._config: DhtConfig = env.config
        self._timers = timers
        self._table = table
        self._rpc = rpc
        self._contacts = contacts
        self._find_node = find_node
        self._on_newcomer = on_newcomer
        self._on_recovery = on_recovery
        self._ping = Ping(env.identity.address)
        self._probing: set[int] = set()
        self._asked_back: OrderedDict[tuple[Address, SocketAddress, bool], float] = OrderedDict()
        self._lost: OrderedDict[int, Lost] = OrderedDict()
        self._found: list[Contact] = []
        self._lost_since_recovery = 0
        self._last_recovery = float("-inf")
        self._home = Refill()
        self._turn = 0  # the bucket whose hearsay was asked last
        self._seeds: tuple[SocketAddress, ...] = ()
        self._bootstrap_delay = RETRY_BOOTSTRAP[0]
        self._next_bootstrap = float("-inf")
        self.passive = env.config.passive

    def start(self, now: float, *, seeds: Sequence[SocketAddress] = ()) -> None:
        """Begin ticking; `seeds` are asked again whenever nobody else is known."""
        self._seeds = tuple(seeds)
        self._home.at = now  # the join itself searches there
        self._next_bootstrap = now + self._bootstrap_delay
        self._timers.at(now + self._jittered(self._config.maintenance_interval), self._tick)

    def _jittered(self, interval: float) -> float:
        return interval * (0.75 + self._env.entropy(1)[0] / 512)

    # -- what calls and requests teach -------------------------------------------------------------------------

    def peer_proven(self, contact: Contact, admission: Admission, now: float) -> None:
        """A round trip to the peer was completed."""
        if self._lost.pop(contact.key, None) is not None:
            if len(self._found) < self._config.bucket_size:
                self._found.append(contact)
            self._found_again(now)
        self._bootstrap_delay = RETRY_BOOTSTRAP[0]
        if admission is Admission.ADDED:
            self._on_newcomer(contact, now)
        elif admission is Admission.WAITING:
            self._check_oldest(self._table.bucket(self._table.index(contact.key)), now)

    def peer_failed(self, contact: Contact, now: float) -> None:
        """A request to the peer went unanswered: ask again at once, then let it go."""
        entry = self._table.get(contact.key)
        if entry is None or entry.contact.address != contact.address:
            return
        if entry.failures >= DROP_AFTER:
            self._table.remove(contact.key)
            self._remember_lost(contact, now)
        elif contact.key not in self._probing:
            self._probe(contact, now)

    def request_seen(self, sender: Address, source: SocketAddress, now: float, *, routed: bool) -> None:
        """Somebody asked us something. If it could become a contact, ask it back where it says it is."""
        if routed:
            return
        entry = self._table.at_address(source)
        if entry is not None and entry.contact.node_address == sender:
            if not entry.failures and entry.verified_at > now - self._config.fresh_for:
                return
        elif not self._contacts.usable(source):
            return
        if not self._is_time(sender, source, now):
            return
        contact = Contact.of(sender, source)
        if contact.key != self._env.own and self._wants(contact, now):
            self._probe(contact, now, at_once=ASKED_BACK_AT_ONCE)

    def ask_back(self, sender: Address, source: SocketAddress, now: float) -> None:
        """PING where a request came from, at most once a minute."""
        if self._contacts.usable(source) and self._is_time(sender, source, now, urgent=True):
            contact = Contact.of(sender, source)
            if contact.key != self._env.own:
                self._probe(contact, now, at_once=ASKED_BACK_AT_ONCE)

    def _is_time(self, sender: Address, source: SocketAddress, now: float, *, urgent: bool = False) -> bool:
        """Whether to think about a sender (again); most requests come from somebody thought about just before."""
        name = (sender, source, urgent)
        last = self._asked_back.get(name)
        if last is not None and now - last < ASK_BACK_INTERVAL:
            return False
        self._asked_back[name] = now
        self._asked_back.move_to_end(name)
        if len(self._asked_back) > ASKED_BACK_REMEMBERED:
            self._asked_back.popitem(last=False)
        return True

    def _wants(self, contact: Contact, now: float) -> bool:
        """Whether asking the contact back could change the table."""
        known = self._table.get(contact.key)
        if known is not None:
            return True
        if not self._table.has_room_for(contact):
            return False
        bucket = self._table.bucket(self._table.index(contact.key))
        if len(bucket.main) < self._config.bucket_size:
            return True
        return not bucket.checking and bucket.main[0].verified_at < now - CHECK_AFTER

    # -- probes ------------------------------------------------------------------------------------------------

    def _probe(
        self,
        contact: Contact,
        now: float,
        *,
        on_end: Callable[[float], None] | None = None,
        at_once: int = PROBES_AT_ONCE,
    ) -> bool:
        """PING a contact, sent twice against loss; False if too many are under way."""
        key = contact.key
        if key in self._probing or len(self._probing) >= at_once:
            return False
        self._probing.add(key)

        def replied(_reply: Reply, now: float) -> None:
            self._probing.discard(key)
            if on_end is not None:
                on_end(now)

        def failed(now: float) -> None:
            self._probing.discard(key)
            self._table.forget_waiting(key)
            entry = self._table.get(key)
            if entry is not None and entry.failures:
                self.peer_failed(contact, now)
            if on_end is not None:
                on_end(now)

        timeout = self._config.probe_timeout
        self._rpc.call(
            contact,
            self._ping,
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(timeout / 3, timeout * 2 / 3),
            give_up_after=timeout,
            probe=True,
        )
        return True

    def _check_oldest(self, bucket: Bucket, now: float) -> None:
        """Probe the least recently proven entry of a full bucket, one at a time and not if it was just proven."""
        if bucket.checking or not bucket.main:
            return
        oldest = bucket.main[0]
        if oldest.verified_at > now - CHECK_AFTER:
            return

        def ended(now: float) -> None:
            bucket.checking = False

        bucket.checking = self._probe(oldest.contact, now, on_end=ended)

    # -- the tick ----------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._timers.at(now + self._jittered(self._config.maintenance_interval), self._tick)
        self._table.expire_waiting(now)
        self._probe_waiting(now)
        self._probe_stale(now)
        self._probe_lost(now)
        if not self.passive:
            self._refill(now)
        if not len(self._table):
            self._start_over(now)

    def _probe_waiting(self, now: float) -> None:
        """Hearsay is asked where there is room, one contact per bucket and a few per tick, the buckets in turn."""
        buckets = list(reversed(self._table.buckets()))
        begin = next((at for at, (index, _) in enumerate(buckets) if index < self._turn), 0)
        asked = 0
        for index, bucket in buckets[begin:] + buckets[:begin]:
            if len(bucket.main) >= self._config.bucket_size:
                continue
            hearsay = next((held for held in reversed(bucket.waiting) if held.verified_at is None), None)
            if hearsay is not None and self._probe(hearsay.contact, now):
                self._turn = index
                asked += 1
            if asked == PENDING_PROBES:
                return

    def _probe_stale(self, now: float) -> None:
        """Entries not heard of for most of the fresh time are asked again; verified ones age, too."""
        stale_before = now - STALE_AFTER * self._config.fresh_for
        asked = 0
        for _, bucket in self._table.buckets():
            for entry in bucket.main:
                if not entry.routed and (entry.verified_at < stale_before or entry.failures):
                    asked += self._probe(entry.contact, now)
                    if asked >= STALE_PROBES:
                        return

    def _refill(self, now: float) -> None:
        """Search in the two nearest far buckets that are due; only those count as attempted (spec 03 §20.11).

        The buckets nearest to us cannot be full, since there are not that many nodes: together they are one home
        region, which a search for our own id covers.
        """
        own, size = self._env.own, self._config.bucket_size
        nearest = self._table.closest(own, size, failing=True)
        home = self._table.index(nearest[-1].contact.key) if nearest else 0
        launched = 0
        if self._is_due(self._home, len(nearest), now):
            self._find_node(self._env.identity.node_id, now, ())
            launched += 1
        fresh_since = now - self._config.fresh_for
        for index, bucket in reversed(self._table.buckets()):
            if index >= home or not bucket.main:
                continue
            if sum(1 for entry in bucket.main if entry.verified_at > fresh_since) >= size // 2:
                bucket.refill = Refill()
            elif self._is_due(bucket.refill, len(bucket.main) + len(bucket.waiting), now):
                self._find_node(to_node_id(random_id_in_bucket(own, index, self._env.entropy)), now, ())
                launched += 1
            if launched >= REFILLS:
                return

    @staticmethod
    def _is_due(refill: Refill, members: int, now: float) -> bool:
        """Whether to search again; a search that brought nobody makes the next one wait longer (spec 03 §3.6)."""
        if members > refill.members:
            refill.futile = 0
        if now - refill.at < REFILL_COOLDOWNS[min(refill.futile, len(REFILL_COOLDOWNS) - 1)]:
            return False
        refill.at, refill.members = now, members
        refill.futile += 1
        return True

    # -- joining, partitions, recovery -------------------------------------------------------------------------

    def refresh(self, now: float) -> None:
        """Search around ourselves and in a few far buckets (spec 03 §20.31)."""
        own, entropy = self._env.own, self._env.entropy
        found, self._found = self._found, []
        self._find_node(self._env.identity.node_id, now, found)
        for index in range(FAR_BUCKETS_ON_JOIN):
            self._find_node(to_node_id(random_id_in_bucket(own, index, entropy)), now, found)

    def _remember_lost(self, contact: Contact, now: float) -> None:
        self._lost[contact.key] = Lost(contact, now, now + LOST_FIRST, LOST_FIRST)
        self._lost.move_to_end(contact.key)
        self._lost_since_recovery += 1
        if len(self._lost) > LOST_REMEMBERED:
            self._lost.popitem(last=False)

    def _probe_lost(self, now: float) -> None:
        """Ask a few of the silent again, each less and less often; most are forgotten after a while."""
        due = [lost for lost in self._lost.values() if lost.next_at <= now]
        for lost in due[:LOST_PROBES]:
            old = now - lost.since > LOST_LIFETIME
            if old and len(self._lost) > LOST_KEPT:
                del self._lost[lost.contact.key]
                continue
            lost.delay = min(2 * lost.delay, LOST_RARELY if old else LOST_OFTEN)
            lost.next_at = now + lost.delay
            self._probe(lost.contact, now)

    def _found_again(self, now: float) -> None:
        """A silent contact answers: if many fell silent together, a partition has healed."""
        if self._lost_since_recovery < 2 or now - self._last_recovery < RECOVERY_INTERVAL:
            return
        self._last_recovery = now
        self._lost_since_recovery = 0
        for lost in list(self._lost.values())[-PROBES_AT_ONCE:]:
            self._probe(lost.contact, now)
        self._timers.at(now + self._config.probe_timeout / 3, self._recover)

    def _recover(self, now: float) -> None:
        self.refresh(now)
        self._on_recovery(now)

    def network_changed(self, now: float) -> None:
        """Our own network changed: every contact is asked anew, and the searches of a join repeated."""
        for contact in self._table.closest(self._env.own, PROBES_AT_ONCE, failing=True):
            self._probe(contact.contact, now)
        self._last_recovery = now
        self._recover(now)

    def _start_over(self, now: float) -> None:
        """Nobody is known: ask the seeds again, less and less often."""
        if now < self._next_bootstrap:
            return
        self._bootstrap_delay = min(2 * self._bootstrap_delay, RETRY_BOOTSTRAP[1])
        self._next_bootstrap = now + self._bootstrap_delay
        for seed in self._seeds[:16]:
            self.ask_seed(seed, now)

    def ask_seed(self, seed: SocketAddress, now: float, *, on_end: Callable[[bool, float], None] | None = None) -> None:
        """PING an address whose node is not known; the first answer begins the searches of a join."""

        def replied(_reply: Reply, now: float) -> None:
            if now - self._last_recovery >= RECOVERY_INTERVAL:
                self._last_recovery = now
                self._recover(now)
            if on_end is not None:
                on_end(True, now)

        def failed(now: float) -> None:
            if on_end is not None:
                on_end(False, now)

        self._rpc.call(
            seed,
            self._ping,
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._config.rpc_timeout / 2, self._config.rpc_timeout),
            give_up_after=2 * self._config.rpc_patience,
        )
