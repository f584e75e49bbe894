"""The synchronised punch of newer nodes: both sides dial each other's main socket at one moment (spec 08 §5.1).

It runs beside ICE, over the same room. The main socket's port is the one everybody knows and keeps alive, so this meets
where ICE's fresh sockets cannot be foretold. Here is what is agreed on; who dials decides what to make of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

import attrs
import trio

from a2al_trio.errors import A2alError
from a2al_trio.net.address import SocketAddress
from a2al_trio.signaling import Frame, FrameType, Room
from a2al_trio.wire import NatType, is_public

__all__ = ["ROUND", "PunchSide", "punch_targets", "rounds_as_callee", "rounds_as_caller"]

ROUND: Final = 2.5
"""Seconds of dialling in one round."""
ROUNDS: Final = 2
_PAUSE: Final = 1.5
_PARTNER_LIMIT: Final = 8.0
_GO_LIMIT: Final = 6.0
_MAX_ADDRESSES: Final = 6
_PORTS_AROUND: Final = 5


@attrs.frozen
class PunchSide:
    """What one side tells the other: where its main socket is seen, and behind what kind of NAT."""

    addresses: tuple[SocketAddress, ...]
    nat_type: int
    unix_time: Callable[[], float]

    def frame(self, kind: FrameType, timestamp_ms: int) -> Frame:
        """Say so."""
        texts = tuple(str(address) for address in self.addresses[:_MAX_ADDRESSES])
        return Frame(type=kind, addresses=texts, timestamp_ms=timestamp_ms, nat_type=self.nat_type)


def punch_targets(frame: Frame) -> tuple[SocketAddress, ...]:
    """Whom to dial by the other side's `punch-init` or `punch-ack`: a few public addresses, whatever it says.

    The ports of a symmetric NAT are guessed around the one it was seen at.
    """
    found: dict[SocketAddress, None] = {}
    for text in frame.addresses[:_MAX_ADDRESSES]:
        try:
            address = SocketAddress.parse(text)
        except ValueError:
            continue
        if address.port and is_public(address.host):
            found[address] = None
    if frame.nat_type != NatType.SYMMETRIC:
        return tuple(found)
    ipv4 = [address for address in found if not address.is_ipv6]
    ports = range(ipv4[0].port - _PORTS_AROUND, ipv4[0].port + _PORTS_AROUND + 1) if ipv4 else ()
    guesses = tuple(SocketAddress(ipv4[0].host, port) for port in ports if 0 < port < 65536)
    return (*guesses, *(address for address in found if address.is_ipv6))


async def rounds_as_caller(room: Room, side: PunchSide) -> AsyncGenerator[tuple[SocketAddress, ...], None]:
    """Agree with the callee; yields whom to dial for `ROUND` seconds from now, once per round.

    Ends at once if we know no address of our own, or if the callee does not answer.
    """
    if not side.addresses:
        return
    stamp = int(side.unix_time() * 1000)
    began = trio.current_time()
    try:
        await room.send(side.frame(FrameType.PUNCH_INIT, stamp))
        acknowledged = await _receive(room, FrameType.PUNCH_ACK, _PARTNER_LIMIT)
        if acknowledged is None or acknowledged.timestamp_ms != stamp:
            return
        one_way = (trio.current_time() - began) / 2
        targets = punch_targets(acknowledged)
        for number in range(ROUNDS if targets else 0):
            if number:
                await trio.sleep(_PAUSE)
            await room.send(Frame(type=FrameType.PUNCH_GO))
            await trio.sleep(one_way)
            yield targets
    except A2alError:
        return  # the room is gone, and with it what was not agreed on yet


async def rounds_as_callee(room: Room, side: PunchSide) -> AsyncGenerator[tuple[SocketAddress, ...], None]:
    """Agree with the caller, otherwise as `rounds_as_caller`."""
    if not side.addresses:
        return
    try:
        init = await _receive(room, FrameType.PUNCH_INIT, _PARTNER_LIMIT)
        if init is None:
            return
        await room.send(side.frame(FrameType.PUNCH_ACK, init.timestamp_ms))
        targets = punch_targets(init)
        while targets and await _receive(room, FrameType.PUNCH_GO, _GO_LIMIT) is not None:
            yield targets
    except A2alError:
        return


async def _receive(room: Room, kind: FrameType, limit: float) -> Frame | None:
    with trio.move_on_after(limit):
        while True:
            frame = await room.receive_punch()
            if frame.type == kind:
                return frame
    return None
