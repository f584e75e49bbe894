"""A small STUN server for tests, on any datagram socket; with a second socket it follows RFC 5780."""

from __future__ import annotations

import ipaddress

import attrs

from a2al_trio.ice.stun import (
    Attribute,
    StunClass,
    StunMethod,
    decode_stun,
    encode_error,
    encode_stun,
    encode_xor_address,
)
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit

__all__ = ["StunServer"]


@attrs.define
class StunServer:
    """Answers Binding Requests; ignores the first `deaf` of them, refuses all with `refuse`."""

    socket: DatagramSocket
    other: DatagramSocket | None = None
    other_address: SocketAddress | None = None
    deaf: int = 0
    refuse: bool = False
    asked: int = 0

    async def run(self) -> None:
        while True:
            for received in await self.socket.receive():
                for datagram in received.datagrams():
                    self._answer(bytes(datagram), received.source)

    def _answer(self, datagram: bytes, source: SocketAddress) -> None:
        request = decode_stun(datagram)
        self.asked += 1
        if self.asked <= self.deaf:
            return
        tid = request.transaction_id
        attributes: list[tuple[int, bytes]] = [(Attribute.XOR_MAPPED_ADDRESS, encode_xor_address(source, tid))]
        socket = self.socket
        if self.other is not None and self.other_address is not None:
            packed = ipaddress.ip_address(self.other_address.host).packed
            attributes.append((0x802C, bytes([0, 1]) + self.other_address.port.to_bytes(2, "big") + packed))
            if any(kind == 0x0003 for kind, _ in request.attributes):
                socket = self.other
        reply = (
            encode_stun(StunClass.ERROR, StunMethod.BINDING, tid, (encode_error(420, "Unknown Attribute"),))
            if self.refuse
            else encode_stun(StunClass.SUCCESS, StunMethod.BINDING, tid, attributes)
        )
        socket.send_nowait(Transmit(reply, len(reply), source))
