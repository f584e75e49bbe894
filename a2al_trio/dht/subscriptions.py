"""Subscriptions held for others: who asked for a key's next record is sent it (spec 08 §2.1).

Only addresses proven by a round trip are taken, so nobody can be subscribed to packets it did not ask for.
"""

from __future__ import annotations

from collections import OrderedDict

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.bodies import DhtPush, DhtPushAck
from a2al_trio.wire.errors import MessageTooLarge
from a2al_trio.wire.records import SignedRecord

__all__ = ["Subscriptions"]

LIFETIME = 60.0
PER_KEY = 16
KEYS = 1024
PUSH_RESEND = 0.7
PUSH_LIMIT = 2.0


class Subscriptions:
    """Who waits for what, bounded in keys and per key; the oldest key goes first."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._keys: OrderedDict[bytes, dict[int, tuple[Contact, float]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def add(self, key: bytes, subscriber: Contact, now: float) -> None:
        """Push the next record under the key to the subscriber, if it comes within a minute."""
        waiting = self._keys.setdefault(key, {})
        self._keys.move_to_end(key)
        if subscriber.key in waiting or len(waiting) < PER_KEY:
            waiting[subscriber.key] = (subscriber, now + LIFETIME)
        if len(self._keys) > KEYS:
            self._keys.popitem(last=False)

    def stored(self, key: NodeId, record: SignedRecord, now: float) -> None:
        """A record was newly accepted: all who wait under its key get it, and wait no longer unless they renew."""
        for subscriber, until in self._keys.pop(key, {}).values():
            if until >= now:
                self._push(key, record, subscriber, now)

    def _push(self, key: NodeId, record: SignedRecord, subscriber: Contact, now: float) -> None:
        def replied(reply: Reply, now: float) -> None:
            if isinstance(reply.body, DhtPushAck) and reply.body.renew:
                self.add(key, subscriber, now)

        try:
            self._rpc.call(
                subscriber,
                DhtPush(key, record),
                now,
                on_reply=replied,
                on_failure=lambda _now: None,
                resend_after=(PUSH_RESEND,),
                give_up_after=PUSH_LIMIT,
                blame=False,
            )
        except MessageTooLarge:
            return  # it came over a connection and fits no datagram
