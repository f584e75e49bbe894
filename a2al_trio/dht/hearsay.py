"""Records that somebody else than their publisher stores here, and how long they are believed (spec 08 §2.3).

Who has found a record may leave a copy at a node that had none. Such a copy can be out of date though it has not
expired, so it stays for two minutes, and for good only if the publisher answers at the address that its endpoints name
in that time. Holders renew records and hand them to newcomers as well: nodes near the key are believed, for else a
record would not outlive its publisher. A record whose publisher can be asked nowhere is kept like any other.
"""

from __future__ import annotations

from collections.abc import Iterator

from a2al_trio.dht.budget import TokenBuckets, WindowBudget
from a2al_trio.dht.environment import Environment
from a2al_trio.dht.routing import RoutingTable
from a2al_trio.dht.rpc import Reply, Rpc
from a2al_trio.dht.slots import Held
from a2al_trio.dht.store import RecordStore
from a2al_trio.dht.vetting import ContactFilter
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import FindNode
from a2al_trio.wire.errors import WireDecodeError
from a2al_trio.wire.payloads import EndpointPayload
from a2al_trio.wire.records import RecordCategory, RecordType, SignedRecord, record_category

__all__ = ["Hearsay"]

NEAR = 24
"""How many nodes nearest a key are believed: all its holders, though as many others may have gone unnoticed."""
ENDPOINTS_ASKED = 2
ASKS_PER_HOST = 2
ASK_WINDOW = 60.0
ASKS_PER_SECOND = 5.0
"""Records name addresses at their signer's choice: asking there may not become somebody's flood."""


class Hearsay:
    """Judges who stores a record, and asks publishers about the copies of strangers."""

    def __init__(
        self, env: Environment, *, table: RoutingTable, rpc: Rpc, store: RecordStore, contacts: ContactFilter
    ) -> None:
        self._env = env
        self._table = table
        self._rpc = rpc
        self._store = store
        self._contacts = contacts
        self._asked = WindowBudget(ASKS_PER_HOST, ASK_WINDOW)
        self._asking = TokenBuckets(ASKS_PER_SECOND, 4 * ASKS_PER_SECOND)

    def is_hearsay(self, record: SignedRecord, key: NodeId, sender: Address, source: SocketAddress) -> bool:
        """Whether the record is one that its publisher should be asked about, and can be."""
        if record_category(record.record_type) is not RecordCategory.SOVEREIGN or sender.node_id == key:
            return False
        endpoints = list(self._endpoints(record, key))
        if not endpoints or any(endpoint.host == source.host for endpoint in endpoints):
            return False  # a host stores the records of its agents under its own name
        near = self._table.closest(int.from_bytes(key, "big"), NEAR)
        return all(entry.contact.node_address != sender for entry in near)

    def ask_publisher(self, held: Held, now: float) -> None:
        """Send FIND_NODE to where the publisher should be; any answer makes the record last."""

        def answered(_reply: Reply, _now: float) -> None:
            self._store.confirm(held)

        for endpoint in list(dict.fromkeys(self._endpoints(held.record, held.key)))[:ENDPOINTS_ASKED]:
            if not self._contacts.usable(endpoint):
                continue
            if not self._asked.take(endpoint.host, now) or not self._asking.take(b"", now):
                continue
            self._rpc.call(
                endpoint,
                FindNode(NodeId(held.key)),
                now,
                on_reply=answered,
                on_failure=lambda _now: None,
                resend_after=(self._env.config.rpc_timeout,),
                give_up_after=2 * self._env.config.rpc_patience,
                blame=False,
            )

    def _endpoints(self, record: SignedRecord, key: bytes) -> Iterator[SocketAddress]:
        """Where the publisher says it is: by this record, and by the endpoint record held under its key."""
        stored = self._store.endpoint(key, self._env.unix_seconds())
        for each in (record, stored):
            if each is None or each.record_type != RecordType.ENDPOINT:
                continue
            try:
                urls = EndpointPayload.decode(each.payload).endpoints or ()
            except WireDecodeError:
                continue
            for url in urls:
                scheme, _, address = url.partition("://")
                if scheme.lower() in ("quic", "udp"):
                    try:
                        yield SocketAddress.parse(address)
                    except ValueError:
                        continue  # a name, or nonsense
