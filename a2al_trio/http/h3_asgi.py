"""An ASGI application on HTTP/3: each request stream of a QUIC endpoint becomes a call of the application."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
import trio

from a2al_trio.h3 import ErrorCode, H3Config, H3Error, RequestHead, ResponseHead, ServerExchange, open_h3_server
from a2al_trio.host.web import WebAgent, WebConnection
from a2al_trio.http.asgi import (
    PEER_EXTENSION,
    PEER_HEADER,
    TOKEN_HEADER,
    VERSION,
    AgentHost,
    Application,
    Message,
    call_application,
    open_lifespan,
)
from a2al_trio.http.h3_websocket import H3Carrier
from a2al_trio.http.websocket import WebSocketSession
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicConnection, QuicEndpoint
from a2al_trio.wire import StreamErrorCode

__all__ = ["serve_h3_asgi", "serve_host_h3"]

logger = logging.getLogger(__name__)

GONE = (H3Error, trio.BrokenResourceError, trio.ClosedResourceError)
"""What the stream of a caller raises that has gone away, or is thrown out."""
NO_BODY = frozenset({204, 304})
HTTP1_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""Fields that applications may set for HTTP/1.1 and HTTP/3 must not carry (RFC 9114 §4.2)."""


async def serve_h3_asgi(
    endpoint: QuicEndpoint,
    app: Application,
    config: H3Config | None = None,
    *,
    task_status: trio.TaskStatus[SocketAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Have an ASGI 3 application answer HTTP/3 requests on all connections of `endpoint`, until cancelled.

    The endpoint's ServerTls has `alpn=("h3",)`. A caller that cancels a request cancels the application's work on it.
    The callers of an endpoint need not be agents: scopes hold no "a2al.peer", and a header that claims to say so is
    dropped. Reports the local address when started with `nursery.start`.

    Cancelling cuts off what is under way, and tells callers which requests were not processed (RFC 9114 §5.2).

    Raises ApplicationFailed if the application says that it cannot start. Its errors in a request are logged, and
    answered with status 500.
    """
    async with open_lifespan(app) as state:

        async def handle(connection: QuicConnection) -> None:
            await _Server(app, connection, state).run(config)

        await endpoint.serve(handle, task_status=task_status)


async def serve_host_h3(
    host: AgentHost,
    app: Application,
    state: dict[str, Any],
    *,
    web: Iterable[WebAgent] = (),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Have an application that has started answer those callers of a host that speak HTTP/3, until cancelled."""

    async def handle(caller: WebConnection) -> None:
        def allowed(tokens: Sequence[str]) -> bool:
            return host.allows(caller.local, caller.remote, tokens)

        await _Server(app, caller.quic, state, caller, allowed).run(None)

    await host.serve_http3(handle, web=web, task_status=task_status)


@attrs.frozen(eq=False)
class _Server:
    """One connection, whose requests are answered by an application; `caller` if it came to an agent of a host."""

    app: Application
    quic: QuicConnection
    state: dict[str, Any]
    caller: WebConnection | None = None
    allowed: Callable[[Sequence[str]], bool] = lambda _tokens: True

    async def run(self, config: H3Config | None) -> None:
        try:
            # What comes in 0-RTT may be a replay, and which requests bear that only their application knows (RFC 8470).
            await self.quic.wait_ready()
        except GONE:
            return
        config = attrs.evolve(config or H3Config(), extended_connect=True)
        async with open_h3_server(self.quic, config) as server, trio.open_nursery() as nursery:
            try:
                async for exchange in server:
                    nursery.start_soon(self._serve_exchange, exchange)
            except GONE as error:
                logger.debug("an HTTP/3 connection of %s ended: %s", self.quic.peer_address, error)
            finally:
                server.go_away()  # applications that are being cancelled may take their time
            nursery.cancel_scope.cancel()

    async def _serve_exchange(self, exchange: ServerExchange) -> None:
        try:
            async with exchange:
                head = await exchange.receive_head()
                tokens = [value.decode("latin-1") for name, value in head.headers if name == TOKEN_HEADER]
                if not self.allowed(tokens):
                    await self._refuse(exchange)
                elif head.method == b"CONNECT":
                    await self._connect(exchange, head)
                else:
                    await _Call(exchange, head, self._scope(head)).run(self.app)
        except GONE as error:
            logger.debug("a request of %s ended: %s", self.quic.peer_address, error)

    async def _connect(self, exchange: ServerExchange, head: RequestHead) -> None:
        """A WebSocket, the only thing that streams are given for (RFC 9220 §3)."""
        if head.protocol != b"websocket":
            await exchange.send_response(ResponseHead(501), end=True)
        elif not H3Carrier.speaks(head):
            await exchange.send_response(ResponseHead(400, ((b"sec-websocket-version", b"13"),)), end=True)
        else:
            scope = self._scope(head) | {"type": "websocket", "scheme": "wss"}
            del scope["method"]
            await WebSocketSession(H3Carrier(exchange, head), scope).run(self.app)

    async def _refuse(self, exchange: ServerExchange) -> None:
        """Agents learn it by the code that all streams have for it; others know nothing of that."""
        if self.caller is not None and self.caller.remote is not None:
            exchange.reset(StreamErrorCode.ACCESS_DENIED)
            return
        head = ResponseHead(403, ((b"content-type", b"text/plain"),))
        await exchange.send_response(head, b"This agent takes no anonymous callers.\n", end=True)

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        path, _, query = head.path.partition(b"?")
        caller = self.caller
        # Some applications turn dashes into underscores before they look a header up: neither form may be forged.
        dropped = {b"host", b"cookie", PEER_HEADER} | ({TOKEN_HEADER} if caller is not None else set())
        headers = [(name, value) for name, value in head.headers if name.replace(b"_", b"-") not in dropped]
        cookies = [value for name, value in head.headers if name == b"cookie"]
        if cookies:
            headers.append((b"cookie", b"; ".join(cookies)))  # senders may split it (RFC 9114 §4.2.1)
        server = (self.quic.local_address.host, self.quic.local_address.port)
        extensions: dict[str, Any] = {}
        if caller is not None:
            aid = None if caller.remote is None else str(caller.remote)
            server = (str(caller.local), 443)
            extensions[PEER_EXTENSION] = {"aid": aid, "agent": str(caller.local), "path": caller.path}
            if aid is not None:
                headers.append((PEER_HEADER, aid.encode()))
        return {
            "type": "http",
            "asgi": dict(VERSION),
            "http_version": "3",
            "method": head.method.decode("ascii"),
            "scheme": head.scheme.decode("latin-1"),
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", head.authority), *headers],
            "client": (self.quic.peer_address.host, self.quic.peer_address.port),
            "server": server,
            "state": dict(self.state),
            "extensions": extensions,
        }


class _Call:
    """The `receive` and `send` of one request."""

    def __init__(self, exchange: ServerExchange, head: RequestHead, scope: dict[str, Any]) -> None:
        self._exchange = exchange
        self._scope = scope
        self._is_head = head.method == b"HEAD"
        self._doing = f"{scope['method']} {head.path.decode('ascii', 'replace')}"
        self._told_end = False
        self._head: ResponseHead | None = None
        self._begun = False
        self._complete = trio.Event()
        self._gone = False
        self._cancel_scope = trio.CancelScope()

    async def run(self, app: Application) -> None:
        """Have the application answer."""
        failure = None
        self._exchange.when_given_up(self._give_up)
        with self._cancel_scope:
            failure = await call_application(
                app, self._scope, self._receive, self._send, doing=f"to answer {self._doing}", level=self._failure_level
            )
        if self._gone or self._complete.is_set():
            return
        if self._begun:
            self._exchange.reset(ErrorCode.INTERNAL_ERROR)  # a truncated answer never looks like a complete one
            return
        if failure is None:
            logger.error("the application gave no answer to %s", self._doing)
        head = ResponseHead(500, ((b"content-type", b"text/plain"),))
        await self._exchange.send_response(head, b"" if self._is_head else b"Internal Server Error\n", end=True)

    def _failure_level(self) -> int:
        return logging.DEBUG if self._gone else logging.ERROR

    def _give_up(self) -> None:
        """The caller has gone; what the application does after its answer is its own."""
        if not self._complete.is_set():
            self._lose()

    def _lose(self) -> None:
        self._gone = True
        self._cancel_scope.cancel()

    async def _receive(self) -> Message:
        if self._told_end or self._complete.is_set():
            await self._complete.wait()
            return {"type": "http.disconnect"}
        try:
            body = await self._exchange.receive_some()
        except GONE:
            self._lose()
            return {"type": "http.disconnect"}
        self._told_end = not body
        return {"type": "http.request", "body": body, "more_body": bool(body)}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                if self._head is not None:
                    raise RuntimeError("the response has begun already")
                self._head = _response(message)
                await trio.lowlevel.checkpoint()
            case "http.response.body":
                if self._head is None:
                    raise RuntimeError("http.response.start comes before the body")
                has_body = not self._is_head and self._head.status not in NO_BODY
                body = message.get("body", b"") if has_body else b""
                await self._send_body(self._head, body, end=not message.get("more_body", False))
            case other:
                raise RuntimeError(f"an HTTP response has no message {other!r}")

    async def _send_body(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        if self._complete.is_set():
            raise RuntimeError("the response is complete already")
        try:
            if not self._begun:
                self._begun = True
                await self._exchange.send_response(head, body, end=end)
            else:
                await self._exchange.send_data(body, end=end)
        except GONE as error:
            self._lose()
            raise ConnectionResetError(f"the caller went away: {error}") from error
        if end:
            self._complete.set()


def _response(message: Message) -> ResponseHead:
    headers = [(bytes(name).lower(), bytes(value).strip()) for name, value in message.get("headers", ())]
    headers = [(name, value) for name, value in headers if name not in HTTP1_FIELDS]
    if not any(name == b"date" for name, _ in headers):
        headers.append((b"date", formatdate(time.time(), usegmt=True).encode()))
    return ResponseHead(int(message["status"]), tuple(headers))
