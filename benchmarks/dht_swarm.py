"""Thousands of whole DHT nodes in one process, in virtual time: real codec, real signatures, real routing.

A swarm drives the pure cores directly from one event heap, without Trio: each datagram is an event, each core has at
most one timer event. Everything follows from the seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import attrs

from a2al_trio.dht.commands import Commands
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.core import DhtCore
from a2al_trio.dht.events import DhtEvent
from a2al_trio.dht.operation import Operation
from a2al_trio.identity import Identity, ed25519
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.wire.payloads import EndpointPayload
from a2al_trio.wire.records import RecordType, SignedRecord, Verify, sign_record

__all__ = ["START", "CheckCache", "Node", "Swarm", "endpoint_record"]

T = TypeVar("T")
START = 1_750_000_000
"""Unix time at virtual time zero."""
RECORD_PREFIX = b"a2al-rec\0"
"""What the signed bytes of a record begin with (spec 02 §8)."""
NOWHERE = SocketAddress("203.0.113.7", 4121)
Deliver = Callable[[bytes, SocketAddress, float], None]


class CheckCache:
    """Signature checks shared by all nodes of a swarm.

    What a node of the swarm has signed needs no second look in the same process: the check is a comparison with what
    was signed. Everything else is checked for real, once. A message is checked by its receiver alone and forgotten
    then; a record is checked by many.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._right: dict[bytes, tuple[bytes, bytes]] = {}

    def remember(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """A signature known to be right."""
        if len(self._right) >= self._limit:
            self._right.clear()
        self._right[signature] = (public_key, message)

    def __call__(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        is_record = message.startswith(RECORD_PREFIX)
        known = self._right.get(signature) if is_record else self._right.pop(signature, None)
        if known is not None:
            return known == (public_key, message)
        right = ed25519.verify(public_key, message, signature)
        if right and is_record:
            self.remember(public_key, message, signature)
        return right


@attrs.frozen(repr=False)
class RememberingKey(ed25519.SigningKey):
    """A key whose signatures the cache knows."""

    cache: CheckCache = attrs.field(kw_only=True, eq=False)

    def sign(self, message: bytes) -> bytes:
        """A real signature."""
        signature = ed25519.SigningKey.sign(self, message)
        self.cache.remember(self.public_key, message, signature)
        return signature


@attrs.define(eq=False)
class Node:
    """A simulated node; `core` is None for a scripted one, which gets its datagrams by `deliver`."""

    identity: Identity
    address: SocketAddress
    core: DhtCore | None = None
    deliver: Deliver | None = None
    on_event: Callable[[DhtEvent], None] | None = None
    alive: bool = True
    timer_at: float = float("inf")
    group: int = 0

    @property
    def commands(self) -> Commands:
        """The node's commands."""
        return Commands(self.running)

    @property
    def running(self) -> DhtCore:
        """The core of an ordinary node."""
        assert self.core is not None
        return self.core


class Swarm:
    """A network of nodes. `loss` is the chance of each datagram to vanish, `latency` the range of one-way delays."""

    def __init__(
        self,
        seed: int,
        config: DhtConfig | None = None,
        *,
        loss: float = 0.0,
        latency: tuple[float, float] = (0.01, 0.06),
        verify: Verify | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.config = DhtConfig() if config is None else config
        self.loss = loss
        self.latency = latency
        self.now = 0.0
        self.nodes: list[Node] = []
        self.delivered = 0
        self.partitioned = False
        self._verify = verify
        self._heap: list[tuple[float, int, Node, bytes | None, SocketAddress | None]] = []
        self._made = 0
        self._by_address: dict[SocketAddress, Node] = {}
        self._hosts = 0

    # -- nodes -------------------------------------------------------------------------------------------------

    def fresh_address(self) -> SocketAddress:
        """An address in a network of its own."""
        self._hosts += 1
        number = self._hosts
        first, rest = divmod(number, 250 * 250)
        second, third = divmod(rest, 250)
        return SocketAddress(f"{11 + first}.{1 + second}.{1 + third}.{1 + number % 199}", 4121)

    def identity(self) -> Identity:
        """A new identity."""
        seed = self.random.randbytes(32)
        if isinstance(self._verify, CheckCache):
            return Identity.from_key(RememberingKey(seed, cache=self._verify))
        return Identity.from_seed(seed)

    def add(
        self,
        *,
        address: SocketAddress | None = None,
        identity: Identity | None = None,
        seeds: Sequence[SocketAddress] = (),
        config: DhtConfig | None = None,
    ) -> Node:
        """Add a node; it joins through `seeds` as time goes on."""
        identity = self.identity() if identity is None else identity
        address = self.fresh_address() if address is None else address
        core = DhtCore(
            identity,
            self.config if config is None else config,
            local_address=address,
            entropy=self.random.randbytes,
            unix_time=lambda: START + self.now,
            verify=self._verify,
        )
        node = Node(identity, address, core)
        self._register(node)
        core.start(self.now, seeds=seeds)
        for seed in seeds:
            core.maintenance.ask_seed(seed, self.now)
        self.drain(node)
        return node

    def add_scripted(
        self, deliver: Deliver, *, address: SocketAddress | None = None, identity: Identity | None = None
    ) -> Node:
        """Add a node without a core, for attacks."""
        node = Node(
            self.identity() if identity is None else identity,
            self.fresh_address() if address is None else address,
            deliver=deliver,
        )
        self._register(node)
        return node

    def _register(self, node: Node) -> None:
        self.nodes.append(node)
        self._by_address[node.address] = node

    def kill(self, node: Node) -> None:
        """The node vanishes without a word."""
        node.alive = False
        self.nodes.remove(node)
        if self._by_address.get(node.address) is node:
            del self._by_address[node.address]

    def grow(self, count: int, *, gap: float = 0.05, seeds: int = 3) -> list[Node]:
        """Add that many nodes one after the other, each joining through a few random ones."""
        added = []
        for _ in range(count):
            alive = [node for node in self.random.sample(self.nodes, min(seeds, len(self.nodes))) if node.core]
            added.append(self.add(seeds=[node.address for node in alive]))
            self.run_for(gap)
        return added

    # -- time --------------------------------------------------------------------------------------------------

    def send(self, source: Node, destination: SocketAddress, data: bytes) -> None:
        """Put a datagram on its way; `source.address` is what the receiver sees, true or not."""
        target = self._by_address.get(destination)
        if target is None or (self.loss and self.random.random() < self.loss):
            return
        if self.partitioned and source.group != target.group:
            return
        self._made += 1
        low, high = self.latency
        when = self.now + low + (high - low) * self.random.random()
        heapq.heappush(self._heap, (when, self._made, target, data, source.address))

    def drain(self, node: Node) -> None:
        """Send what a core has to send, hand on its events, note its timer."""
        core = node.running
        for transmit in core.datagrams_to_send(self.now):
            self.send(node, transmit.destination, bytes(transmit.data))
        while (event := core.next_event()) is not None:
            if node.on_event is not None:
                node.on_event(event)
        due = core.next_timeout()
        if due is not None and due < node.timer_at:
            node.timer_at = due
            self._made += 1
            heapq.heappush(self._heap, (due, self._made, node, None, None))

    def run_until(self, when: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until then, or until `stop`."""
        heap = self._heap
        while heap and heap[0][0] <= when and not stop():
            self.now, _, node, data, source = heapq.heappop(heap)
            if not node.alive:
                continue
            if data is not None and source is not None:
                self.delivered += 1
                if node.core is None:
                    assert node.deliver is not None
                    node.deliver(data, source, self.now)
                    continue
                node.core.receive_datagrams(Received(memoryview(data), len(data), source), self.now)
            elif self.now < node.timer_at:
                continue  # a later event has replaced it
            else:
                node.timer_at = float("inf")
                node.running.handle_timeout(self.now)
            self.drain(node)
        if not stop():
            self.now = max(self.now, when)

    def unix_seconds(self) -> int:
        """The wall clock of all nodes, in whole seconds."""
        return START + int(self.now)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.run_until(self.now + seconds)

    def wait(self, node: Node, operation: Operation[T], *, limit: float = 120.0) -> T:
        """Let time pass until an operation of a node is done; raises its error."""
        self.drain(node)
        self.run_until(self.now + limit, stop=lambda: operation.done)
        return operation.value()

    def wait_all(self, pairs: Iterable[tuple[Node, Operation[T]]], *, limit: float = 120.0) -> None:
        """Let time pass until all operations are done."""
        operations = []
        for node, operation in pairs:
            self.drain(node)
            operations.append(operation)
        pending = [operation for operation in operations if not operation.done]
        counter = [len(pending)]

        def done(_operation: Operation[T]) -> None:
            counter[0] -= 1

        for operation in pending:
            operation.when_done(done)
        self.run_until(self.now + limit, stop=lambda: counter[0] == 0)


def endpoint_record(
    identity: Identity,
    now: float,
    at: SocketAddress = NOWHERE,
    *,
    sequence: int = 1,
    ttl: int = 3600,
) -> SignedRecord:
    """An endpoint record of an agent at virtual time `now`, reached at the address of the node that publishes it.

    Holders keep a record from elsewhere for two minutes only, unless somebody answers there (spec 08 §2.3).
    """
    payload = EndpointPayload((f"quic://{at}",)).encode()
    return sign_record(
        identity, RecordType.ENDPOINT, payload, sequence=sequence, timestamp=START + int(now) - 3, ttl=ttl
    )
