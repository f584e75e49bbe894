"""Handlers for the streams a peer opens, run by tasks that are used again.

Most requests are small and complete when they are seen. Starting a task for each would cost more than answering it, so
a task that is done with one stream takes the next. Another one only steps in when it has to wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from a2al_trio.errors import CloseCause, ConnectionLost, StreamReset, StreamStopped

if TYPE_CHECKING:
    from a2al_trio.quic.driver.connection import QuicConnection
    from a2al_trio.quic.driver.stream import QuicStream

__all__ = ["serve_streams"]

SPARE = 4
"""Tasks that may wait for streams when there are none."""


async def serve_streams(connection: QuicConnection, handler: Callable[[QuicStream], Awaitable[object]]) -> None:
    """See `QuicConnection.serve`."""
    waiting = 0

    async def work() -> None:
        nonlocal waiting
        while waiting < SPARE:
            waiting += 1
            try:
                stream = await connection.accept_stream()
            except (ConnectionLost, trio.ClosedResourceError):
                return
            finally:
                waiting -= 1
            if not waiting:
                nursery.start_soon(work)
            try:
                async with stream:
                    await handler(stream)
            except (StreamReset, StreamStopped):
                pass
            except (ConnectionLost, trio.ClosedResourceError):
                if connection.close_reason is None:
                    raise  # some other connection of the handler's, or a mistake of its own

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
    end = connection.close_reason
    if end is not None and (end.by is not CloseCause.PEER_APP or end.code != 0):
        connection._require_open()
