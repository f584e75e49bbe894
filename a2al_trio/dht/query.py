"""Running a search: requests for a `Lookup`, records for a `Collection`, and when to be content (spec 03 §9-10)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from a2al_trio.dht.collect import Collection
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.lookup import Lookup
from a2al_trio.dht.rpc import Call, Reply, Rpc
from a2al_trio.dht.timers import Timer, Timers
from a2al_trio.dht.vetting import ContactFilter
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.bodies import Body, FindNode, FindNodeResponse, FindValue, FindValueResponse
from a2al_trio.wire.nodes import NodeInfo
from a2al_trio.wire.records import SignedRecord

__all__ = ["Query", "QueryMode", "QueryParts", "QueryResult"]

AGGREGATE_BUDGET = 2
"""An aggregate search may use this many times the ordinary number of requests."""
FRUITLESS_ANSWERS = 2
MORE_THAN_REPLICAS = 4
"""So many nodes beyond the number of replicas are heard after a find: any of them may have come since it was stored."""


class QueryMode(enum.Enum):
    """What a search is for."""

    NODES = "nodes"
    """The nodes nearest to the target."""
    NEWEST = "newest"
    """A record: the first found opens a short window for newer ones, against rollback."""
    ALL = "all"
    """All records under the key, asking again where an answer could not hold them all."""


@attrs.frozen
class QueryResult:
    """What a search found. `hops` is how many answers deep the find was; `exhausted` says that the budget or the
    time ran out first.
    """

    closest: tuple[Contact, ...]
    records: tuple[SignedRecord, ...]
    holders: tuple[Contact, ...]
    requests: int
    hops: int
    exhausted: bool
    distances: tuple[int, ...]


@attrs.frozen
class QueryParts:
    """What searches work with."""

    env: Environment
    rpc: Rpc
    timers: Timers
    contacts: ContactFilter
    heard: Callable[[Sequence[Contact], float], None]


class Query:
    """One search. It ends by itself: within its budget, within its time limit, or when it is content.

    With `fixed` exactly that many given contacts are asked, and those they name are not followed.
    """

    def __init__(
        self,
        parts: QueryParts,
        target: NodeId,
        mode: QueryMode,
        *,
        collection: Collection | None,
        record_type: int,
        fixed: int | None = None,
        on_done: Callable[[QueryResult, float], None],
    ) -> None:
        config = parts.env.config
        budget = config.lookup_budget * (AGGREGATE_BUDGET if mode is QueryMode.ALL else 1)
        self._parts = parts
        self._mode = mode
        self._body: Body = FindNode(target) if mode is QueryMode.NODES else FindValue(target, record_type)
        self._lookup = Lookup(int.from_bytes(target, "big"), parts.env.own, config, width=fixed)
        self._fixed = fixed is not None
        self._budget = budget
        self._requests = 0
        self._collection = collection
        self._on_done = on_done
        self._calls: dict[int, Call] = {}  # by node: one at a time is asked each
        self._again: deque[Contact] = deque()
        self._repeats = 0
        self._fruitless: dict[int, int] = {}
        self._holders: dict[int, Contact] = {}
        self._named: dict[NodeInfo, Contact] = {}
        self._hops = 0
        self._slowest = 0.0
        self._limit: Timer | None = None
        self._window: Timer | None = None
        self._listen_until = 0.0
        self.done = False

    def start(self, seeds: Sequence[Contact], now: float) -> None:
        """Begin with our own nearest contacts."""
        self._lookup.offer(seeds)
        self._limit = self._parts.timers.at(now + self._parts.env.config.lookup_limit, self._out_of_time)
        self._advance(now)

    def cancel(self) -> None:
        """Stop; no peer is charged for what it had no time to answer."""
        self.done = True
        self._stop_timers()
        for call in self._calls.values():
            self._parts.rpc.cancel(call)
        self._calls.clear()

    def _stop_timers(self) -> None:
        for timer in (self._limit, self._window):
            if timer is not None:
                timer.cancel()

    def _out_of_time(self, now: float) -> None:
        self._finish(now, exhausted=True)

    def _window_over(self, now: float) -> None:
        """End the search once everybody asked has had the time an answer usually takes, or listen on.

        Without that, one silent node would cost every search the whole window: often the publisher itself is named
        as nearest to its own record, and behind a NAT it does not answer.
        """
        config, round_trip = self._parts.env.config, self._parts.rpc.round_trip
        usual = max(config.collect_window, 2 * self._slowest)
        until = max((c.asked_at + max(usual, 1.25 * round_trip(key)) for key, c in self._calls.items()), default=now)
        until = min(until, self._listen_until)
        if until > now:
            self._window = self._parts.timers.at(until, self._window_over)
        else:
            self._finish(now)

    def _advance(self, now: float) -> None:
        """Ask whom there is to ask; end if there is nobody left to wait for."""
        if self.done:
            return
        for contact in self._lookup.next_to_ask():
            self._ask(contact, now)
        self._ask_again(now)
        if not self._is_waiting():
            self._finish(now, exhausted=self._lookup.requests >= self._lookup.budget)

    def _is_waiting(self) -> bool:
        if not self._lookup.finished or self._repeats or self._again:
            return True
        nothing = self._mode is not QueryMode.NODES and not self._holders
        return nothing and self._lookup.waits_for_slow

    def _ask(self, contact: Contact, now: float) -> None:
        config = self._parts.env.config
        key = contact.key

        def replied(reply: Reply, now: float) -> None:
            del self._calls[key]
            self._replied(reply, now)

        def failed(now: float) -> None:
            del self._calls[key]
            self._lookup.failed(key)
            self._advance(now)

        def slow(now: float) -> None:
            self._lookup.slow(key)
            self._advance(now)

        self._requests += 1
        self._calls[key] = self._parts.rpc.call(
            contact,
            self._body,
            now,
            on_reply=replied,
            on_failure=failed,
            on_slow=slow,
            resend_after=(config.rpc_timeout / 4, config.rpc_timeout * 3 / 5),
            slow_after=config.rpc_timeout,
            give_up_after=config.rpc_patience,
        )

    def _ask_again(self, now: float) -> None:
        """Repeat the question where an answer was full, within the budget and the concurrency."""
        config = self._parts.env.config
        while self._again and self._repeats < config.alpha:
            contact = self._again.popleft()
            if self._requests >= self._budget:
                continue
            self._repeat(contact, now)

    def _repeat(self, contact: Contact, now: float) -> None:
        key = contact.key

        def replied(reply: Reply, now: float) -> None:
            del self._calls[key]
            self._repeats -= 1
            self._replied(reply, now)

        def failed(now: float) -> None:
            del self._calls[key]
            self._repeats -= 1
            self._advance(now)

        self._requests += 1
        self._repeats += 1
        self._calls[key] = self._parts.rpc.call(
            contact,
            self._body,
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._parts.env.config.rpc_timeout / 3,),
            give_up_after=self._parts.env.config.rpc_timeout,
        )

    def _replied(self, reply: Reply, now: float) -> None:
        key = reply.contact.key
        self._slowest = max(self._slowest, reply.round_trip)
        body = reply.body
        nodes = (body.nodes or ()) if isinstance(body, FindNodeResponse | FindValueResponse) else ()
        contacts = self._parts.contacts.named_by(reply.contact.address, nodes[:16], self._named)
        self._parts.heard(contacts, now)
        if self.done:
            return
        self._lookup.answered(key)
        if not self._fixed:
            self._lookup.offer(contacts, key)
        if isinstance(body, FindValueResponse):
            self._take_records(body, reply.contact, now)
        self._advance(now)

    def _take_records(self, body: FindValueResponse, contact: Contact, now: float) -> None:
        if self._collection is None:
            return
        fresh = 0
        for record in body.all_records:
            fresh += self._collection.add(record)
        if self._collection and body.all_records:
            if not self._holders:
                self._hops = self._lookup.depth_of(contact.key)
            self._holders[contact.key] = contact
        if self._mode is QueryMode.NEWEST and self._collection and self._window is None:
            config = self._parts.env.config
            if not self._fixed:
                self._lookup.hurry(config.replicas + MORE_THAN_REPLICAS)
            self._listen_until = now + max(config.collect_limit, 2 * self._slowest)
            self._window = self._parts.timers.at(now + config.collect_window, self._window_over)
        if self._mode is QueryMode.ALL and body.all_records and len(body.nodes or ()) <= 1:
            # Contacts are dropped before records: with at most one contact left, records may be missing.
            fruitless = 0 if fresh else self._fruitless.get(contact.key, 0) + 1
            self._fruitless[contact.key] = fruitless
            if fruitless < FRUITLESS_ANSWERS:
                self._again.append(contact)

    def _finish(self, now: float, *, exhausted: bool = False) -> None:
        if self.done:
            return
        self.done = True
        self._stop_timers()
        closest = self._lookup.closest()
        hops = self._hops or (self._lookup.depth_of(closest[0].key) if closest else 0)
        self._on_done(
            QueryResult(
                tuple(closest),
                () if self._collection is None else tuple(self._collection.records()),
                tuple(self._holders.values()),
                self._requests,
                hops,
                exhausted,
                tuple(self._lookup.answered_distances()),
            ),
            now,
        )
