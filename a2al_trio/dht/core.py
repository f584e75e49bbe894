"""The DHT node as a pure machine: bytes, time and entropy in, datagrams and events out.

`DhtCore` wires the parts together and holds no protocol detail. Commands return `Operation`s; the driver drains
what is to be sent after each input, as for every machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import attrs

from a2al_trio.dht.budget import FairQueue, RequestLimiter
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.distance import as_int
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.events import DhtEvent, MailWaiting, Observation, PeerUnreachable
from a2al_trio.dht.handlers import Handlers, PushHandler
from a2al_trio.dht.health import HealthBook, HealthState
from a2al_trio.dht.hearsay import Hearsay
from a2al_trio.dht.holding import Holding
from a2al_trio.dht.maintenance import Maintenance
from a2al_trio.dht.outbox import Outbox, Route
from a2al_trio.dht.query import QueryMode, QueryParts
from a2al_trio.dht.replication import Replication
from a2al_trio.dht.routing import Admission, RoutingTable
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.dht.searches import Searches
from a2al_trio.dht.seen import SeenPeers
from a2al_trio.dht.store import Authority, RecordStore, standard_authority
from a2al_trio.dht.subscriptions import Subscriptions
from a2al_trio.dht.survey import Survey
from a2al_trio.dht.timers import Timers
from a2al_trio.dht.vetting import ContactFilter
from a2al_trio.errors import ConfigurationError
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.identity.identity import Identity
from a2al_trio.machine import Entropy
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.wire.bodies import Body, FindNode, FindNodeResponse, FindValueResponse, MessageType, Ping, Pong
from a2al_trio.wire.errors import WireDecodeError
from a2al_trio.wire.messages import UnverifiedMessage, parse_message
from a2al_trio.wire.observed import decode_observed
from a2al_trio.wire.payloads import EndpointPayload
from a2al_trio.wire.records import SignedRecord, Verify

__all__ = ["DhtCore", "InboundCounters"]

MAX_DATAGRAM = 1200
MAX_ROUTED_MESSAGE = 65_536
REQUESTS_AT_ONCE = 32
REQUESTS_PER_TURN = 64
EVENTS_QUEUED = 256
SWEEP_INTERVAL = 60.0
ROUTE_AFTER_FAILURES = 3

ANSWERS = frozenset(
    {
        MessageType.PONG,
        MessageType.FIND_NODE_RESPONSE,
        MessageType.FIND_VALUE_RESPONSE,
        MessageType.STORE_RESPONSE,
        MessageType.DHT_PUSH_ACK,
    }
)


@attrs.define(eq=False)
class InboundCounters:
    """What came in since the start."""

    verified: int = 0
    malformed: int = 0
    forged: int = 0
    unexpected: int = 0


class DhtCore:
    """One DHT node. All times are on the driver's monotonic clock."""

    def __init__(
        self,
        identity: Identity,
        config: DhtConfig,
        *,
        local_address: SocketAddress,
        entropy: Entropy,
        unix_time: Callable[[], float],
        verify: Verify | None = None,
        authority: Authority | None = None,
        on_push: PushHandler | None = None,
    ) -> None:
        if identity.is_delegated:
            raise ConfigurationError(
                "a DHT node needs an identity of its own: pass the node's key, not a delegated agent's"
            )
        env = Environment(identity, config, entropy, unix_time)
        if verify is not None:
            env.verify = verify
        authority = standard_authority(config.store.clock_tolerance) if authority is None else authority
        self.env = env
        self.timers = Timers()
        self.outbox = Outbox()
        self.table = RoutingTable(env.own, config)
        self.health = HealthBook(config.max_peers_remembered)
        self.contacts = ContactFilter(config, local_address)
        self.store = RecordStore(config.store, verify=env.verify, authority=authority, own=env.own)
        self.rpc = Rpc(env, self.timers, self.outbox, table=self.table, health=self.health)
        parts = QueryParts(env, self.rpc, self.timers, self.contacts, self._heard)
        self.searches = Searches(parts, self.table, self.store, authority=authority)
        self.survey = Survey(env, self.timers, self.table, self.searches)
        self.maintenance = Maintenance(
            env,
            self.timers,
            table=self.table,
            rpc=self.rpc,
            contacts=self.contacts,
            find_node=self._begin_search,
            on_newcomer=self._newcomer,
            on_recovery=self._recovered,
        )
        self.replication = Replication(
            env,
            self.timers,
            rpc=self.rpc,
            health=self.health,
            find_closest=self._find_holders,
            is_usable=lambda contact: self.contacts.usable(contact.address),
            on_replica_lost=lambda contact, _now: self.want_route(contact, priority=1),
            on_waiting_mail=lambda publisher, mail: self._events.append(MailWaiting(publisher, mail)),
        )
        self.holding = Holding(
            env,
            self.timers,
            rpc=self.rpc,
            table=self.table,
            store=self.store,
            find_closest=self.survey.find_closest,
        )
        self.limiter = RequestLimiter(config.requests)
        self.handlers = Handlers(
            env,
            self.table,
            self.store,
            self.outbox,
            limiter=self.limiter,
            hearsay=Hearsay(env, table=self.table, rpc=self.rpc, store=self.store, contacts=self.contacts),
            subscriptions=Subscriptions(self.rpc),
            watcher=self,
            authority=authority,
            on_push=on_push,
        )
        self.rpc.watcher = self
        self.seen = SeenPeers()
        self.counters = InboundCounters()
        self._waiting = FairQueue(config.requests)
        self._events: deque[DhtEvent] = deque(maxlen=EVENTS_QUEUED)

    def start(self, now: float, *, seeds: Sequence[SocketAddress] = ()) -> None:
        """Begin the background work."""
        self.timers.now = now
        self.maintenance.start(now, seeds=seeds)
        self.timers.at(now + SWEEP_INTERVAL, self._sweep)

    def _sweep(self, now: float) -> None:
        self.store.sweep(self.env.unix_seconds())
        self.timers.at(now + SWEEP_INTERVAL, self._sweep)

    # -- the machine -------------------------------------------------------------------------------------------

    def receive_datagrams(self, batch: Received, now: float) -> None:
        """Take the datagrams of one read. The first requests are answered at once, more wait for their turn."""
        self.timers.now = now
        source = batch.source
        for count, datagram in enumerate(batch.datagrams()):
            if len(datagram) > MAX_DATAGRAM:
                self.counters.malformed += 1
                continue
            self._take(bytes(datagram), source, now, at_once=count < REQUESTS_AT_ONCE and not self._waiting)

    def _take(self, datagram: bytes, source: SocketAddress, now: float, *, at_once: bool) -> None:
        try:
            message = parse_message(datagram)
        except WireDecodeError:
            self.counters.malformed += 1
            return
        if message.message_type in ANSWERS:
            self._take_answer(message, source, now)
        elif not self.limiter.admit(source.host, now):
            return
        elif at_once:
            self._serve(message, source, len(datagram), now)
        else:
            size = len(datagram)
            self._waiting.add(source.host, lambda now: self._serve(message, source, size, now))

    def _take_answer(
        self, message: UnverifiedMessage, source: SocketAddress, now: float, *, route_key: int | None = None
    ) -> None:
        try:
            reply = self.rpc.handle_reply(message, source, now, route_key=route_key)
        except WireDecodeError:
            self.counters.forged += 1
            return
        if reply is None:
            self.counters.unexpected += 1
            return
        self.counters.verified += 1
        self._observe(reply)

    def _observe(self, reply: Reply) -> None:
        """Report how the peer sees us; over a punched connection that says nothing of our own socket."""
        body = reply.body
        if reply.routed or not isinstance(body, Pong | FindNodeResponse | FindValueResponse):
            return
        address = decode_observed(body.observed)
        self._events.append(Observation(reply.contact.node_id, reply.contact.address, address))

    def _serve(
        self, message: UnverifiedMessage, source: SocketAddress, size: int, now: float, *, routed: bool = False
    ) -> None:
        try:
            verified = message.verify(self.env.verify)
        except WireDecodeError:
            self.counters.forged += 1
            return
        self.counters.verified += 1
        self.handlers.handle(verified, source, size, now, routed=routed)

    def inject(self, message: bytes, node_id: NodeId, remote: SocketAddress, now: float) -> None:
        """Take a message that came over the punched connection to `node_id` (spec 03 §15.5)."""
        self.timers.now = now
        if len(message) > MAX_ROUTED_MESSAGE:
            self.counters.malformed += 1
            return
        try:
            parsed = parse_message(message)
        except WireDecodeError:
            self.counters.malformed += 1
            return
        if parsed.message_type in ANSWERS:
            self._take_answer(parsed, remote, now, route_key=as_int(node_id))
        elif Address.from_public_key(parsed.sender_key).node_id == node_id:
            self._serve(parsed, remote, len(message), now, routed=True)

    def handle_timeout(self, now: float) -> None:
        """Run what is due."""
        self._waiting.serve(now, REQUESTS_PER_TURN)
        self.timers.run(now)

    def next_timeout(self) -> float | None:
        """When something is due next."""
        return self.timers.now if self._waiting else self.timers.next_at()

    def datagrams_to_send(self, now: float) -> Iterable[Transmit]:
        """What to send now."""
        return self.outbox.drain()

    def next_event(self) -> DhtEvent | None:
        """The oldest event; when nobody takes them the oldest are lost."""
        return self._events.popleft() if self._events else None

    # -- what the parts tell each other ------------------------------------------------------------------------

    def _heard(self, contacts: Sequence[Contact], now: float) -> None:
        for contact in contacts:
            self.table.hear(contact, now)

    def _begin_search(self, target: NodeId, now: float, seeds: Sequence[Contact]) -> None:
        self.searches.search(target, QueryMode.NODES, now, seeds=seeds)

    def _find_holders(self, key: NodeId, now: float, found: Callable[[Sequence[Contact], float], None]) -> None:
        if not self.maintenance.passive:
            self.survey.find_closest(key, now, found)
            return
        known = self.table.closest(as_int(key), self.env.config.bucket_size, routed=True)
        found([entry.contact for entry in known], now)

    def _newcomer(self, contact: Contact, now: float) -> None:
        self.replication.newcomer(contact, now)
        self.holding.newcomer(contact, now)

    def _recovered(self, now: float) -> None:
        self.timers.at(now + self.env.config.rpc_timeout, self.replication.renew_all)

    def peer_proven(self, contact: Contact, admission: Admission, now: float, *, routed: bool) -> None:
        """A round trip to the peer was completed."""
        if not routed:
            self.seen.mark(contact.node_id, self.env.unix_seconds())
            self.handlers.note_proof(contact, now)
        self.maintenance.peer_proven(contact, admission, now)

    def peer_failed(self, contact: Contact, now: float) -> None:
        """A request to the peer went unanswered."""
        self.maintenance.peer_failed(contact, now)
        health = self.health.get(contact.key)
        if health is not None and health.failures >= ROUTE_AFTER_FAILURES:
            self.want_route(contact, priority=0)

    def request_seen(self, sender: Address, source: SocketAddress, now: float, *, routed: bool) -> None:
        """A verified request came in."""
        self.maintenance.request_seen(sender, source, now, routed=routed)

    def proof_wanted(self, sender: Address, source: SocketAddress, now: float) -> None:
        """Something was withheld that a source proven by a round trip would get."""
        self.maintenance.ask_back(sender, source, now)

    def record_stored(self, key: bytes, record: SignedRecord, now: float) -> None:
        """A peer stored a record here, or refreshed one."""
        for held in self.store.held(key, self.env.unix_seconds(), record.record_type):
            if held.record.signature == record.signature:
                self.holding.watch(held, now)

    # -- routes (spec 03 §15) ----------------------------------------------------------------------------------

    def want_route(self, contact: Contact, *, priority: int) -> None:
        """Ask for a punched connection to a peer, if its stored endpoint record names a hub."""
        if self.outbox.has_route(contact.key):
            return
        record = self.store.endpoint(contact.node_id, self.env.unix_seconds())
        if record is None:
            return
        try:
            payload = EndpointPayload.decode(record.payload)
        except WireDecodeError:
            return
        if payload.signal or payload.signals:
            self._events.append(PeerUnreachable(contact.node_id, record, priority))

    def add_route(self, node_id: NodeId, route: Route, now: float) -> None:
        """Use a punched connection for messages to the node, and get to know it over that (spec 03 §15.3)."""
        key = as_int(node_id)
        self.outbox.add_route(key, route)

        def replied(reply: Reply, now: float) -> None:
            if isinstance(reply.body, FindNodeResponse):
                named = self.contacts.named_by(route.remote_address, (reply.body.nodes or ())[:16], {})
                self._heard(
                    [contact for contact in named if self.health.state(contact.key) is not HealthState.BAD], now
                )
                self._greet(key, route, Ping(self.env.identity.address), now, lambda _reply, _now: None)
                self.replication.refill_all(now)

        self._greet(key, route, FindNode(self.env.identity.node_id), now, replied)

    def _greet(self, key: int, route: Route, body: Body, now: float, on_reply: Callable[[Reply, float], None]) -> None:
        self.rpc.call(
            route.remote_address,
            body,
            now,
            on_reply=on_reply,
            on_failure=lambda _now: None,
            resend_after=(self.env.config.rpc_timeout,),  # the other side may not have the connection filed yet
            give_up_after=2 * self.env.config.rpc_patience,
            route_key=key,
        )

    def remove_route(self, node_id: NodeId, route: Route) -> None:
        """The connection has ended."""
        self.outbox.remove_route(as_int(node_id), route)
        self.contacts_lost_route(node_id)

    def contacts_lost_route(self, node_id: NodeId) -> None:
        """A contact only reachable by its connection leaves the table with it."""
        entry = self.table.get(as_int(node_id))
        if entry is not None and entry.routed:
            self.table.remove(entry.contact.key)
