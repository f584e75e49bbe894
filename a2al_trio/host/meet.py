"""Agent connections through NATs: calls we make and calls we answer at signaling hubs (spec 06 §7, §15).

A call lives in a task of the host, for the connection needs its ICE session to the end. Whoever waits for it and is
cancelled leaves at once; the call itself is then ended where that is safe.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

import attrs
import trio

from a2al_trio.errors import A2alError, ConnectError, ConnectionLost
from a2al_trio.host.accept import Admission, AdmittedCall
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.dial import Dialler, raise_if_mismatch
from a2al_trio.host.paths import GOODBYE, KeptPath, KeptPaths
from a2al_trio.host.pending import CallRequest, PendingCall
from a2al_trio.host.tls import AgentTls
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.punch import Meeting, MeetingPlace, PunchPool, Turn, open_incoming, open_outgoing
from a2al_trio.punch.sync import ROUND, PunchSide, rounds_as_callee, rounds_as_caller
from a2al_trio.quic import QuicConnection, QuicStream
from a2al_trio.scopes import Attempt, race
from a2al_trio.signaling import IncomingCall, Room

__all__ = ["Meetings"]

logger = logging.getLogger(__name__)

ROUTE_MAGIC = b"a2r"
"""How control streams begin, whatever their version (spec 04 §5)."""
FIRST_STREAM_LIMIT = 2.0
"""Seconds after which a caller of the node that has opened no stream is taken for another node.

