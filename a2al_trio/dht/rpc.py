"""Our requests and their answers (spec 03 §6, §20.2, §20.24).

An answer counts only if transaction, type, source and signer all fit the request: a transaction id alone would let
anybody at the right address vouch for any node. Each answer is a round trip and so proves where the signer is.
A request may be slow before it fails: the reference's first answer comes after 3 s, so its caller is told after the
ordinary timeout and moves on, while a late answer is still taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.health import HealthBook
from a2al_trio.dht.outbox import Outbox
from a2al_trio.dht.routing import Admission, RoutingTable
from a2al_trio.dht.timers import Timer, Timers
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import Body, MessageType
from a2al_trio.wire.messages import UnverifiedMessage, encode_message

__all__ = ["Call", "PeerWatcher", "Reply", "Rpc", "RpcCounters"]

REPLIES = {
    MessageType.PING: MessageType.PONG,
    MessageType.FIND_NODE: MessageType.FIND_NODE_RESPONSE,
    MessageType.FIND_VALUE: MessageType.FIND_VALUE_RESPONSE,
    MessageType.STORE: MessageType.STORE_RESPONSE,
    MessageType.DHT_PUSH: MessageType.DHT_PUSH_ACK,
}


@attrs.frozen
class Reply:
    """An answer: its body, the contact proven by it, how long it took, and whether it came over a connection."""

    body: Body
    contact: Contact
    round_trip: float
    routed: bool


@attrs.define(eq=False)
class Call:
    """A request on its way. `contact` is None when only an address is asked, as in bootstrapping."""

    body: Body
    destination: SocketAddress
    contact: Contact | None
    on_reply: Callable[[Reply, float], None]
    on_failure: Callable[[float], None]
    on_slow: Callable[[float], None] | None
    stages: list[tuple[float, Callable[[Call, float], None]]]
    asked_at: float
    ids: dict[bytes, float] = attrs.Factory(dict)
    timer: Timer | None = None
    probe: bool = False
    blame: bool = True
    route_key: int | None = None


@attrs.define(eq=False)
class RpcCounters:
    """Counts since the start."""

    completed: int = 0
    failed: int = 0
    foreign: int = 0
    """Answers whose source or signer was not the one asked."""


class PeerWatcher(Protocol):
    """Told what calls teach about peers."""

    def peer_proven(self, contact: Contact, admission: Admission, now: float, *, routed: bool) -> None:
        """A round trip to the peer was completed."""

    def peer_failed(self, contact: Contact, now: float) -> None:
        """A request to the peer went unanswered."""


class Rpc:
    """All outstanding requests of a node."""

    def __init__(
        self,
        env: Environment,
        timers: Timers,
        outbox: Outbox,
        *,
        table: RoutingTable,
        health: HealthBook,
    ) -> None:
        self._env = env
        self._timers = timers
        self._outbox = outbox
        self._table = table
        self._health = health
        self._calls: dict[bytes, Call] = {}
        self.counters = RpcCounters()
        self.watcher: PeerWatcher | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def call(
        self,
        peer: Contact | SocketAddress,
        body: Body,
        now: float,
        *,
        on_reply: Callable[[Reply, float], None],
        on_failure: Callable[[float], None],
        on_slow: Callable[[float], None] | None = None,
        resend_after: Sequence[float] = (),
        slow_after: float | None = None,
        give_up_after: float,
        probe: bool = False,
        blame: bool = True,
        route_key: int | None = None,
    ) -> Call:
        """Send a request. Exactly one of `on_reply` and `on_failure` follows, unless the call is cancelled.

        All callbacks get the time. `resend_after` says after which delays it is sent again, with a fresh id;
        `on_slow` is called after `slow_after`. A failed `probe` does not make the peer bad by itself (spec 03 §5);
        without `blame` a failure says nothing. `route_key` names the node whose punched connection is to carry a
        request to an address. Raises WireEncodeError if the request cannot be sent at all; nobody is blamed for that.
        """
        contact = peer if isinstance(peer, Contact) else None
        destination = peer.address if isinstance(peer, Contact) else peer
        stages: list[tuple[float, Callable[[Call, float], None]]] = [(now + give_up_after, self._give_up)]
        if slow_after is not None and on_slow is not None:
            stages.append((now + slow_after, self._slow))
        stages += [(now + delay, self._send) for delay in resend_after]
        stages.sort(key=lambda stage: stage[0], reverse=True)
        call = Call(
            body,
            destination,
            contact,
            on_reply,
            on_failure,
            on_slow,
            stages,
            now,
            probe=probe,
            blame=blame,
            route_key=route_key,
        )
        self._send(call, now)
        self._arm(call)
        return call

    def cancel(self, call: Call) -> None:
        """Forget a call; nobody is charged."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        for transaction_id in call.ids:
            self._calls.pop(transaction_id, None)

    def _send(self, call: Call, now: float) -> None:
        transaction_id = self._env.entropy(20)
        message = encode_message(call.body, transaction_id, self._env.identity)
        call.ids[transaction_id] = now
        self._calls[transaction_id] = call
        self._outbox.send(call.destination, message, self._route_of(call))

    def _route_of(self, call: Call) -> int | None:
        """Whose punched connection may carry the call; a probe asks about the UDP address itself."""
        if call.contact is None:
            return call.route_key
        if call.probe:
            entry = self._table.get(call.contact.key)
            return call.contact.key if entry is not None and entry.routed else None
        return call.contact.key

    def _arm(self, call: Call) -> None:
        when, stage = call.stages.pop()

        def run(now: float) -> None:
            if stage != self._give_up:
                self._arm(call)
            stage(call, now)

        call.timer = self._timers.at(when, run)

    def _slow(self, call: Call, now: float) -> None:
        if call.on_slow is not None:
            call.on_slow(now)

    def _give_up(self, call: Call, now: float) -> None:
        self.cancel(call)
        self.counters.failed += 1
        if call.contact is not None and call.blame:
            self._blame(call, call.contact, now)
        call.on_failure(now)

    def _blame(self, call: Call, contact: Contact, now: float) -> None:
        entry = self._table.get(contact.key)
        if entry is not None and entry.contact.address == contact.address:
            entry.failures += 1
        elif entry is not None:
            return  # an old address of the node failed; that says nothing about the node
        if not call.probe:
            self._health.failure(contact.key, now)
        if self.watcher is not None:
            self.watcher.peer_failed(contact, now)

    def round_trip(self, key: int) -> float:
        """How long the peer took last time in seconds, 0 if that is not known."""
        health = self._health.get(key)
        return 0.0 if health is None or health.round_trip is None else health.round_trip

    def handle_reply(
        self, message: UnverifiedMessage, source: SocketAddress, now: float, *, route_key: int | None = None
    ) -> Reply | None:
        """Match an answer and complete its call; None if it is not one we take.

        `route_key` is the node whose punched connection brought the message. Everything that costs little is
        compared before the signature is checked. Raises InvalidMessage if the signature is wrong.
        """
        call = self._calls.get(message.transaction_id)
        if call is None or REPLIES[call.body.message_type] != message.message_type:
            return None
        asked = call.contact
        routed = route_key is not None
        if routed and route_key != (call.route_key if asked is None else asked.key):
            self.counters.foreign += 1
            return None
        if not routed and source != call.destination:
            self.counters.foreign += 1
            return None
        verified = message.verify(self._env.verify)
        contact = Contact.of(verified.sender, call.destination)
        if routed and contact.key != route_key:
            self.counters.foreign += 1
            return None
        round_trip = now - call.ids[message.transaction_id]
        self.cancel(call)
        if asked is not None and asked.key != contact.key:
            # Somebody else lives there now: the one we asked for has failed, and we met the other.
            self.counters.foreign += 1
            self._table.forget_waiting(asked.key)
            self._blame(call, asked, now)
            self._proven(contact, now, round_trip, routed=False)
            call.on_failure(now)
            return None
        self.counters.completed += 1
        self._proven(contact, now, round_trip, routed=routed)
        reply = Reply(message.body, contact, round_trip, routed)
        call.on_reply(reply, now)
        return reply

    def _proven(self, contact: Contact, now: float, round_trip: float, *, routed: bool) -> None:
        if contact.key == self._env.own:
            return
        self._health.success(contact.key, now, round_trip)
        admission = self._table.prove(contact, now, routed=routed)
        if self.watcher is not None:
            self.watcher.peer_proven(contact, admission, now, routed=routed)
