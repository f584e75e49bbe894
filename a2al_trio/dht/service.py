"""The DHT node for Trio: `open_dht` runs the pure core on a datagram socket.

Nothing here takes a timeout: wrap calls in cancel scopes. Every call also ends by itself, within the protocol's own
bounds. Cancelling a call stops waiting, and stops its work if nobody else wants it; no peer is charged for that.

Calls that ask the network raise `trio.ClosedResourceError` after the node was closed, and those that wait then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from a2al_trio.dht.commands import BootstrapFailed, Commands, PingResult
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.core import DhtCore
from a2al_trio.dht.distance import as_int
from a2al_trio.dht.events import DhtEvent, MailWaiting, Observation, PeerUnreachable
from a2al_trio.dht.files import SavedState, load_state, save_state
from a2al_trio.dht.handlers import PushHandler
from a2al_trio.dht.health import HealthState
from a2al_trio.dht.memory import decode_published, encode_published
from a2al_trio.dht.operation import Operation
from a2al_trio.dht.outbox import Route
from a2al_trio.dht.report import Json, Statistics, debug_data, statistics
from a2al_trio.dht.store import PolicyRefused, StaleRecord
from a2al_trio.dht.units import Publication
from a2al_trio.drive import Drive, open_drive
from a2al_trio.errors import RecordInvalid
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.identity.identity import Identity
from a2al_trio.machine import Entropy, Machine
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket
from a2al_trio.scopes import open_service_nursery
from a2al_trio.wire.errors import InvalidRecord, WireDecodeError, WireEncodeError
from a2al_trio.wire.payloads import EndpointPayload
from a2al_trio.wire.records import RecordType, SignedRecord

__all__ = ["Dht", "open_dht"]

T = TypeVar("T")
UNREACHABLE_QUEUED = 64
SAVE_INTERVAL = 600.0
CACHED_PEERS = 64


class Dht:
    """A running DHT node; made by `open_dht`."""

    def __init__(
        self,
        core: DhtCore,
        socket: DatagramSocket,
        drive: Drive[DhtEvent],
        unreachable: trio.MemoryReceiveChannel[PeerUnreachable],
    ) -> None:
        self._core = core
        self._commands = Commands(core)
        self._socket = socket
        self._drive = drive
        self._bootstrapped = trio.Event()
        self._waiting: set[trio.Event] = set()
        self._closed = False
        self.unreachable = unreachable
        """Peers a punched connection is wanted to; who does not read it loses the newest."""

    @property
    def address(self) -> Address:
        """The node's own address."""
        return self._core.env.identity.address

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return self._core.env.identity.node_id

    @property
    def local_address(self) -> SocketAddress:
        """Where the node's socket is bound."""
        return self._socket.local_address

    async def _result(self, operation: Operation[T]) -> T:
        """Send what the command queued, then wait for its end."""
        self._require_open()
        self._drive.flush()
        finished = trio.Event()
        self._waiting.add(finished)

        def done(_operation: Operation[T]) -> None:
            finished.set()

        operation.when_done(done)
        try:
            await finished.wait()
        finally:
            self._waiting.discard(finished)
            operation.give_up(done)
            if not self._closed:
                self._drive.flush()
        if not operation.done:
            self._require_open()
        return operation.value()

    def _require_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this DHT node was closed: its `async with` block has ended")

    def _close(self) -> None:
        self._closed = True
        for finished in self._waiting:
            finished.set()

    # -- joining -----------------------------------------------------------------------------------------------

    async def bootstrap(self, addresses: Sequence[SocketAddress]) -> int:
        """Join through the nodes at these addresses; returns how many answered.

        The first answer starts the searches, so slow seeds delay only this call. Raises BootstrapFailed if none
        of a non-empty list answers.
        """
        return await self._result(self._commands.bootstrap(addresses, trio.current_time()))

    async def bootstrapped(self) -> bool:
        """Wait until the seeds given to `open_dht` have been asked; whether any node is known."""
        await self._bootstrapped.wait()
        return len(self._core.table) > 0

    async def _join(self, seeds: Sequence[SocketAddress]) -> None:
        try:
            if seeds:
                await self.bootstrap(seeds)
                await self.find_node(self.node_id)
        except BootstrapFailed:
            pass  # the core goes on trying
        finally:
            self._bootstrapped.set()

    def network_changed(self) -> None:
        """Our network changed: ask contacts anew, search around, and store our records again."""
        self._core.maintenance.network_changed(trio.current_time())
        self._drive.flush()

    # -- peers -------------------------------------------------------------------------------------------------

    async def ping(self, address: SocketAddress) -> PingResult:
        """Ask whoever is at an address. Raises PeerSilent."""
        return await self._result(self._commands.ping(address, trio.current_time()))

    async def find_node(self, target: NodeId) -> list[Contact]:
        """The nodes nearest the target that answered, nearest first."""
        result = await self._result(self._commands.find_node(target, trio.current_time()))
        return list(result.closest)

    def contacts(self) -> list[Contact]:
        """The routing table."""
        return list(self._core.table.contacts())

    def bootstrap_candidates(self, limit: int = CACHED_PEERS) -> list[SocketAddress]:
        """Addresses to start from another time, those that answer well first."""
        order = {HealthState.GOOD: 0, HealthState.UNKNOWN: 1, HealthState.BAD: 2}
        entries = [entry for entry in self._core.table if not entry.routed]
        entries.sort(key=lambda entry: order[self._core.health.state(entry.contact.key)])
        return list(dict.fromkeys(entry.contact.address for entry in entries))[:limit]

    def round_trip(self, node_id: NodeId) -> float | None:
        """The last measured round trip to a node in seconds."""
        health = self._core.health.get(as_int(node_id))
        return None if health is None else health.round_trip

    async def nat_probe(self, helper: SocketAddress, claimed: SocketAddress) -> bool:
        """Whether an echo the helper sends to our claimed address reaches us (spec 03 §8.6); at most 5 s."""
        return await self._result(self._commands.nat_probe(helper, claimed, trio.current_time()))

    @contextlib.contextmanager
    def expect_echo(self, token: bytes) -> Iterator[trio.Event]:
        """The event is set when a NAT_PROBE_ECHO with this token reaches our socket within the block.

        For probes whose request is sent from elsewhere, so that no NAT mapping to the helper exists.
        """
        arrived = trio.Event()
        self._core.handlers.probes.add(token, lambda _now: arrived.set())
        try:
            yield arrived
        finally:
            self._core.handlers.probes.remove(token)

    def set_passive(self, passive: bool) -> None:
        """Passive routing: no refills, no searches for replication (spec 03 §3.6)."""
        self._core.maintenance.passive = passive

    def set_external_hosts(self, hosts: Iterable[str]) -> None:
        """Our own external addresses: other ports there are behind our NAT and not asked (spec 03 §4)."""
        self._core.contacts.external_hosts = frozenset(hosts)

    # -- records -----------------------------------------------------------------------------------------------

    async def resolve(self, address: Address) -> SignedRecord:
        """The newest endpoint record of an agent. Raises RecordNotFound, or RecordInvalid if it does not parse."""
        record = await self.find_record(address.node_id, RecordType.ENDPOINT)
        try:
            EndpointPayload.decode(record.payload)
        except WireDecodeError as error:
            raise RecordInvalid(f"the endpoint record of {address} is unreadable: {error}") from error
        return record

    async def find_record(self, key: NodeId, rec_type: int, *, local: bool = True) -> SignedRecord:
        """The newest record of a type under a key. Raises RecordNotFound.

        `local=False` asks the network even for a record published here.
        """
        operation = self._commands.find_newest(key, rec_type, trio.current_time(), local=local)
        return await self._result(operation)

    async def find_records(self, key: NodeId, rec_type: int = 0, *, subscribe: bool = False) -> list[SignedRecord]:
        """All records of a type under a key, 0 for any type: topics, mail. Nothing found is an empty list.

        `subscribe` asks holders that can to push the next one (spec 08 §2.1).
        """
        operation = self._commands.find_all(key, rec_type, trio.current_time(), subscribe=subscribe)
        return await self._result(operation)

    async def publish(self, record: SignedRecord, key: NodeId | None = None) -> Publication:
        """Keep a record in the DHT; returns after the first round of stores with who holds it.

        It is held here at once. `key` is the id of the record's address unless given. Cancelling the wait does
        not stop the replication. Raises StaleRecord if an equal or newer one is held here, RecordInvalid, and
        WireEncodeError if the record is too large to travel.
        """
        try:
            operation = self._commands.publish(record, key, trio.current_time())
        except InvalidRecord as error:
            raise RecordInvalid(str(error)) from error
        return await self._result(operation)

    async def store_at(self, address: SocketAddress, record: SignedRecord, key: NodeId | None = None) -> bool:
        """Store a record at one peer; whether it took it. Raises PeerSilent."""
        return await self._result(self._commands.store_at(address, record, key, trio.current_time()))

    def put_local(self, record: SignedRecord, key: NodeId | None = None) -> None:
        """Hold a record here only. Raises StaleRecord, RecordInvalid or PolicyRefused."""
        try:
            self._core.store.put(record, self._core.env.unix_seconds(), key=key)
        except InvalidRecord as error:
            raise RecordInvalid(str(error)) from error

    def local_records(self, key: NodeId, rec_type: int = 0) -> list[SignedRecord]:
        """Live records held here under a key."""
        return self._core.store.get(key, self._core.env.unix_seconds(), rec_type)

    def records_by(self, publisher: Address, rec_type: int = 0) -> list[SignedRecord]:
        """Live records of one publisher held here, under whatever key."""
        return self._core.store.published_by(publisher, self._core.env.unix_seconds(), rec_type)

    def invalidate(self, key: NodeId, rec_type: int = 0) -> int:
        """Drop what is held here under a key, except our own publications; returns how many records."""
        return self._core.store.invalidate(key, rec_type)

    def replica_count(self, key: NodeId, record: SignedRecord) -> int:
        """How many nodes are known to hold a record published here."""
        unit = self._core.replication.find(key, record)
        return 0 if unit is None else len(unit.replicas)

    def withdraw(self, publisher: Address, rec_type: int = 0, key: NodeId | None = None) -> int:
        """Stop keeping an agent's records alive, all or those of one type or key; returns how many there were."""
        return self._commands.withdraw(publisher, rec_type, key)

    # -- punched connections (spec 03 §15) ---------------------------------------------------------------------

    def add_route(self, node_id: NodeId, route: Route) -> None:
        """Prefer a punched connection for messages to a node, and get to know it over that."""
        self._core.add_route(node_id, route, trio.current_time())
        self._drive.flush()

    def remove_route(self, node_id: NodeId, route: Route) -> None:
        """The connection has ended."""
        self._core.remove_route(node_id, route)

    def punch_failed(self, node_id: NodeId, *, no_agent: bool = False) -> None:
        """No connection came about; `no_agent` says that the peer is not at its hub, so it counts as bad."""
        if no_agent:
            self._core.health.condemn(as_int(node_id))

    def inject(self, message: bytes, node_id: NodeId, remote_address: SocketAddress) -> None:
        """Take a message that came over the punched connection to `node_id`, which TLS has shown it to be."""
        self._core.inject(message, node_id, remote_address, trio.current_time())
        self._drive.flush()

    # -- looking in --------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Counts since the start and present sizes."""
        return statistics(self._core)

    def debug(self, section: str) -> Json:
        """The data of a `/debug` page: identity, routing, store or stats."""
        return debug_data(self._core, section, str(self.local_address))

    # -- persistence -------------------------------------------------------------------------------------------

    def _saved_state(self) -> SavedState:
        core = self._core
        return SavedState(
            tuple(self.bootstrap_candidates()),
            core.seen.dump(core.env.unix_seconds()),
            encode_published(core.replication.units()),
        )

    def _restore(self, state: SavedState) -> None:
        core, now = self._core, trio.current_time()
        unix_now = core.env.unix_seconds()
        core.seen.load(state.seen, unix_now)
        for key, record in decode_published(state.published, unix_now):
            try:
                self._commands.publish(record, key, now)
            except (InvalidRecord, StaleRecord, PolicyRefused, WireEncodeError):
                continue  # it has lapsed, or the file was tampered with

    async def _keep_saving(self, directory: Path) -> None:
        while True:
            await trio.sleep(SAVE_INTERVAL)
            await trio.to_thread.run_sync(save_state, directory, self._saved_state())


