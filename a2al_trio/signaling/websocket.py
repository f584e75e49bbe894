"""Dialling a hub: one WebSocket as a context manager that closes it properly and raises one clear error."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from a2al_trio.errors import ConfigurationError, ServiceCrashed
from a2al_trio.net.stream import open_stream
from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling.errors import HubUnreachable, RoomClosed
from a2al_trio.signaling.frames import MAX_MESSAGE_SIZE, SUBPROTOCOL, Frame, encode_frame

__all__ = [
    "DIAL_ERRORS",
    "DIAL_LIMIT",
    "PEER_ERRORS",
    "Dialer",
    "dial_tcp",
    "hub_endpoint",
    "open_hub_socket",
    "send_frame",
]

DIAL_LIMIT: Final = 8.0
"""Seconds for name resolution, TCP, TLS and the WebSocket handshake together (spec 06 D7, D9)."""

_CLOSE_LIMIT: Final = 0.1

PEER_ERRORS: Final = (
    HandshakeError,
    ConnectionClosed,
    ProtocolError,
    h11.ProtocolError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
"""What the WebSocket library and those below it raise when the other end misbehaves or goes away."""

DIAL_ERRORS: Final = (OSError, trio.BrokenResourceError, UnicodeError)
"""How dialling a host fails; a name that cannot be one is a `UnicodeError`."""

Dialer = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and port, with TLS or without; tests and proxies bring their own."""


async def dial_tcp(host: str, port: int, tls: bool) -> trio.abc.Stream:
    """Connect over TCP, trying all addresses of the name; a TLS certificate must suit the name."""
    return await open_stream(host, port, tls=ssl.create_default_context() if tls else None)


def hub_endpoint(url: str) -> tuple[str, int, bool]:
    """Whom to dial for a hub URL: host, port, and whether with TLS; raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} has a malformed host or port: {error}") from error
    tls = parts.scheme == "wss"
    return host, port or (443 if tls else 80), tls


@asynccontextmanager
async def open_hub_socket(url: str, *, dial: Dialer = dial_tcp) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket to a hub URL of `urls`; raises `HubUnreachable`. Leaving closes it with a close frame."""
    parts = urlsplit(url)
    hub = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    stream = await _dial(url, hub, dial)
    resource = f"{parts.path}?{parts.query}" if parts.query else parts.path
    standing = False
    try:
        async with open_service_nursery(f"connection to hub {hub}") as nursery:
            with trio.move_on_after(DIAL_LIMIT) as limit:
                socket = await wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # any trio stream serves
                    parts.netloc.rpartition("@")[2],
                    resource,
                    subprotocols=[SUBPROTOCOL],
                    max_message_size=MAX_MESSAGE_SIZE,
                )
            if limit.cancelled_caught:
                raise HubUnreachable(f"hub {hub} did not answer the WebSocket handshake within {DIAL_LIMIT:.0f} s")
            standing = True
            try:
                yield socket
            finally:
                with trio.move_on_after(_CLOSE_LIMIT, shield=True):
                    await socket.aclose()
    except PEER_ERRORS as error:
        if standing:
            raise
        raise HubUnreachable(f"hub {hub} refused the WebSocket: {_reason(error)}") from error
    except ServiceCrashed as crash:
        # Most refusals come out of the library's reader, behind our back.
        cause = _only_cause(crash)
        if not isinstance(cause, PEER_ERRORS):
            raise
        if standing:
            raise RoomClosed(f"hub {hub} broke the protocol: {_reason(cause)}") from crash
        raise HubUnreachable(f"hub {hub} refused the WebSocket: {_reason(cause)}") from crash
    finally:
        await trio.aclose_forcefully(stream)


def _only_cause(crash: ServiceCrashed) -> BaseException | None:
    error = crash.__cause__
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _dial(url: str, hub: str, dial: Dialer) -> trio.abc.Stream:
    endpoint = hub_endpoint(url)
    try:
        with trio.fail_after(DIAL_LIMIT):
            return await dial(*endpoint)
    except trio.TooSlowError as error:
        raise HubUnreachable(f"hub {hub} could not be reached within {DIAL_LIMIT:.0f} s") from error
    except DIAL_ERRORS as error:
        raise HubUnreachable(f"hub {hub} cannot be reached: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    return str(cause) or type(cause).__name__


async def send_frame(socket: WebSocketConnection, frame: Frame) -> None:
    """Send one frame; raises `RoomClosed`."""
    try:
        await socket.send_message(encode_frame(frame))
    except ConnectionClosed as error:
        raise RoomClosed("the hub closed the connection") from error
