"""The callee's side: standing registrations at hubs, and the calls that come in through them (spec 06 §7)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from a2al_trio.identity import Address, InvalidAddress
from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling.channel import Room, Trickle, open_room
from a2al_trio.signaling.errors import SignalingDecodeError, SignalingError
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame
from a2al_trio.signaling.room import room_id
from a2al_trio.signaling.rotation import SLOTS, Rotation
from a2al_trio.signaling.urls import callee_url, hub_authority, subscribe_url
from a2al_trio.signaling.websocket import DIAL_LIMIT, Dialer, dial_tcp, open_hub_socket, send_frame

__all__ = ["CallHandler", "IncomingCall", "Signaling", "open_signaling"]

_REGISTER_INTERVAL: Final = 45.0
_PONG_LIMIT: Final = 10.0
_SAME_CALL: Final = 2.0
_QUEUED_CALLS: Final = 64


@attrs.define(eq=False)
class IncomingCall:
    """Somebody called one of our agents through `hub`. Nothing of it is verified: TLS will tell who it is."""

    caller: str
    target: str
    hub: str
    received_at: float = attrs.field(repr=False)
    _dial: Dialer = attrs.field(repr=False)
    _released: bool = attrs.field(default=False, init=False, repr=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)
    _joined: Room | None = attrs.field(default=None, init=False, repr=False)

    @property
    def room(self) -> str:
        """The name of the room, computed from the two agents."""
        return room_id(self.caller, self.target)

    @asynccontextmanager
    async def join(self, *, credentials: tuple[str, str], trickle: Trickle | None = None) -> AsyncIterator[Room]:
        """Join the call's room on its hub and send our ICE credentials, and run `trickle` to send our candidates.

        Raises `SignalingError`.
        """
        url = callee_url(self.hub, local=self.target, remote=self.caller)
        async with open_room(url, self.hub, credentials=credentials, trickle=trickle, dial=self._dial) as room:
            self._joined = room
            yield room

    def answers_too(self, newer: IncomingCall) -> bool:
        """Whether a newer call of the pair needs no answer of its own, because we are about to wait in its room."""
        if self.hub != newer.hub:
            return newer.received_at - self.received_at < _SAME_CALL
        if self._joined is None:
            return newer.received_at - self.received_at < DIAL_LIMIT
        return not self._joined.has_partner

    def release(self) -> None:
        """The connection stands: later calls of the same pair are new ones and no longer cancel this one."""
        self._released = True


CallHandler = Callable[[IncomingCall], Awaitable[object]]
"""What answers calls; each runs in a task of its own."""
Prove = Callable[[str, str], str]


class Signaling:
    """The registrations of one host; made by `open_signaling`."""

    def __init__(self, dial: Dialer, prove: Prove | None) -> None:
        self._dial = dial
        self._prove = prove
        self._rotation = Rotation()
        self._agents: tuple[str, ...] = ()
        self._changed = trio.Event()
        self._hubs_changed = trio.Event()
        self._redial = trio.Event()
        self._untried = set(range(SLOTS))
        self._tried = trio.Event()
        self._calls_in, self._calls = trio.open_memory_channel[IncomingCall](_QUEUED_CALLS)
        self.dropped_calls = 0

    @property
    def active_hubs(self) -> tuple[str, ...]:
        """The hubs our agents are registered at, sorted: what an endpoint record should name."""
        return tuple(sorted(self._rotation.active))

    async def wait_hubs_changed(self) -> None:
        """Wait until `active_hubs` changes."""
        await self._hubs_changed.wait()

    async def wait_tried(self) -> None:
        """Wait until every slot is registered at a hub, has failed to, or has none to try."""
        await self._tried.wait()

    def set_hubs(self, hubs: Sequence[str]) -> None:
        """Replace the candidates; raises `ConfigurationError` for a URL that is no hub."""
        for hub in hubs:
            subscribe_url(hub)
        self._rotation.set_candidates(hubs)
        self._wake()

    def set_agents(self, agents: Sequence[str]) -> None:
        """Replace the registered agents, given as AID texts, the node's own first.

        There is no frame to un-register with, so hubs are redialled when an agent is gone.
        """
        gone = set(self._agents) - set(agents)
        self._agents = tuple(agents)
        self._wake()
        if gone:
            self._redial.set()
            self._redial = trio.Event()

    def network_changed(self) -> None:
        """Our addresses changed: redial every hub now."""
        self._redial.set()
        self._redial = trio.Event()

    async def serve(
        self, handler: CallHandler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run `handler(call)` in a task of its own for every incoming call, until cancelled.

        A pair of agents has one call at a time: what arrives of the same call through a second hub is dropped, and
        a newer call cancels the handler of the older one unless that called `release`. An older one that still
        waits in the room answers the newer call too: hubs pair whoever waits there. A handler ends quietly with
        a `SignalingError`; other errors propagate.
        """
        current: dict[str, IncomingCall] = {}
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for call in self._calls:
                older = current.get(call.room)
                if older is not None and not older._released:
                    if older.answers_too(call):
                        continue
                    older._scope.cancel()
                current[call.room] = call
                nursery.start_soon(self._handle, handler, call, current)

    @staticmethod
    async def _handle(handler: CallHandler, call: IncomingCall, current: dict[str, IncomingCall]) -> None:
        try:
            with call._scope:
                await handler(call)
        except SignalingError:
            return  # a caller that went away, or a hub: nobody is there to be told
        finally:
            if current.get(call.room) is call:
                del current[call.room]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _note_tried(self, slot: int) -> None:
        self._untried.discard(slot)
        if not self._untried:
            self._tried.set()

    def _note_hubs(self, before: set[str]) -> None:
        if before != self._rotation.active:
            self._hubs_changed.set()
            self._hubs_changed = trio.Event()

    # --- the background -------------------------------------------------------------------------------------

    async def _run_slot(self, slot: int) -> None:
        rotation = self._rotation
        while True:
            changed = self._changed
            hub = rotation.claim(trio.current_time())
            if hub is None:
                self._note_tried(slot)
                with trio.move_on_at(rotation.next_claim_at(trio.current_time())):
                    await changed.wait()
                continue
            pause: float | None = 0.0
            while pause is not None:
                await trio.sleep(pause * random.uniform(0.8, 1.2))
                connected_at = await self._stay_registered(hub, slot)
                self._note_tried(slot)
                before = set(rotation.active)
                pause = rotation.lost(hub, trio.current_time(), connected_at=connected_at)
                self._note_hubs(before)

    async def _stay_registered(self, hub: str, slot: int) -> float | None:
        """Hold one connection until it breaks; returns when it stood, None if it never did."""
        connected_at: float | None = None
        redial = self._redial
        try:
            async with open_hub_socket(subscribe_url(hub), dial=self._dial) as socket:
                changed = self._changed
                await self._register(socket, hub)
                connected_at = trio.current_time()
                before = set(self._rotation.active)
                self._rotation.connected(hub)
                self._note_hubs(before)
                self._note_tried(slot)
                async with trio.open_nursery() as nursery:
                    ends: Sequence[Callable[[], Awaitable[object]]] = (
                        partial(self._read, socket, hub),
                        partial(self._keep_registered, socket, hub, changed),
                        redial.wait,
                    )
                    for end in ends:
                        nursery.start_soon(_run_then_cancel, end, nursery.cancel_scope)
        except SignalingError:
            return connected_at
        return connected_at

    async def _register(self, socket: WebSocketConnection, hub: str) -> None:
        authority = hub_authority(hub)
        for agent in self._agents:
            proof = self._prove(agent, authority) if self._prove is not None else ""
            await send_frame(socket, Frame(type=FrameType.REGISTER, agent=agent, signature=proof))

    async def _keep_registered(self, socket: WebSocketConnection, hub: str, changed: trio.Event) -> None:
        """Registrations count as life, pings do not (spec 06 §4.2); an unanswered ping ends the connection."""
        try:
            while hub in self._rotation.candidates:
                with trio.move_on_after(_REGISTER_INTERVAL):
                    await changed.wait()
                changed = self._changed
                await self._register(socket, hub)
                with trio.move_on_after(_PONG_LIMIT) as limit:
                    await socket.ping()
                if limit.cancelled_caught:
                    return
        except (ConnectionClosed, SignalingError):
            return

    async def _read(self, socket: WebSocketConnection, hub: str) -> None:
        try:
            while True:
                self._take(await socket.get_message(), hub)
        except ConnectionClosed:
            return

    def _take(self, message: str | bytes, hub: str) -> None:
        try:
            frame = decode_frame(message if isinstance(message, bytes) else message.encode())
            if frame.type != FrameType.INCOMING:
                return
            caller, target = str(Address.parse(frame.caller)), str(Address.parse(frame.target))
        except (SignalingDecodeError, InvalidAddress):
            return
        if target not in self._agents or caller == target:
            return
        try:
            self._calls_in.send_nowait(IncomingCall(caller, target, hub, trio.current_time(), self._dial))
        except trio.WouldBlock:
            self.dropped_calls += 1


async def _run_then_cancel(function: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await function()
    scope.cancel()


@asynccontextmanager
async def open_signaling(
    hubs: Sequence[str] = (),
    agents: Sequence[str] = (),
    *,
    prove: Prove | None = None,
    dial: Dialer = dial_tcp,
) -> AsyncIterator[Signaling]:
    """Keep `agents` (AID texts, the node's own first) registered at the first two of `hubs` that work.

    `prove(agent, authority)` gives what `prove_registration` does, for hubs that keep an agent for those who can show
    it to be theirs. Raises `ConfigurationError` for a URL that is no hub. Trouble with hubs is never an error: it shows
    in `active_hubs`.
    """
    signaling = Signaling(dial, prove)
    signaling.set_hubs(hubs)
    signaling.set_agents(agents)
    async with open_service_nursery("signaling") as nursery:
        for slot in range(SLOTS):
            nursery.start_soon(signaling._run_slot, slot)
        yield signaling
