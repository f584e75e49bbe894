"""A call of ours through a hub, between the task that waits for its connection and the one that keeps it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence

import attrs
import trio

from a2al_trio.errors import ConnectError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.identity import Address
from a2al_trio.punch import Turn

__all__ = ["CallRequest", "PendingCall"]


@attrs.frozen(kw_only=True)
class CallRequest:
    """Whom to call, through which hubs, as whom.

    `place` tells the peer's host from others, so that the path serves for calls to its other agents; None does not.
    What needs no peer is done at once, and the rest when `ready` returns.
    """

    peer: Address
    hubs: Sequence[str]
    local: Address
    place: Hashable = None
    ready: Callable[[], Awaitable[object]] | None = None

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """What calls to the same host can be known by."""
        return (self.peer,) if self.place is None else (self.peer, self.place)


@attrs.define(eq=False)
class PendingCall:
    """What has become of a call so far."""

    request: CallRequest
    turn: Turn
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    settled: trio.Event = attrs.field(factory=trio.Event)
    connection: AgentConnection | None = None
    error: BaseException | None = None
    has_path: bool = False
    abandoned: bool = False
    must_repeat: bool = False
    """Nothing has come of it, but now something would."""

    def note_path(self) -> None:
        """ICE has found a path."""
        self.has_path = True

    def settle(self, connection: AgentConnection) -> bool:
        """Take the first connection; False if there is one already, or nobody wants one any more."""
        if self.settled.is_set():
            return False
        self.connection = connection
        self.settled.set()
        return not self.abandoned

    def settle_early(self, connection: AgentConnection) -> None:
        """There is a connection beside ICE; ICE ends where that is safe, see `abandon`."""
        if not self.settle(connection):
            connection.close(0, "superseded by faster candidate")
        elif not self.has_path:
            self.scope.cancel()

    def repeat(self, reason: str) -> None:
        """What has come of the call is a call of the peer's, and ours is to be made again."""
        if not self.settled.is_set():
            self.must_repeat = True
            self.fail(ConnectError(reason))

    def fail(self, error: BaseException) -> None:
        """The call has led to nothing; the first reason is told."""
        self.error = self.error or error
        self.settled.set()

    def abandon(self) -> None:
        """Nobody wants the connection any more.

        Between the choice of a path and the end of the handshake a reference peer must not be left: it would never
        answer this pair again (spec 06 §14 no. 6). The call then goes on without us and ends itself.
        """
        self.abandoned = True
        if self.connection is not None:
            self.connection.close(0, "superseded by faster candidate")
        elif not self.has_path:
            self.scope.cancel()
