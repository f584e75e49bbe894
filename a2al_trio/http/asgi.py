"""What any server of an ASGI 3 application needs: its types, its lifespan, and who is calling it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs
import trio

from a2al_trio.errors import A2alError
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.web import WebAgent, WebConnection
from a2al_trio.identity import Address
from a2al_trio.scopes import open_service_nursery

__all__ = [
    "PEER_EXTENSION",
    "PEER_HEADER",
    "TOKEN_HEADER",
    "AgentHost",
    "Application",
    "ApplicationFailed",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "call_application",
    "call_scope",
    "open_lifespan",
]

logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application: called with a scope and the two callables that receive and send its events."""

VERSION = {"version": "3.0", "spec_version": "2.4"}
PEER_EXTENSION = "a2al.peer"
"""Key in a scope's `extensions`: who calls (`aid`), whom (`agent`), and how it is reached (`path`), as texts.

`aid` is None for an anonymous caller, as there are over HTTP/3 if the agent lets them in.
"""
PEER_HEADER = b"a2al-peer"
"""Request header with the caller's AID, for what looks at headers only. What a caller sends by this name is dropped."""
TOKEN_HEADER = b"a2al-token"
"""Request header of HTTP/3 with a ticket for the agent's access rule; applications do not see it."""
STOP_LIMIT = 5.0
"""Seconds the application has to shut down."""


class ApplicationFailed(A2alError):
    """The application said that it cannot start; the message is its own."""


class AgentHost(Protocol):
    """What serving an application takes of a host."""

    async def serve(
        self, handler: Callable[[AgentConnection], Awaitable[object]], *, task_status: trio.TaskStatus[None] = ...
    ) -> None:
        """Run `handler` for every caller on agent streams."""

    async def serve_http3(
        self,
        handler: Callable[[WebConnection], Awaitable[object]],
        *,
        web: Iterable[WebAgent] = ...,
        task_status: trio.TaskStatus[None] = ...,
    ) -> None:
        """Offer HTTP/3, and run `handler` for every caller that takes it."""

    def allows(self, local: Address, remote: Address | None, tokens: Sequence[str] = ...) -> bool:
        """Whether a caller may use an agent."""


def call_scope(
    connection: AgentConnection, kind: str, *, target: bytes, headers: Iterable[tuple[bytes, bytes]], state: Scope
) -> dict[str, Any]:
    """The scope of a call of `kind` ("http" or "websocket"), in which the caller is the one its certificate proves."""
    path, _, query = target.partition(b"?")
    aid = str(connection.remote)
    # Some applications turn dashes into underscores before they look a header up: neither form may be forged.
    kept = [(name, value) for name, value in headers if name.replace(b"_", b"-") != PEER_HEADER]
    return {
        "type": kind,
        "asgi": dict(VERSION),
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [*kept, (PEER_HEADER, aid.encode())],
        "client": (connection.peer_address.host, connection.peer_address.port),
        "server": (str(connection.local), 80),
        "state": dict(state),
        "extensions": {PEER_EXTENSION: {"aid": aid, "agent": str(connection.local), "path": connection.path}},
    }


async def call_application(
    app: Application,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    doing: str,
    level: Callable[[], int] = lambda: logging.ERROR,
) -> Exception | None:
    """Call the application; its errors end here: they are logged and returned.

    It is foreign code, of which anything may come, and one failed call must not end the service of the others.
    Cancellation and interrupts pass.
    """
    failure: Exception | None = None
    try:
        await app(scope, receive, send)
    except* Exception as group:
        failure = group if len(group.exceptions) > 1 else group.exceptions[0]
        logger.log(level(), "the application failed %s", doing, exc_info=failure)
    return failure


@attrs.define(eq=False)
class _Lifespan:
    """One run of the application's lifespan protocol."""

    state: dict[str, Any] = attrs.field(factory=dict)
    failure: str | None = None
    _started: trio.Event = attrs.field(factory=trio.Event)
    _stopping: trio.Event = attrs.field(factory=trio.Event)
    _stopped: trio.Event = attrs.field(factory=trio.Event)
    _asked: bool = False

    async def run(self, app: Application) -> None:
        """Call the application; one that raises before it has started does not know this protocol: that is fine."""
        scope = {"type": "lifespan", "asgi": dict(VERSION), "state": self.state}
        try:
            await call_application(app, scope, self._receive, self._send, doing="in its lifespan", level=self._level)
        finally:
            self._started.set()
            self._stopped.set()

    def _level(self) -> int:
        return logging.ERROR if self._started.is_set() else logging.DEBUG

    async def start(self) -> None:
        """Wait until it is ready."""
        await self._started.wait()
        if self.failure is not None:
            raise ApplicationFailed(f"the application did not start: {self.failure or 'it gave no reason'}")

    async def stop(self) -> None:
        """Have it clean up."""
        self._stopping.set()
        await self._stopped.wait()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self.failure = str(message.get("message", ""))
                self._started.set()
            case "lifespan.shutdown.complete" | "lifespan.shutdown.failed":
                self._stopped.set()
            case other:
                raise RuntimeError(f"a lifespan has no message {other!r}")


@asynccontextmanager
async def open_lifespan(app: Application) -> AsyncIterator[dict[str, Any]]:
    """Start the application for the length of a block and shut it down at its end; yields the state it set up.

    Raises ApplicationFailed if it says that it cannot start.
    """
    lifespan = _Lifespan()
    async with open_service_nursery("ASGI lifespan") as nursery:
        nursery.start_soon(lifespan.run, app)
        await lifespan.start()
        try:
            yield lifespan.state
        finally:
            with trio.move_on_after(STOP_LIMIT, shield=True):
                await lifespan.stop()
