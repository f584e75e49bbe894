"""TCP by agent streams, both ways: an agent in front of a local service, and a local port that leads to an agent.

After the control stream, every stream a dialer opens is one raw TCP-like byte stream (spec 04 §15); there is no
framing.
"""

from __future__ import annotations

import contextlib
import logging

import trio

from a2al_trio.errors import A2alError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.pool import ConnectionPool
from a2al_trio.identity import Address
from a2al_trio.quic import QuicStream
from a2al_trio.wire import StreamErrorCode

__all__ = ["answer_from_tcp", "forward_tcp"]

logger = logging.getLogger(__name__)

CONNECT_LIMIT = 5.0
"""Seconds the local service has to accept (spec 04 §19)."""
CHUNK = 64 * 1024
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


async def answer_from_tcp(connection: AgentConnection, *, service: tuple[str, int]) -> None:
    """Have a TCP service answer one caller; see `Host.serve_tcp`."""
    async with trio.open_nursery() as nursery:
        # Whoever has the connection in hand may close it on this side too.
        with contextlib.suppress(trio.ClosedResourceError):
            async for stream in connection:
                nursery.start_soon(_bridge, stream, *service)


async def forward_tcp(
    pool: ConnectionPool,
    peer: Address,
    listeners: list[trio.SocketListener],
    *,
    local: Address | None,
    token: str,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    """See `Host.forward_tcp`."""

    async def handle(client: trio.SocketStream) -> None:
        async with client:
            try:
                connection = await pool.get(peer, local=local)
                stream = await connection.open_service_stream(token)
            except (A2alError, trio.ClosedResourceError) as error:
                logger.warning("no stream to %s: %s", peer, error)
                return
            async with stream:
                await _copy_both_ways(stream, client, code=0)

    await trio.serve_listeners(handle, listeners, task_status=task_status)


async def _bridge(stream: QuicStream, service_host: str, service_port: int) -> None:
    """Connect to a TCP service and copy both ways until both directions have ended."""
    async with stream:
        try:
            with trio.fail_after(CONNECT_LIMIT):
                service = await trio.open_tcp_stream(service_host, service_port)
        except (OSError, trio.TooSlowError) as error:
            logger.warning("service %s:%d is not reachable: %s", service_host, service_port, error)
            stream.reset(StreamErrorCode.SERVICE_UNREACHABLE)
            stream.stop(StreamErrorCode.SERVICE_UNREACHABLE)
            return
        async with service:
            await _copy_both_ways(stream, service, code=StreamErrorCode.SERVICE_UNREACHABLE)


async def _copy_both_ways(stream: QuicStream, tcp: trio.SocketStream, *, code: int) -> None:
    """Copy until each side has ended; the end of one is passed on as the end of that direction only.

    When one side breaks, the other is broken too, the stream with `code`: a truncated answer never looks like a
    complete one.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_copy_to_tcp, stream, tcp, code, nursery.cancel_scope)
        nursery.start_soon(_copy_from_tcp, stream, tcp, code, nursery.cancel_scope)


async def _copy_to_tcp(stream: QuicStream, tcp: trio.SocketStream, code: int, both: trio.CancelScope) -> None:
    try:
        while chunk := await stream.receive_some(CHUNK):
            try:
                await tcp.send_all(chunk)
            except trio.BrokenResourceError:
                # It has stopped listening, but may have an answer on the way, such as an HTTP 413.
                stream.stop(code)
                return
        with contextlib.suppress(trio.BrokenResourceError):
            await tcp.send_eof()
    except GONE:
        stream.reset(code)
        both.cancel()


async def _copy_from_tcp(stream: QuicStream, tcp: trio.SocketStream, code: int, both: trio.CancelScope) -> None:
    try:
        while chunk := await tcp.receive_some(CHUNK):
            await stream.send_all(chunk)
        await stream.send_eof()
    except GONE:
        stream.reset(code)
        stream.stop(code)
        both.cancel()
