"""An agent in front of an ASGI application: HTTP/3, and for older callers HTTP/1.1 on their streams (spec 04 §15)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

import h11
import trio
from wsproto.utilities import RemoteProtocolError as WebSocketError

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.web import WebAgent
from a2al_trio.http.asgi import AgentHost, Application, Scope, call_scope, open_lifespan
from a2al_trio.http.exchange import Exchange
from a2al_trio.http.http1 import Http1Stream, wants_websocket
from a2al_trio.http.websocket import Http1Carrier, WebSocketSession
from a2al_trio.quic import QuicStream
from a2al_trio.scopes import open_tasks

__all__ = ["serve_asgi"]

logger = logging.getLogger(__name__)


async def serve_asgi(
    host: AgentHost, app: Application, *, http3: bool, web: Iterable[WebAgent], task_status: trio.TaskStatus[None]
) -> None:
    """See `Host.serve_asgi`."""
    web = tuple(web)
    async with open_lifespan(app) as state:

        async def handle(connection: AgentConnection) -> None:
            async with trio.open_nursery() as nursery:
                # Whoever has the connection in hand may close it on this side too.
                with suppress(trio.ClosedResourceError):
                    async for stream in connection:
                        nursery.start_soon(_serve_stream, app, connection, stream, state)

        async with open_tasks() as nursery:
            if http3 and (serve_web := _http3(web)) is not None:
                await nursery.start(partial(serve_web, host, app, state, web=web))
            await nursery.start(host.serve, handle)
            task_status.started()


def _http3(web: Sequence[WebAgent]) -> Callable[..., Awaitable[None]] | None:
    """What serves HTTP/3, if it is installed."""
    try:
        from a2al_trio.http.h3_asgi import serve_host_h3
    except ImportError as error:
        if web:
            raise ConfigurationError("HTTP/3 needs pylsqpack: pip install 'a2al-trio[h3]'") from error
        return None
    return serve_host_h3


async def _serve_stream(app: Application, connection: AgentConnection, stream: QuicStream, state: Scope) -> None:
    async with stream:
        try:
            await _serve_requests(app, connection, Http1Stream(stream), state)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("a stream of %s ended: %s", connection.remote, error)


async def _serve_requests(app: Application, connection: AgentConnection, http: Http1Stream, state: Scope) -> None:
    try:
        while (request := await http.next_request()) is not None:
            kind = "websocket" if wants_websocket(request) else "http"
            scope = call_scope(connection, kind, target=request.target, headers=request.headers, state=state)
            if kind == "websocket":
                await http.next_event()
                await WebSocketSession(Http1Carrier(http, request), scope).run(app)
                return
            scope["method"] = request.method.decode("ascii")
            scope["http_version"] = request.http_version.decode("ascii")
            if not await Exchange(http, request, scope).run(app):
                return
    except h11.RemoteProtocolError as error:
        await http.send_error(error.error_status_hint, str(error))
    except WebSocketError as error:
        await http.send_error(400, str(error))
