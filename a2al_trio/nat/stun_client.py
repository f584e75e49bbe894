"""Asking STUN servers for our public address (RFC 8489), from the very socket it is asked about.

A mapping belongs to the socket that made it, so a client with a socket of its own would learn a port that is of
no use (spec 05 §14 N2). The client takes over a socket's receiving side, such as the STUN plane of a mux.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.errors import A2alError, DecodeError
from a2al_trio.ice.stun import Attribute, Attributes, StunClass, StunMessage, StunMethod, decode_stun, encode_stun
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.scopes import open_service_nursery

__all__ = ["StunAnswer", "StunClient", "StunFailed", "open_stun_client"]

RETRANSMISSIONS = (0.5, 1.0, 1.5)
"""Seconds to wait after each of the requests (RFC 8489 §6.2.1, cut short at the 3 s of spec 04 §8.3)."""
CHANGE_REQUEST = 0x0003
CHANGE_ADDRESS_AND_PORT = b"\0\0\0\x06"
OTHER_ADDRESS = 0x802C


class StunFailed(A2alError):
    """A STUN server did not answer, or not with an address."""


@attrs.frozen
class StunAnswer:
    """What a server said: where it saw us, and the other address it can send from, if any (RFC 5780 §7.4)."""

    mapped: SocketAddress
    round_trip: float
    other: SocketAddress | None = None


class StunClient:
    """Queries STUN servers, any number at once; made by `open_stun_client`."""

    def __init__(self, socket: DatagramSocket, entropy: Callable[[int], bytes]) -> None:
        self._socket = socket
        self._entropy = entropy
        self._waiting: dict[bytes, trio.MemorySendChannel[StunMessage]] = {}

    @property
    def local_address(self) -> SocketAddress:
        """The address of the socket that is asked about."""
        return self._socket.local_address

    async def query(self, server: SocketAddress) -> StunAnswer:
        """Ask where `server` sees us; raises StunFailed after 3 s of silence."""
        return await self._ask(server)

    async def can_be_reached_from_elsewhere(self, server: SocketAddress) -> bool:
        """Whether an answer from the server's other address and port gets through to us (RFC 5780 §4.4).

        Ask only a server whose answer had an `other` address, and which that address has not been sent to.
        """
        try:
            await self._ask(server, ((CHANGE_REQUEST, CHANGE_ADDRESS_AND_PORT),))
        except StunFailed:
            return False
        return True

    async def _ask(self, server: SocketAddress, attributes: Attributes = ()) -> StunAnswer:
        transaction_id = self._entropy(12)
        request = encode_stun(StunClass.REQUEST, StunMethod.BINDING, transaction_id, attributes, fingerprint=False)
        send, receive = trio.open_memory_channel[StunMessage](1)
        self._waiting[transaction_id] = send
        started = trio.current_time()
        try:
            for wait in RETRANSMISSIONS:
                self._socket.send_nowait(Transmit(request, len(request), server))
                with trio.move_on_after(wait):
                    return _read_answer(server, await receive.receive(), trio.current_time() - started)
        finally:
            del self._waiting[transaction_id]
        raise StunFailed(f"STUN server {server} does not answer")

    async def run(self) -> None:
        """Hand answers to who waits for them, for ever."""
        while True:
            for received in await self._socket.receive():
                for datagram in received.datagrams():
                    self._take(datagram)

    def _take(self, datagram: memoryview) -> None:
        try:
            message = decode_stun(datagram)
        except DecodeError:
            return
        waiting = self._waiting.get(message.transaction_id)
        if waiting is None or message.message_class not in (StunClass.SUCCESS, StunClass.ERROR):
            return
        with contextlib.suppress(trio.WouldBlock):  # it has one already, to an earlier sending of the request
            waiting.send_nowait(message)


def _read_answer(server: SocketAddress, message: StunMessage, round_trip: float) -> StunAnswer:
    mapped = message.mapped_address
    if message.message_class is StunClass.ERROR or mapped is None:
        code, reason = message.error or (0, "no address in the answer")
        raise StunFailed(f"STUN server {server} answers {code or ''} {reason}".replace("  ", " "))
    other = next((value for kind, value in message.attributes if kind == OTHER_ADDRESS), None)
    return StunAnswer(mapped, round_trip, None if other is None else _plain_address(other))


def _plain_address(value: bytes) -> SocketAddress | None:
    """Read an address that is not XOR-ed: it has the form of a MAPPED-ADDRESS."""
    return StunMessage(StunClass.SUCCESS, StunMethod.BINDING, b"", ((Attribute.MAPPED_ADDRESS, value),)).mapped_address


@asynccontextmanager
async def open_stun_client(
    socket: DatagramSocket, *, entropy: Callable[[int], bytes] = os.urandom
) -> AsyncIterator[StunClient]:
    """Query STUN servers from `socket`, which stays the caller's; nobody else may receive from it meanwhile."""
    client = StunClient(socket, entropy)
    async with open_service_nursery("STUN client") as nursery:
        nursery.start_soon(client.run)
        yield client
