"""What users ask of a DHT node: commands on the pure core that return an `Operation` (spec 03 §10, §12, §13, §17)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from a2al_trio.dht.contact import Contact
from a2al_trio.dht.core import DhtCore
from a2al_trio.dht.operation import Operation
from a2al_trio.dht.query import QueryMode, QueryResult
from a2al_trio.dht.rpc import Reply
from a2al_trio.dht.storing import store_message
from a2al_trio.dht.units import Publication
from a2al_trio.errors import A2alError, RecordNotFound
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import FindValue, NatProbeRequest, Ping, Pong, Store, StoreResponse
from a2al_trio.wire.errors import MessageTooLarge
from a2al_trio.wire.messages import MESSAGE_OVERHEAD, encode_message
from a2al_trio.wire.observed import decode_observed, encode_observed
from a2al_trio.wire.records import SignedRecord, is_newer

__all__ = ["BootstrapFailed", "Commands", "PeerSilent", "PingResult"]

MAX_BODY = 1200 - MESSAGE_OVERHEAD
NAT_PROBE_WAIT = 5.0
SUBSCRIPTIONS = 8


class PeerSilent(A2alError):
    """The peer that was asked did not answer."""


class BootstrapFailed(A2alError):
    """None of the nodes given to start from answered."""


@attrs.frozen
class PingResult:
    """An answer to PING: who is there, how it sees us, and the round trip in seconds."""

    contact: Contact
    observed: SocketAddress
    round_trip: float


class Commands:
    """The commands of one node; `now` is the driver's time."""

    def __init__(self, core: DhtCore) -> None:
        self._core = core

    # -- peers -------------------------------------------------------------------------------------------------

    def bootstrap(self, addresses: Sequence[SocketAddress], now: float) -> Operation[int]:
        """Ask all addresses at once; the searches of a join begin with the first answer.

        The result is how many answered; BootstrapFailed if none did.
        """
        operation: Operation[int] = Operation()
        outcomes: list[bool] = []
        if not addresses:
            operation.finish(0)

        def ended(answered: bool, now: float) -> None:
            outcomes.append(answered)
            if len(outcomes) < len(addresses):
                return
            if any(outcomes):
                operation.finish(sum(outcomes))
            else:
                names = ", ".join(map(str, addresses))
                operation.fail(BootstrapFailed(f"no answer from {names}: check the addresses and the network"))

        for address in addresses:
            self._core.maintenance.ask_seed(address, now, on_end=ended)
        return operation

    def ping(self, address: SocketAddress, now: float) -> Operation[PingResult]:
        """Ask whoever is at an address; PeerSilent without an answer."""

        def replied(reply: Reply, now: float) -> None:
            body = reply.body
            observed = decode_observed(body.observed) if isinstance(body, Pong) else address
            operation.finish(PingResult(reply.contact, observed, reply.round_trip))

        def failed(now: float) -> None:
            operation.fail(PeerSilent(f"no answer to PING from {address}"))

        call = self._core.rpc.call(
            address,
            Ping(self._core.env.identity.address),
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._core.env.config.rpc_timeout / 2, self._core.env.config.rpc_timeout),
            give_up_after=self._core.env.config.rpc_patience,
        )
        operation: Operation[PingResult] = Operation(on_abandoned=lambda: self._core.rpc.cancel(call))
        return operation

    def store_at(self, address: SocketAddress, record: SignedRecord, key: NodeId | None, now: float) -> Operation[bool]:
        """Store a record at one peer; the result is whether it took it, PeerSilent without an answer."""

        def replied(reply: Reply, now: float) -> None:
            operation.finish(isinstance(reply.body, StoreResponse) and reply.body.stored)

        def failed(now: float) -> None:
            operation.fail(PeerSilent(f"no answer to STORE from {address}"))

        call = self._core.rpc.call(
            address,
            Store(record, key),
            now,
            on_reply=replied,
            on_failure=failed,
            resend_after=(self._core.env.config.rpc_timeout,),
            give_up_after=2 * self._core.env.config.rpc_patience,
        )
        operation: Operation[bool] = Operation(on_abandoned=lambda: self._core.rpc.cancel(call))
        return operation

    def nat_probe(self, helper: SocketAddress, claimed: SocketAddress, now: float) -> Operation[bool]:
        """Ask a helper to send an echo to our claimed address; the result is whether one came within 5 s."""
        core = self._core
        token = core.env.entropy(8)
        request = NatProbeRequest(token, encode_observed(claimed))
        message = encode_message(request, core.env.entropy(20), core.env.identity)

        def over(now: float) -> None:
            core.handlers.probes.remove(token)
            operation.finish(False)

        def echoed(now: float) -> None:
            timer.cancel()
            operation.finish(True)

        def abandoned() -> None:
            timer.cancel()
            core.handlers.probes.remove(token)

        operation: Operation[bool] = Operation(on_abandoned=abandoned)
        timer = core.timers.at(now + NAT_PROBE_WAIT, over)
        core.handlers.probes.add(token, echoed)
        core.outbox.send(helper, message)
        return operation

    # -- searching ---------------------------------------------------------------------------------------------

    def find_node(self, target: NodeId, now: float) -> Operation[QueryResult]:
        """Search for the nodes nearest a target."""
        return self._core.searches.search(target, QueryMode.NODES, now)

    def find_newest(self, key: NodeId, record_type: int, now: float, *, local: bool) -> Operation[SignedRecord]:
        """Find the newest record of a type; RecordNotFound if no node asked has one.

        With `local` a record we publish ourselves answers at once; what we merely hold for others does not, for
        it may be outdated, but takes part in the comparison.
        """
        core = self._core
        if local:
            for held in core.store.held(key, core.env.unix_seconds(), record_type):
                if held.pinned:
                    return _finished(held.record)

        def done(search: Operation[QueryResult]) -> None:
            result = search.value()
            if not result.records:
                operation.fail(
                    RecordNotFound(
                        f"no record of type {record_type:#04x} under {key.hex()}: "
                        f"{result.requests} nodes were asked, {len(result.closest)} answered"
                    )
                )
                return
            newest = result.records[0]
            for record in result.records[1:]:
                if is_newer(record, newest):
                    newest = record
            operation.finish(newest)

        search = core.survey.find_records(key, QueryMode.NEWEST, now, record_type=record_type)
        operation: Operation[SignedRecord] = Operation(on_abandoned=lambda: search.give_up(done))
        search.when_done(done)
        return operation

    def find_all(self, key: NodeId, record_type: int, now: float, *, subscribe: bool) -> Operation[list[SignedRecord]]:
        """Find all records of a type under a key, 0 for any type."""

        def done(search: Operation[QueryResult]) -> None:
            result = search.value()
            if subscribe:
                self._subscribe(key, record_type, result.holders[:SUBSCRIPTIONS])
            operation.finish(list(result.records))

        search = self._core.survey.find_records(key, QueryMode.ALL, now, record_type=record_type)
        operation: Operation[list[SignedRecord]] = Operation(on_abandoned=lambda: search.give_up(done))
        search.when_done(done)
        return operation

    def _subscribe(self, key: NodeId, record_type: int, holders: Sequence[Contact]) -> None:
        """Ask holders to push the next record; v0.2.0 does not answer that, so silence is no failure (spec 08 §2.1)."""
        now = self._core.timers.now
        for holder in holders:
            self._core.rpc.call(
                holder,
                FindValue(key, record_type, subscribe=True),
                now,
                on_reply=lambda _reply, _now: None,
                on_failure=lambda _now: None,
                give_up_after=self._core.env.config.rpc_timeout,
                blame=False,
            )

    # -- publishing --------------------------------------------------------------------------------------------

    def publish(self, record: SignedRecord, key: NodeId | None, now: float) -> Operation[Publication]:
        """Store a record here and on the nodes nearest its key, and keep it alive there.

        Raises MessageTooLarge if no STORE could carry it, StaleRecord, InvalidRecord.
        """
        core = self._core
        key = record.address.node_id if key is None else key
        size = len(store_message(record, key).encode())
        if size > MAX_BODY:
            raise MessageTooLarge(
                f"the record makes a STORE of {size + MESSAGE_OVERHEAD} bytes, and a datagram takes 1200: "
                "shorten its payload"
            )
        core.store.put(record, core.env.unix_seconds(), key=key, pinned=True)

        def done(publication: Publication) -> None:
            operation.finish(publication)

        operation: Operation[Publication] = Operation(on_abandoned=lambda: core.replication.give_up_waiting(done))
        core.replication.publish(key, record, now, done)
        return operation

    def withdraw(self, publisher: Address, record_type: int = 0, key: NodeId | None = None) -> int:
        """Stop keeping a publisher's records alive: all, or those of one type or under one key."""
        self._core.store.unpin(publisher, record_type, key)
        return self._core.replication.withdraw(publisher, record_type, key)


def _finished(record: SignedRecord) -> Operation[SignedRecord]:
    operation: Operation[SignedRecord] = Operation()
    operation.finish(record)
    return operation
