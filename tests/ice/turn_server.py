"""A small STUN and TURN server for simulated networks: just enough of RFC 8656, written against nobody's client."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from a2al_trio.ice.channel_data import decode_channel_data, encode_channel_data, is_channel_data
from a2al_trio.ice.stun import (
    Attribute,
    Attributes,
    StunClass,
    StunMessage,
    StunMethod,
    decode_stun,
    encode_error,
    encode_stun,
    encode_xor_address,
    is_stun,
    long_term_key,
)
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit

REALM, USER, PASSWORD = "sim", "user", "pass"


@attrs.define(eq=False)
class Allocation:
    client: SocketAddress
    socket: DatagramSocket
    permitted: set[str] = attrs.Factory(set)
    channels: dict[int, SocketAddress] = attrs.Factory(dict)
    bound_at: dict[int, float] = attrs.Factory(dict)

    def expire(self, now: float) -> None:
        for number in [number for number, at in self.bound_at.items() if now - at >= 600]:
            del self.channels[number], self.bound_at[number]


@attrs.define(eq=False)
class SimTurnServer:
    """Serves on `socket`; relayed addresses come from `bind`."""

    socket: DatagramSocket
    bind: Callable[[], DatagramSocket]
    host: str
    nursery: trio.Nursery
    nonce: bytes = b"nonce-1"
    lifetime: int = 600
    sha256: bool = False
    refuse: tuple[int, str] | None = None
    alternate: SocketAddress | None = None
    seen: list[str] = attrs.Factory(list)
    allocations: dict[SocketAddress, Allocation] = attrs.Factory(dict)

    async def run(self) -> None:
        while True:
            for received in await self.socket.receive():
                for datagram in received.datagrams():
                    self.take(bytes(datagram), received.source)

    def reply(self, to: SocketAddress, data: bytes) -> None:
        self.socket.send_nowait(Transmit(data, len(data), to))

    def take(self, data: bytes, source: SocketAddress) -> None:
        allocation = self.allocations.get(source)
        if allocation is not None:
            allocation.expire(trio.current_time())
        if is_channel_data(data):
            channel, payload = decode_channel_data(data)
            if allocation is not None and channel in allocation.channels:
                self.forward(allocation, allocation.channels[channel], bytes(payload))
            return
        if not is_stun(data):
            return
        message = decode_stun(data)
        self.seen.append(f"{StunMethod(message.method).name}:{message.message_class.name}")
        if message.method == StunMethod.SEND and allocation is not None:
            peer = message.address(Attribute.XOR_PEER_ADDRESS)
            if peer is not None:
                self.forward(allocation, peer, message.get(Attribute.DATA) or b"")
        elif message.method == StunMethod.BINDING:
            self.answer(message, source, [self.xor(Attribute.XOR_MAPPED_ADDRESS, source, message)], key=None)
        else:
            self.authenticated(message, source)

    def xor(self, kind: Attribute, address: SocketAddress, message: StunMessage) -> tuple[int, bytes]:
        return kind, encode_xor_address(address, message.transaction_id)

    def key(self) -> bytes:
        return long_term_key(USER, REALM, PASSWORD, sha256=self.sha256)

    def answer(
        self, request: StunMessage, to: SocketAddress, attributes: Attributes, *, key: bytes | None, error: bool = False
    ) -> None:
        kind = StunClass.ERROR if error else StunClass.SUCCESS
        method = StunMethod(request.method)
        self.reply(to, encode_stun(kind, method, request.transaction_id, attributes, key=key, sha256=self.sha256))

    def authenticated(self, message: StunMessage, source: SocketAddress) -> None:
        challenge = [(Attribute.REALM, REALM.encode()), (Attribute.NONCE, self.nonce)]
        if self.sha256:
            challenge.append((Attribute.PASSWORD_ALGORITHMS, bytes.fromhex("0001000000020000")))
        if message.get(Attribute.NONCE) is None or not message.has_integrity(self.key(), sha256=self.sha256):
            self.answer(message, source, [encode_error(401, "Unauthorized"), *challenge], key=None, error=True)
        elif message.get(Attribute.NONCE) != self.nonce:
            self.answer(message, source, [encode_error(438, "Stale Nonce"), *challenge], key=None, error=True)
        elif self.alternate is not None:
            value = encode_xor_address(self.alternate, message.transaction_id)
            plain = bytearray(value)
            plain[2:4] = self.alternate.port.to_bytes(2, "big")
            plain[4:8] = bytes(int(part) for part in self.alternate.host.split("."))
            attributes = [encode_error(300, "Try Alternate"), (Attribute.ALTERNATE_SERVER, bytes(plain))]
            self.answer(message, source, attributes, key=self.key(), error=True)
        elif self.refuse is not None:
            self.answer(message, source, [encode_error(*self.refuse)], key=self.key(), error=True)
        else:
            self.serve(message, source)

    def serve(self, message: StunMessage, source: SocketAddress) -> None:
        lifetime = (Attribute.LIFETIME, self.lifetime.to_bytes(4, "big"))
        allocation = self.allocations.get(source)
        peer = message.address(Attribute.XOR_PEER_ADDRESS)
        attributes: list[tuple[int, bytes]] = []
        if message.method == StunMethod.ALLOCATE:
            if allocation is None:
                allocation = self.allocations[source] = Allocation(source, self.bind())
                self.nursery.start_soon(self.relay, allocation)
            relayed = SocketAddress(self.host, allocation.socket.local_address.port)
            attributes = [
                self.xor(Attribute.XOR_RELAYED_ADDRESS, relayed, message),
                self.xor(Attribute.XOR_MAPPED_ADDRESS, source, message),
                lifetime,
            ]
        elif allocation is None:
            self.answer(message, source, [encode_error(437, "Allocation Mismatch")], key=self.key(), error=True)
            return
        elif message.method == StunMethod.REFRESH:
            if message.number(Attribute.LIFETIME) == 0:
                self.allocations.pop(source).socket.close()
            attributes = [lifetime]
        elif message.method == StunMethod.CREATE_PERMISSION and peer is not None:
            allocation.permitted.add(peer.host)
        elif message.method == StunMethod.CHANNEL_BIND and peer is not None:
            number = int.from_bytes((message.get(Attribute.CHANNEL_NUMBER) or bytes(2))[:2], "big")
            allocation.permitted.add(peer.host)
            if allocation.channels.get(number, peer) != peer or peer in (
                bound for other, bound in allocation.channels.items() if other != number
            ):
                self.answer(message, source, [encode_error(400, "Bad Request")], key=self.key(), error=True)
                return
            allocation.channels[number] = peer
            allocation.bound_at[number] = trio.current_time()
        self.answer(message, source, attributes, key=self.key())

    def forward(self, allocation: Allocation, peer: SocketAddress, data: bytes) -> None:
        if peer.host in allocation.permitted and data:
            allocation.socket.send_nowait(Transmit(data, len(data), peer))

    async def relay(self, allocation: Allocation) -> None:
        try:
            while True:
                for received in await allocation.socket.receive():
                    if received.source.host in allocation.permitted:
                        for datagram in received.datagrams():
                            self.hand_over(allocation, received.source, bytes(datagram))
        except trio.ClosedResourceError:
            return

    def hand_over(self, allocation: Allocation, peer: SocketAddress, data: bytes) -> None:
        allocation.expire(trio.current_time())
        channel = next((number for number, bound in allocation.channels.items() if bound == peer), None)
        if channel is not None:
            self.reply(allocation.client, encode_channel_data(channel, data, pad=False))
            return
        transaction_id = bytes(12)
        attributes = [
            (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            (Attribute.DATA, data),
        ]
        self.reply(allocation.client, encode_stun(StunClass.INDICATION, StunMethod.DATA, transaction_id, attributes))
