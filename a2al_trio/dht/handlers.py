"""Answering requests (spec 03 §7-8, with §20.1, §20.5, §20.14 and §20.30 as rules).

An answer is built and queued at once; nothing here waits for anybody. Contacts and records are copied into answers in
encoded form. A request proves nothing about where its sender is, since requests can be replayed from anywhere: the
sender is only noted, and becomes a contact when it answers us. Until then its answers are kept to three times the
size of its request; the wire forces an exception for a single record larger than that, which a byte budget bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from a2al_trio.dht.addresses import network_of, packed_host
from a2al_trio.dht.budget import RequestLimiter, TokenBuckets, WindowBudget
from a2al_trio.dht.collect import is_good
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.hearsay import Hearsay
from a2al_trio.dht.outbox import Outbox
from a2al_trio.dht.routing import Entry, RoutingTable
from a2al_trio.dht.store import Authority, PolicyRefused, RecordStore, StaleRecord
from a2al_trio.dht.subscriptions import Subscriptions
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import (
    DhtPush,
    DhtPushAck,
    FindNode,
    FindValue,
    MessageType,
    NatProbeEcho,
    NatProbeRequest,
    Ping,
    Pong,
    Store,
    StoreReason,
    StoreResponse,
    encode_find_node_response,
    encode_find_value_response,
)
from a2al_trio.wire.errors import WireDecodeError
from a2al_trio.wire.messages import MESSAGE_OVERHEAD, Message, encode_message, seal_message
from a2al_trio.wire.observed import decode_observed, is_public
from a2al_trio.wire.records import SignedRecord

__all__ = ["Handlers", "ProbeWaiters", "RequestWatcher"]

REPLY_NODES = 16
BODY_LIMIT = 1050
AMPLIFICATION = 3
ECHOES_PER_SOURCE = 3
ECHO_WINDOW = 10.0
ECHOES_PER_SECOND = 20.0
CURSORS_REMEMBERED = 1024
PROOFS_REMEMBERED = 4096
PROOF_LIFETIME = 1800.0

PushHandler = Callable[[NodeId, SignedRecord], bool]


class RequestWatcher(Protocol):
    """Told what requests suggest; none of it is proof."""

    def request_seen(self, sender: Address, source: SocketAddress, now: float, *, routed: bool) -> None:
        """A verified request came from that source."""

    def proof_wanted(self, sender: Address, source: SocketAddress, now: float) -> None:
        """Something was withheld that a source proven by a round trip would get."""

    def record_stored(self, key: bytes, record: SignedRecord, now: float) -> None:
        """A peer stored a record here, or refreshed one."""


class ProbeWaiters:
    """NAT probes of ours that wait for their echo, by token."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Callable[[float], None]] = {}

    def add(self, token: bytes, arrived: Callable[[float], None]) -> None:
        """Call back when the echo with that token comes."""
        self._waiting[token] = arrived

    def remove(self, token: bytes) -> None:
        """Stop waiting."""
        self._waiting.pop(token, None)

    def echoed(self, token: bytes, now: float) -> None:
        """An echo came; unknown tokens mean nothing."""
        arrived = self._waiting.pop(token, None)
        if arrived is not None:
            arrived(now)


