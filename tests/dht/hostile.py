"""Scripted hostile nodes for the attack tests.

They need no valid keys: the swarms of these tests take every message signature, so an attacker here can have any
node id at the cost of a hash, far more cheaply than a real one. Records keep their real signatures where those matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from a2al_trio.identity import Address, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.bodies import (
    Body,
    FindNode,
    FindNodeResponse,
    FindValue,
    FindValueResponse,
    MessageType,
    Ping,
    Pong,
    Store,
    StoreResponse,
)
from a2al_trio.wire.messages import UnverifiedMessage, encode_message, parse_message
from a2al_trio.wire.nodes import NodeInfo
from a2al_trio.wire.observed import encode_observed
from a2al_trio.wire.records import SignedRecord
from benchmarks.dht_swarm import Node, Swarm

REQUESTS = {MessageType.PING, MessageType.FIND_NODE, MessageType.FIND_VALUE, MessageType.STORE}


class FakeSigner:
    """A public key without its private half."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self.address = Address.from_public_key(public_key)

    def sign(self, message: bytes, /) -> bytes:
        return bytes(64)


def signer_near(target: bytes, bits: int, start: int) -> FakeSigner:
    """A signer whose node id shares at least that many leading bits with the target."""
    goal = int.from_bytes(target, "big")
    number = start * 10_000_000
    while True:
        number += 1
        signer = FakeSigner(hashlib.sha256(b"sybil %d" % number).digest())
        if (int.from_bytes(signer.address.node_id, "big") ^ goal).bit_length() <= 256 - bits:
            return signer


class Hostile:
    """A node that answers requests as it pleases; by default truthfully that it knows nothing."""

    def __init__(self, swarm: Swarm, signer: FakeSigner, address: SocketAddress | None = None) -> None:
        self.swarm = swarm
        self.signer = signer
        self.node: Node = swarm.add_scripted(self.deliver, address=address)
        self.requests = 0
        self.records: Sequence[SignedRecord] = ()
        self.stored = StoreResponse(stored=True)  # and keeps nothing
        self.names: Callable[[NodeId], Sequence[NodeInfo]] = lambda target: ()

    @property
    def info(self) -> NodeInfo:
        return NodeInfo.of(self.signer.address, self.node.address)

    def deliver(self, data: bytes, source: SocketAddress, now: float) -> None:
        message = parse_message(data)
        if message.message_type in REQUESTS:
            self.requests += 1
            answer = self.answer(message, source)
            if answer is not None:
                self.say(source, answer, message.transaction_id)

    def answer(self, message: UnverifiedMessage, source: SocketAddress) -> Body | None:
        observed = encode_observed(source)
        match message.body:
            case Ping():
                return Pong(self.signer.address, observed)
            case FindNode(target):
                return FindNodeResponse(tuple(self.names(target))[:14], observed)
            case FindValue():
                target = message.body.target
                room = 2 if self.records else 14
                return FindValueResponse(tuple(self.names(target))[:room], observed, tuple(self.records))
            case Store():
                return self.stored
        return None

    def say(self, destination: SocketAddress, body: Body, transaction_id: bytes | None = None) -> None:
        transaction_id = self.swarm.random.randbytes(20) if transaction_id is None else transaction_id
        self.swarm.send(self.node, destination, encode_message(body, transaction_id, self.signer))
