"""An agent in front of a local TCP service (spec 04 §15, gateway).

After the control stream, every stream a dialer opens is one raw TCP-like byte stream; there is no framing.
"""

from __future__ import annotations

import logging

import trio

from a2al_trio.host import AgentConnection, Host
from a2al_trio.quic import QuicStream

__all__ = ["SERVICE_NOT_REACHABLE", "bridge", "copy_both_ways", "serve_tcp"]

logger = logging.getLogger(__name__)

CONNECT_LIMIT = 5.0
"""Seconds the local service has to accept (spec 04 §19)."""
SERVICE_NOT_REACHABLE = 0x43
"""Stream error code by which a caller learns that the service is down (spec 08 §4)."""
CHUNK = 64 * 1024


async def serve_tcp(
    host: Host,
    service_host: str,
    service_port: int,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Forward every stream of every caller to a TCP service, until cancelled.

    A service that does not accept within 5 s is said to the caller by resetting the stream with 0x43, so that it
    can be told from an empty answer (spec 04 §17 D21).
    """

    async def handle(connection: AgentConnection) -> None:
        async with trio.open_nursery() as nursery:
            async for stream in connection:
                nursery.start_soon(bridge, stream, service_host, service_port)

    await host.serve(handle, task_status=task_status)


async def bridge(stream: QuicStream, service_host: str, service_port: int) -> None:
    """Connect to a TCP service and copy both ways until both directions have ended."""
    async with stream:
        try:
            with trio.fail_after(CONNECT_LIMIT):
                service = await trio.open_tcp_stream(service_host, service_port)
        except (OSError, trio.TooSlowError) as error:
            logger.warning("service %s:%d is not reachable: %s", service_host, service_port, error)
            stream.reset(SERVICE_NOT_REACHABLE)
            stream.stop(SERVICE_NOT_REACHABLE)
            return
        async with service:
            await copy_both_ways(stream, service)


async def copy_both_ways(stream: QuicStream, service: trio.SocketStream) -> None:
    """Copy until each side has ended; the end of one is passed on as the end of that direction only.

    When one side breaks, so does the other: a truncated answer never looks like a complete one.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_copy_out, stream, service, nursery.cancel_scope)
        nursery.start_soon(_copy_in, stream, service, nursery.cancel_scope)


async def _copy_out(stream: QuicStream, service: trio.SocketStream, both: trio.CancelScope) -> None:
    """From the caller to the service."""
    try:
        while chunk := await stream.receive_some(CHUNK):
            await service.send_all(chunk)
        await service.send_eof()
    except trio.BrokenResourceError:
        stream.stop(SERVICE_NOT_REACHABLE)
        both.cancel()


async def _copy_in(stream: QuicStream, service: trio.SocketStream, both: trio.CancelScope) -> None:
    """From the service to the caller."""
    try:
        while chunk := await service.receive_some(CHUNK):
            await stream.send_all(chunk)
        await stream.send_eof()
    except trio.BrokenResourceError:
        stream.reset(SERVICE_NOT_REACHABLE)
        both.cancel()
