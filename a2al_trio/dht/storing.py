"""Storing one record on several nodes (spec 03 §12.4, with §20.27 as rule)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.bodies import Store, StoreResponse
from a2al_trio.wire.records import SignedRecord

__all__ = ["FindClosest", "StoreRun", "store_message"]

FindClosest = Callable[[NodeId, float, Callable[[Sequence[Contact], float], None]], None]
"""Search for the nodes nearest a key and call back with them."""


def store_message(record: SignedRecord, key: NodeId) -> Store:
    """The STORE of a record under a key, which is left out where it follows from the record."""
    return Store(record, None if key == record.address.node_id else key)


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
