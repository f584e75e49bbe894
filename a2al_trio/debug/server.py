"""The `/debug` pages on a port of their own."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Any, cast

import trio

from a2al_trio.debug.app import debug_app
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import Host
from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import open_service_nursery

__all__ = ["serve_debug"]

logger = logging.getLogger(__name__)

READ_LIMIT = 10
"""Seconds a request may take to arrive (spec 04 §14)."""
STOP_LIMIT = 3
"""Seconds open requests have to end when the server stops."""


async def serve_debug(
    host: Host,
    bind: str = "127.0.0.1:0",
    *,
    anywhere: bool = False,
    task_status: trio.TaskStatus[SocketAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the `/debug` pages of a host over HTTP until cancelled; `nursery.start` returns the address.

    There is no authentication, so only loopback addresses are taken unless `anywhere` is true. Needs hypercorn
    (`pip install 'a2al-trio[debug]'`). Raises ConfigurationError for an address that cannot be, is in use or is not
    loopback.
    """
    address = _check(bind, anywhere=anywhere)
    try:
        from hypercorn.config import Config
        from hypercorn.trio import serve
    except ImportError as error:
        raise ConfigurationError("serve_debug needs hypercorn: pip install 'a2al-trio[debug]'") from error
    listener = _listen(address)
    bound = SocketAddress(*listener.getsockname()[:2])
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # theirs from here on
    config.accesslog = None
    config.errorlog = logger
    config.loglevel = "WARNING"
    config.read_timeout = READ_LIMIT
    config.graceful_timeout = STOP_LIMIT
    names = None if anywhere else ("localhost", "127.0.0.1", "[::1]", _name(address))
    # Hypercorn's types describe the frameworks it knows; ours is a plain ASGI 3 callable.
    app = cast("Any", debug_app(host, allowed_hosts=names))
    async with open_service_nursery("debug server") as nursery:
        await nursery.start(serve, app, config)
        task_status.started(bound)
        await trio.sleep_forever()


def _listen(address: SocketAddress) -> socket.socket:
    try:
        return socket.create_server(address, family=socket.AF_INET6 if address.is_ipv6 else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(
            f"the debug server cannot listen on {address}: {error.strerror}; choose another address, or port 0 for any"
        ) from error


def _check(bind: str, *, anywhere: bool) -> SocketAddress:
    try:
        address = SocketAddress.parse(bind)
    except ValueError as error:
        raise ConfigurationError(f"debug address: {error}; write IP:port such as 127.0.0.1:2122") from None
    if not anywhere and not ipaddress.ip_address(address.host).is_loopback:
        raise ConfigurationError(
            f"debug address: {address} is not loopback, and there is no password; use 127.0.0.1, or pass "
            "anywhere=True behind a firewall"
        )
    return address


def _name(address: SocketAddress) -> str:
    return f"[{address.host}]" if address.is_ipv6 else address.host
