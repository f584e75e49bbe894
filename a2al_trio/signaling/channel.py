"""A room at a hub: one WebSocket through which two agents exchange frames (spec 06 §9).

Caller and callee use the same `Room`. It reads all the time, sorts frames into those of ICE and those of the
synchronised punch, and drops what it does not know. Losing the room after the credentials is no error of the call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling.errors import NoAgent, RoomClosed, SignalingDecodeError, SignalingError
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame
from a2al_trio.signaling.websocket import Dialer, dial_tcp, open_hub_socket, send_frame

__all__ = ["Room", "Trickle", "open_room"]

_QUEUED_FRAMES: Final = 128
_ICE_FRAMES: Final = frozenset({FrameType.CREDENTIALS, FrameType.CANDIDATE, FrameType.END_OF_CANDIDATES})
_PUNCH_FRAMES: Final = frozenset({FrameType.PUNCH_INIT, FrameType.PUNCH_ACK, FrameType.PUNCH_GO})


Trickle: TypeAlias = "Callable[[Room], Awaitable[object]]"
"""Sends candidates to a room as they become known; returns quietly when the room is gone."""


class Room:
    """One side's end of a room. `hub` is the base URL of the hub it is on."""

    def __init__(self, socket: WebSocketConnection, hub: str) -> None:
        self.hub = hub
        self._socket = socket
        self._ice_in, self._ice = trio.open_memory_channel[Frame](_QUEUED_FRAMES)
        self._punch_in, self._punch = trio.open_memory_channel[Frame](8)
        self._arrived = trio.Event()
        self._ended = trio.Event()
        self._error: SignalingError = RoomClosed(f"the room at hub {hub} was closed")

    async def send(self, frame: Frame) -> None:
        """Send any frame; raises `NoAgent` or `RoomClosed`."""
        try:
            await send_frame(self._socket, frame)
        except RoomClosed as error:
            # A refusal may stand unread before the broken connection (spec 06 §8).
            await self._ended.wait()
            raise self._error from error

    async def send_credentials(self, ufrag: str, pwd: str) -> None:
        """Tell the peer our ICE credentials; must come before any candidate."""
        await self.send(Frame(type=FrameType.CREDENTIALS, ufrag=ufrag, pwd=pwd))

    async def send_candidate(self, line: str) -> None:
        """Tell the peer one candidate."""
        await self.send(Frame(type=FrameType.CANDIDATE, candidate=line))

    async def send_end_of_candidates(self) -> None:
        """Tell the peer that no more candidates will follow."""
        await self.send(Frame(type=FrameType.END_OF_CANDIDATES))

    async def receive(self) -> Frame:
        """Return the peer's next ICE frame: credentials, a candidate or the end of candidates.

        Raises `NoAgent` or `RoomClosed` when no more will come.
        """
        try:
            return await self._ice.receive()
        except trio.EndOfChannel:
            raise self._error from None

    async def receive_punch(self) -> Frame:
        """Return the peer's next frame of the synchronised punch (spec 08 §5.1); raises as `receive`."""
        try:
            return await self._punch.receive()
        except trio.EndOfChannel:
            raise self._error from None

    async def wait_for_partner(self) -> None:
        """Wait for the peer's first frame without taking it; raises `NoAgent` or `RoomClosed`."""
        await self._arrived.wait()
        if self._ended.is_set() and not self._ice.statistics().current_buffer_used:
            raise self._error

    @property
    def has_partner(self) -> bool:
        """Whether anything was heard of the peer, or ever will be: False while we wait alone."""
        return self._arrived.is_set()

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._socket.get_message())
        except ConnectionClosed as closed:
            if closed.reason is not None and closed.reason.reason:
                self._error = RoomClosed(f"hub {self.hub} closed the room: {closed.reason.reason}")
        except NoAgent as error:
            self._error = error
        finally:
            self._ice_in.close()
            self._punch_in.close()
            self._ended.set()
            self._arrived.set()

    def _take(self, message: str | bytes) -> None:
        try:
            frame = decode_frame(message if isinstance(message, bytes) else message.encode())
        except SignalingDecodeError:
            return  # nothing in a room is worth ending a call for
        if frame.type == FrameType.NO_AGENT:
            raise NoAgent(f"the agent is not registered at hub {self.hub}")
        queue = self._ice_in if frame.type in _ICE_FRAMES else self._punch_in if frame.type in _PUNCH_FRAMES else None
        if queue is not None:
            try:
                queue.send_nowait(frame)
            except trio.WouldBlock:
                return  # a peer that floods us with candidates loses the rest of them
            self._arrived.set()


@asynccontextmanager
async def open_room(
    url: str, hub: str, *, credentials: tuple[str, str], trickle: Trickle | None = None, dial: Dialer = dial_tcp
) -> AsyncIterator[Room]:
    """Join the room of a dial URL and send our ICE credentials (ufrag, pwd); leaving the block leaves the room.

    `trickle` then runs beside the block to send our candidates, before it is known whether anybody will come: the hub
    keeps them. Raises `HubUnreachable`, `NoAgent` or `RoomClosed`.
    """
    async with open_hub_socket(url, dial=dial) as socket, open_service_nursery(f"room at {hub}") as nursery:
        room = Room(socket, hub)
        nursery.start_soon(room._read)
        await room.send_credentials(*credentials)
        if trickle is not None:
            nursery.start_soon(trickle, room)
        yield room
