"""A protocol's session on a connection that several tasks share: opened once, kept until the connection ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import attrs
import trio

from a2al_trio.errors import A2alError
from a2al_trio.quic import QuicConnection

__all__ = ["KeptSession"]

T = TypeVar("T")


@attrs.define(eq=False)
class KeptSession(Generic[T]):
    """What `open_session(quic)` yields, in a task of the host that owns `background`."""

    quic: QuicConnection
    background: trio.Nursery
    open_session: Callable[[QuicConnection], AbstractAsyncContextManager[T]]
    _ready: trio.Event | None = None
    _session: T | None = None
    _error: A2alError | None = None

    async def get(self) -> T:
        """The session, opened for the first who asks.

        Raises what opening raised, and ClosedResourceError once the host was closed.
        """
        if self._ready is None and not self.background.cancel_scope.cancel_called:
            self._ready = trio.Event()
            self.background.start_soon(self._keep, self._ready)
        if self._ready is not None:
            await self._ready.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._session is None:
            raise trio.ClosedResourceError("this host was closed")
        return self._session

    async def _keep(self, ready: trio.Event) -> None:
        try:
            async with self.open_session(self.quic) as self._session:
                ready.set()
                await self.quic.wait_closed()
        except A2alError as error:
            self._error = error
        finally:
            ready.set()