Callers of agents open theirs together with the end of the handshake.
"""
FIRST_STREAM_TRIPS = 8
"""The same in round trips, for slow paths: what was lost twice is there after about as many (RFC 9002 §6.2)."""
FIRST_BYTES_LIMIT = 10.0
"""Seconds for its first bytes once there is a stream: later ones may have overtaken it."""
CALLER_REST, CALLEE_REST = 30.0, 60.0
"""Seconds that a path without a connection is kept for the caller's next one; the callee's half notices its end."""
PATH_LIMIT = 0.5
"""Seconds for a handshake on a path that stands (spec 08 §5.4): callees of old listen there no more."""
ANSWER_LIMIT = 3.0
"""Seconds for ICE between two who answer each other; it began when that between the two callers did."""
PATH_TRIPS = 5
"""The same in round trips, for slow paths: two for the handshake, and one loss."""


@attrs.define
class Meetings:
    """Calls agents at hubs and answers calls; `background` is the nursery of the host that owns this."""

    place: MeetingPlace
    agents: AgentTable
    tls: AgentTls
    dialler: Dialler
    admission: Admission
    punches: PunchPool
    """Where calls end up that another node makes to ours, for DHT messages (spec 06 §16.4)."""
    background: trio.Nursery
    own_side: Callable[[], PunchSide]
    """Where our main socket is seen, for the synchronised punch (spec 08 §5.1)."""
    _paths: KeptPaths = attrs.field(factory=KeptPaths)
    _calls: dict[tuple[Address, Address], PendingCall] = attrs.field(factory=dict)
    """Our calls that have led to nothing yet, by agent and peer."""
    _answers: dict[tuple[Address, Address], trio.Event] = attrs.field(factory=dict)
    """Answers to calls, by agent and peer; set when it is known what has come of one."""

    def find_path(self, request: CallRequest) -> KeptPath | None:
        """A path that stands and leads to the host that is wanted."""
        return self._paths.find(*request.keys)

    async def call_over(self, kept: KeptPath, peer: Address, *, local: Address) -> AgentConnection:
        """Connect to an agent over a path that stands.

        Raises ConnectError if nobody answers there or the path is lost, IdentityMismatch if somebody else answers.
        """
        limit = max(PATH_LIMIT, PATH_TRIPS * kept.meeting.quic.stats.smoothed_rtt)
        with kept.used(), trio.move_on_after(limit):
            try:
                quic = await kept.meeting.dial(peer, self.tls.dialling(peer, local))
                connection = await self._introduce(quic, kept.meeting, peer, local)
            except ConnectionLost as lost:
                raise_if_mismatch(lost, f"the path there is does not lead to {peer}")
                raise
            except trio.ClosedResourceError:
                # The task that keeps the path has ended meanwhile, and all that runs over the path with it.
                raise ConnectError("the path was given up at that moment") from None
            self.background.start_soon(_use, kept, connection)
            return connection
        raise ConnectError(f"no answer within {limit:.1f} s")

    async def call(self, request: CallRequest) -> AgentConnection:
        """Meet an agent through one of the hubs its record names.

        Raises what `open_outgoing` raises, IdentityMismatch if somebody else answers.
        """
        turn = await self.place.turns.take(request.local, request.peer)
        try:
            call = await self._make(request, turn)
            if call.must_repeat:
                # The peer called us at that moment, and so it does not any more.
                call = await self._make(request, turn)
        finally:
            turn.end()
        if call.connection is None:
            assert call.error is not None
            raise call.error
        return call.connection

    async def _make(self, request: CallRequest, turn: Turn) -> PendingCall:
        call = PendingCall(request, turn)
        pair = request.local, request.peer
        self._calls[pair] = call
        self.background.start_soon(self._keep_call, call)
        try:
            await call.settled.wait()
        except BaseException:
            call.abandon()
            raise
        finally:
            del self._calls[pair]
        return call

    async def answer(self, call: IncomingCall) -> None:
        """Answer one call and keep its connection until it ends; what goes wrong is the caller's to notice."""
        caller, target = Address.parse(call.caller), Address.parse(call.target)
        pair, decided = (target, caller), trio.Event()
        self._answers[pair] = decided
        try:
            tls = self.tls.dialling(caller, target)
            beside = partial(self._answer_punch, caller, target)
            self.admission.punching[caller] = self._take_node
            async with open_incoming(self.place, call, remote=caller, tls=tls, beside=beside) as meeting:
                if meeting.is_client:
                    await self._use_for_call(meeting, caller, target, decided)
                else:
                    decided.set()
                    await self.serve_path(meeting, caller, target)
        except A2alError as error:
            logger.debug("call from %s to %s over %s failed: %s", caller, target, call.hub, error)
        finally:
            decided.set()
            if self._answers.get(pair) is decided:
                del self._answers[pair]
            self.admission.punching.pop(caller, None)

    async def _use_for_call(self, meeting: Meeting, peer: Address, local: Address, decided: trio.Event) -> None:
        """Our answer met the peer's answer to a call of ours, and ICE has settled that we dial (spec 06 D2)."""
        ours = self._calls.get((local, peer))
        connection = await self._introduce(meeting.quic, meeting, peer, local)
        # Our caller goes on all the same: it has perhaps met the peer's, which then comes out as the peer's call.
        if ours is None or not ours.settle(connection):
            _superseded(connection)
        decided.set()
        await meeting.quic.wait_closed()
        await trio.sleep(GOODBYE)

    async def serve_path(
        self, meeting: Meeting, caller: Address, local: Address, *, instead: PendingCall | None = None
    ) -> None:
        """Keep the connection of the caller that was announced, and those that follow on the same path.

        `instead` is our own call to it that has come out as theirs.
        """
        kept = self._paths.keep(meeting, CALLEE_REST)
        announced = AdmittedCall(caller=caller, path=lambda: meeting.description, take_node=self._take_node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_on_path, kept, meeting.quic, announced)
            nursery.start_soon(self._call_back_over, kept, caller, local, instead)
            await self._keep_path(kept)
            nursery.cancel_scope.cancel()

    async def keep_node_path(self, meeting: Meeting, keep: Callable[[], Awaitable[object]]) -> None:
        """Keep a connection of our node's with `keep`, and take what the peer dials on the same path."""
        kept = self._paths.keep(meeting, GOODBYE)

        async def use() -> None:
            with kept.used():
                await keep()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await self._keep_path(kept)
            nursery.cancel_scope.cancel()

    async def _keep_path(self, kept: KeptPath) -> None:
        """Take what the peer dials over a path, until nobody uses it any more."""
        following = AdmittedCall(path=lambda: kept.meeting.description, take_node=self._take_node)

        async def accept() -> None:
            while True:
                nursery.start_soon(self._keep_on_path, kept, await kept.meeting.accept(), following)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await kept.wait_over()
            nursery.cancel_scope.cancel()

    async def _keep_on_path(self, kept: KeptPath, quic: QuicConnection, call: AdmittedCall) -> None:
        with kept.used():
            await self.admission.keep(quic, call)

    async def _call_back(
        self,
        peer: Address,
        local: Address,
        dial: Callable[[], Awaitable[AgentConnection]],
        instead: PendingCall | None = None,
    ) -> bool:
        """If we are calling the peer who has just called us: go back the way it came. False if that fails.

        Two who call each other share a room, and hubs but ours pair any two there (spec 06 §13.6): both callers, which
        makes of two calls one connection, or one agent's caller with two sockets of the other in turn, and a caller
        waits in vain.
        """
        call = instead or self._calls.get((local, peer))
        if call is None or call.settled.is_set() or (call.has_path and instead is None):
            return False
        try:
            connection = await dial()
        except A2alError as error:
            logger.debug("calling %s back: %s", peer, error)
            return False
        call.settle_early(connection)
        return True

    async def _call_back_over(self, kept: KeptPath, peer: Address, local: Address, instead: PendingCall | None) -> None:
        over = partial(self.call_over, kept, peer, local=local)
        if await self._call_back(peer, local, over, instead) or instead is None:
            return
        answer = self._answers.get((local, peer))
        if answer is not None:
            # It may have met the peer's answer to our call. A further call would disturb the two.
            with trio.move_on_after(ANSWER_LIMIT):
                await answer.wait()
        instead.repeat(f"{peer} called us at the same time")

    async def _take_node(self, quic: QuicConnection, caller: Address) -> QuicStream | None:
        """Tell an agent connection from a DHT connection by the first stream, for nothing else does (spec 06 §1).

        The default agent of a host of ours has the node's AID, and callers of agents begin with the route frame. A node
        may never have a word for us while we have some for it, so that a caller is taken for one if its stream is late.
        """
        first: QuicStream | None = None
        with trio.move_on_after(max(FIRST_STREAM_LIMIT, FIRST_STREAM_TRIPS * quic.stats.smoothed_rtt)):
            first = await quic.accept_stream()
        if first is not None and await _names_an_agent(first):
            return first
        return await self.punches.adopt(quic, caller, first, is_other=_names_an_agent)

    async def _keep_call(self, call: PendingCall) -> None:
        peer = call.request.peer
        try:
            with call.scope:
                await self._run_call(call)
        except ConnectionLost as lost:
            try:
                raise_if_mismatch(lost, f"whoever answers for {peer} is somebody else")
            except ConnectError as error:
                call.fail(error)
            call.fail(lost)
        except (A2alError, OSError) as error:
            call.fail(error)
        finally:
            # The host is closing, or the call was abandoned.
            call.fail(ConnectError(f"the call to {peer} was given up"))

    async def _run_call(self, call: PendingCall) -> None:
        request = call.request
        peer, local = request.peer, request.local
        async with open_outgoing(
            self.place,
            request.hubs,
            local=local,
            remote=peer,
            tls=self.tls.dialling(peer, local),
            ready=request.ready,
            on_path=call.note_path,
            beside=partial(self._punch, call),
        ) as meeting:
            if not meeting.is_client:
                # We met the peer's own call, and ICE has settled that it is the one who dials (spec 06 D2).
                await self.serve_path(meeting, peer, local, instead=call)
                return
            connection = await self._introduce(meeting.quic, meeting, peer, local)
            if not call.settle(connection):
                connection.close(0, "superseded by faster candidate")
            kept = self._paths.keep(meeting, CALLER_REST)
            with self._paths.offered(kept, *request.keys):
                self.background.start_soon(_use, kept, connection)
                await self._keep_path(kept)

    async def _punch(self, call: PendingCall, room: Room) -> None:
        """Dial the peer's main socket from ours at the moment it dials us; who is there first wins over ICE."""
        peer, local = call.request.peer, call.request.local
        async with aclosing(rounds_as_caller(room, self.own_side())) as rounds:
            async for targets in rounds:
                with trio.move_on_after(ROUND):
                    attempts = [
                        Attempt(str(target), partial(self.dialler.dial, peer, target, local=local))
                        for target in targets
                    ]
                    try:
                        connection = await race(attempts, stagger=0, discard=_superseded)
                    except ConnectError as error:
                        logger.debug("punch towards %s: %s", peer, error)
                        continue
                    call.settle_early(connection)
                    return

    async def _answer_punch(self, caller: Address, target: Address, room: Room) -> None:
        """Dial the caller's main socket from ours, which opens our NAT for its dials.

        The caller chooses among all connections by opening the control stream on one (spec 08 §5.1).
        """
        tls = self.tls.dialling(caller, target)

        async def dial(address: SocketAddress) -> None:
            try:
                quic = await self.dialler.quic.connect(address, tls=tls, server_name=str(caller))
            except ConnectionLost as error:
                logger.debug("punch towards %s at %s: %s", caller, address, error)
                return
            punched = AdmittedCall(caller=caller, local=target, take_node=self._take_node)
            self.background.start_soon(self.admission.keep, quic, punched)
            back = partial(self.dialler.dial, caller, address, local=target)
            self.background.start_soon(self._call_back, caller, target, back)

        async with aclosing(rounds_as_callee(room, self.own_side())) as rounds:
            async for targets in rounds:
                with trio.move_on_after(ROUND):
                    async with trio.open_nursery() as nursery:
                        for address in targets:
                            nursery.start_soon(dial, address)

    async def _introduce(
        self, quic: QuicConnection, meeting: Meeting, peer: Address, local: Address
    ) -> AgentConnection:
        return await self.dialler.introduce(quic, peer, local, path=lambda: meeting.description)


async def _names_an_agent(stream: QuicStream) -> bool:
    start = b""
    with trio.move_on_after(FIRST_BYTES_LIMIT):
        start = await stream.peek(len(ROUTE_MAGIC))
    return start.startswith(ROUTE_MAGIC)


async def _use(kept: KeptPath, connection: AgentConnection) -> None:
    with kept.used():
        await connection.wait_closed()


def _superseded(connection: AgentConnection) -> None:
    connection.close(0, "superseded by faster candidate")