class Handlers:
    """The server half of a node."""

    def __init__(
        self,
        env: Environment,
        table: RoutingTable,
        store: RecordStore,
        outbox: Outbox,
        *,
        limiter: RequestLimiter,
        hearsay: Hearsay,
        subscriptions: Subscriptions,
        watcher: RequestWatcher,
        authority: Authority,
        on_push: PushHandler | None,
    ) -> None:
        self._env = env
        self._table = table
        self._store = store
        self._outbox = outbox
        self._limiter = limiter
        self._hearsay = hearsay
        self._subscriptions = subscriptions
        self._watcher = watcher
        self._authority = authority
        self._on_push = on_push
        self._echoes = WindowBudget(ECHOES_PER_SOURCE, ECHO_WINDOW)
        self._all_echoes = TokenBuckets(ECHOES_PER_SECOND, 2 * ECHOES_PER_SECOND)
        self._proven: OrderedDict[SocketAddress, tuple[Address, float]] = OrderedDict()
        self._cursors: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self.probes = ProbeWaiters()
        self.answered = 0

    def handle(self, message: Message, source: SocketAddress, size: int, now: float, *, routed: bool = False) -> None:
        """Answer one verified request of `size` bytes."""
        self._watcher.request_seen(message.sender, source, now, routed=routed)
        match message.body:
            case Ping():
                pong = Pong(self._env.identity.address, _observed(source)).encode()
                self._reply(message, source, MessageType.PONG, pong, routed=routed)
            case FindNode(target):
                self._find_node(message, target, source, size, now, routed=routed)
            case FindValue():
                self._find_value(message, message.body, source, size, now, routed=routed)
            case Store():
                self._store_record(message, message.body, source, now, routed=routed)
            case NatProbeRequest():
                self._probe(message.body, source, now)
            case NatProbeEcho(token):
                self.probes.echoed(token, now)
            case DhtPush():
                self._push(message, message.body, source, routed=routed)
            case _:
                pass  # an answer nobody waits for

    def _reply(self, message: Message, source: SocketAddress, kind: MessageType, body: bytes, *, routed: bool) -> None:
        reply = seal_message(kind, body, message.transaction_id, self._env.identity)
        self.answered += 1
        key = int.from_bytes(message.sender.node_id, "big") if routed else None
        self._outbox.send(source, reply, key)

    # -- contacts ----------------------------------------------------------------------------------------------

    def _encoded_nodes(self, target: NodeId, sender: Address) -> list[bytes]:
        """The proven, answering contacts nearest the target, without the asker, as messages carry them."""
        entries = self._table.closest(int.from_bytes(target, "big"), REPLY_NODES)
        return [entry.encoded or _encode(entry) for entry in entries if entry.contact.node_address != sender]

    def note_proof(self, contact: Contact, now: float) -> None:
        """A round trip showed that somebody is at that address: answers there may be of full size."""
        self._proven[contact.address] = (contact.node_address, now)
        self._proven.move_to_end(contact.address)
        if len(self._proven) > PROOFS_REMEMBERED:
            self._proven.popitem(last=False)

    def _is_proven(self, sender: Address, source: SocketAddress, now: float) -> bool:
        who, when = self._proven.get(source, (None, 0.0))
        return who == sender and now - when < PROOF_LIFETIME

    def _allowance(self, message: Message, source: SocketAddress, size: int, now: float, *, routed: bool) -> int:
        """How many bytes of body an answer may have."""
        if routed or self._is_proven(message.sender, source, now):
            return BODY_LIMIT
        return min(BODY_LIMIT, AMPLIFICATION * size - MESSAGE_OVERHEAD)

    def _find_node(
        self,
        message: Message,
        target: NodeId,
        source: SocketAddress,
        size: int,
        now: float,
        *,
        routed: bool,
    ) -> None:
        observed = _observed(source)
        nodes = self._encoded_nodes(target, message.sender)
        room = self._allowance(message, source, size, now, routed=routed) - 5 - len(observed)
        nodes = _fitting(nodes, room)
        body = encode_find_node_response(nodes or None, observed)
        self._reply(message, source, MessageType.FIND_NODE_RESPONSE, body, routed=routed)

    # -- records -----------------------------------------------------------------------------------------------

    def _find_value(
        self,
        message: Message,
        body: FindValue,
        source: SocketAddress,
        size: int,
        now: float,
        *,
        routed: bool,
    ) -> None:
        observed = _observed(source)
        records = self._store.get(body.target, self._env.unix_seconds(), body.record_type)
        allowance = self._allowance(message, source, size, now, routed=routed)
        room = allowance - 8 - len(observed)
        chosen = self._choose_records(body, [record.encoded for record in records], room)
        if chosen and len(chosen[0]) > room:
            # One record is larger than what an unproven source may get: the protocol has no smaller answer.
            extra = len(chosen[0]) - room
            fits = len(chosen[0]) + 8 + len(observed) + MESSAGE_OVERHEAD <= 1200
            if not fits or (allowance < BODY_LIMIT and not self._limiter.admit_bytes(source.host, now, extra)):
                chosen = []
        room -= sum(map(len, chosen))
        nodes = _fitting(self._encoded_nodes(body.target, message.sender), room)
        if len(chosen) < len(records):
            if allowance < BODY_LIMIT:
                self._watcher.proof_wanted(message.sender, source, now)
            nodes = nodes[:1]  # how an asker sees that there are more records (spec 03 §8.3)
        if body.subscribe and chosen:
            if self._is_proven(message.sender, source, now):
                self._subscriptions.add(body.target, Contact.of(message.sender, source), now)
            else:
                self._watcher.proof_wanted(message.sender, source, now)
        reply = encode_find_value_response(nodes or None, observed, chosen)
        self._reply(message, source, MessageType.FIND_VALUE_RESPONSE, reply, routed=routed)

    def _choose_records(self, body: FindValue, records: list[bytes], room: int) -> list[bytes]:
        """All records if they fit, else a run of them that starts where the last one ended: who asks again sees
        the others (spec 03 §20.30). At least one is chosen.
        """
        if len(records) < 2 or sum(map(len, records)) <= room:
            return records
        cursor_key = (bytes(body.target), body.record_type)
        start = self._cursors.get(cursor_key, 0) % len(records)
        chosen: list[bytes] = []
        for offset in range(len(records)):
            record = records[(start + offset) % len(records)]
            if chosen and len(record) > room:
                break
            chosen.append(record)
            room -= len(record)
        self._cursors[cursor_key] = start + len(chosen)
        self._cursors.move_to_end(cursor_key)
        if len(self._cursors) > CURSORS_REMEMBERED:
            self._cursors.popitem(last=False)
        return chosen

    def _store_record(self, message: Message, body: Store, source: SocketAddress, now: float, *, routed: bool) -> None:
        response = StoreResponse(stored=True)
        key = body.target_key
        hearsay = self._hearsay.is_hearsay(body.record, key, message.sender, source)
        try:
            held = self._store.put(
                body.record, self._env.unix_seconds(), key=key, source=network_of(source.host), hearsay=hearsay
            )
            if held.alive:
                if held.lasting is not None:
                    self._hearsay.ask_publisher(held, now)
                self._subscriptions.stored(key, body.record, now)
                if self._on_push is not None:
                    self._on_push(key, body.record)  # we may be among the nearest to one of our own agents
        except StaleRecord:
            response = StoreResponse(stored=True, already_had=True)
            if not hearsay:
                self._store.confirm_stored(body.record, key)
        except PolicyRefused:
            response = StoreResponse(stored=False, reason=StoreReason.POLICY)
        except WireDecodeError:
            response = StoreResponse(stored=False, reason=StoreReason.INVALID)
        if response.stored:
            self._watcher.record_stored(key, body.record, now)
        self._reply(message, source, MessageType.STORE_RESPONSE, response.encode(), routed=routed)

    def _push(self, message: Message, body: DhtPush, source: SocketAddress, *, routed: bool) -> None:
        """Acknowledge a pushed record (spec 08 §2.1); whether it renews is the receiver's business."""
        renew = (
            self._on_push is not None
            and is_good(self._env, body.record, body.key, self._authority)
            and self._on_push(body.key, body.record)
        )
        ack = DhtPushAck(body.key, body.record.payload_id, renew)
        self._reply(message, source, MessageType.DHT_PUSH_ACK, ack.encode(), routed=routed)

    # -- NAT probes --------------------------------------------------------------------------------------------

    def _probe(self, body: NatProbeRequest, source: SocketAddress, now: float) -> None:
        """Echo to the claimed address, if it is public and the requester's own (spec 03 §8.5)."""
        claimed = decode_observed(body.claimed)
        if claimed.host != source.host or claimed.port == 0 or not is_public(claimed.host):
            return
        if not self._echoes.take(source.host, now) or not self._all_echoes.take(b"", now):
            return
        echo = encode_message(NatProbeEcho(body.token), self._env.entropy(20), self._env.identity)
        self._outbox.send(claimed, echo)


def _observed(source: SocketAddress) -> bytes:
    return packed_host(source.host) + source.port.to_bytes(2, "big")


def _encode(entry: Entry) -> bytes:
    """Encode a contact once; the entry keeps it."""
    encoded = entry.encoded = entry.contact.info().encoded
    return encoded


def _fitting(nodes: list[bytes], room: int) -> list[bytes]:
    """The nearest contacts that fit; the list is used up."""
    size = sum(map(len, nodes))
    while size > room and nodes:
        size -= len(nodes.pop())
    return nodes