@asynccontextmanager
async def open_dht(
    socket: DatagramSocket,
    identity: Identity,
    config: DhtConfig | None = None,
    *,
    bootstrap: Sequence[SocketAddress] = (),
    data_dir: Path | None = None,
    on_observed: Callable[[Observation], None] | None = None,
    on_push: PushHandler | None = None,
    on_waiting_mail: Callable[[MailWaiting], None] | None = None,
    unix_time: Callable[[], float] = time.time,
    entropy: Entropy = os.urandom,
) -> AsyncIterator[Dht]:
    """Run a DHT node on a socket, which stays the caller's, until the block ends.

    The node is usable at once; it joins through `bootstrap` (and the peers remembered in `data_dir`) in the
    background. `on_observed` is called with what peers say about our address, `on_push` with records pushed to us or
    stored here by others (already checked; True asks who pushed for the next one, too), `on_waiting_mail` when a
    holder says that mail waits for the publisher of a record. Raises ConfigurationError if the identity is a delegated
    agent's: a node has its own.
    """
    state = SavedState() if data_dir is None else await trio.to_thread.run_sync(load_state, data_dir)
    seeds = list(dict.fromkeys([*state.peers, *bootstrap]))
    core = DhtCore(
        identity,
        DhtConfig() if config is None else config,
        local_address=socket.local_address,
        entropy=entropy,
        unix_time=unix_time,
        on_push=on_push,
    )
    send_unreachable, unreachable = trio.open_memory_channel[PeerUnreachable](UNREACHABLE_QUEUED)

    def on_event(event: DhtEvent) -> None:
        if isinstance(event, PeerUnreachable):
            # Nobody may be punching, or not this fast.
            with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
                send_unreachable.send_nowait(event)
        elif isinstance(event, MailWaiting):
            if on_waiting_mail is not None:
                on_waiting_mail(event)
        elif on_observed is not None:
            on_observed(event)

    core.start(trio.current_time(), seeds=seeds)
    machine: Machine[DhtEvent] = core
    async with open_drive(machine, socket, on_event) as drive:
        dht = Dht(core, socket, drive, unreachable)
        dht._restore(state)
        try:
            async with open_service_nursery("DHT node") as nursery:
                nursery.start_soon(dht._join, seeds)
                if data_dir is not None:
                    nursery.start_soon(dht._keep_saving, data_dir)
                try:
                    yield dht
                finally:
                    send_unreachable.close()
                    unreachable.close()
                    if data_dir is not None:
                        with trio.CancelScope(shield=True):
                            await trio.to_thread.run_sync(save_state, data_dir, dht._saved_state())
        finally:
            dht._close()
