"""WebSockets of an ASGI application (RFC 6455), by wsproto, on whatever carries them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from a2al_trio.http.asgi import Application, Message, call_application
from a2al_trio.http.http1 import Http1Stream

__all__ = ["MESSAGE_LIMIT", "Carrier", "Http1Carrier", "WebSocketSession"]

CHUNK = 64 * 1024
MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of one message; a longer one ends the connection with code 1009."""
LEAVE_LIMIT = 5.0
"""Seconds the application has to end once the connection has."""
NORMAL, NO_STATUS, ABNORMAL, TOO_BIG, INTERNAL_ERROR = 1000, 1005, 1006, 1009, 1011
DENIAL = "websocket.http.response"
NOTHING = [(b"content-length", b"0")]
"""Headers of a refusal that says no more."""


Headers = list[tuple[bytes, bytes]]


class Frames(Protocol):
    """What wsproto makes of events and bytes."""

    def send(self, event: Event) -> bytes: ...
    def receive_data(self, data: bytes | None) -> None: ...
    def events(self) -> Iterable[Event]: ...


class Carrier(Protocol):
    """How a WebSocket is asked for and carried; raises trio.BrokenResourceError when the caller has gone."""

    frames: Frames
    subprotocols: list[str]
    early: bytes
    """What has come behind the request."""

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer that the WebSocket begins."""

    async def reject(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Answer with something else; called again for the rest of the body."""

    async def send(self, data: bytes) -> None:
        """Send frames."""

    async def receive(self) -> bytes:
        """Wait for frames; b"" at the end."""


class Http1Carrier:
    """A WebSocket that was asked for by an upgrade (RFC 6455 §4).

    Raises wsproto's RemoteProtocolError for a request that does it wrong.
    """

    def __init__(self, http: Http1Stream, request: h11.Request) -> None:
        self._stream = http.stream
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._websocket.initiate_upgrade_connection(list(request.headers), bytes(request.target))
        [opening] = self._websocket.events()
        assert isinstance(opening, Request), "wsproto turns a good upgrade into its event, and raises for a bad one"
        self._rejected = False
        self.frames: Frames = self._websocket
        self.subprotocols = list(opening.subprotocols)
        self.early = http.trailing_data()

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer 101."""
        await self.send(self._websocket.send(AcceptConnection(subprotocol=subprotocol, extra_headers=headers)))

    async def reject(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Answer with something else."""
        if not self._rejected:
            self._rejected = True
            await self.send(self._websocket.send(RejectConnection(status, headers, has_body=bool(body) or more)))
        if body or more:
            await self.send(self._websocket.send(RejectData(body, body_finished=not more)))

    async def send(self, data: bytes) -> None:
        """Send frames."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Receive frames."""
        return await self._stream.receive_some(CHUNK)


class WebSocketSession:
    """The `receive` and `send` of one WebSocket.

    Compression is not offered: a few bytes of it may mean megabytes. At most one message waits for the application.
    """

    def __init__(self, carrier: Carrier, scope: dict[str, Any]) -> None:
        self._carrier = carrier
        scope["subprotocols"] = carrier.subprotocols
        scope["extensions"][DENIAL] = {}
        self._scope = scope
        self._to_app, self._messages = trio.open_memory_channel[Message](1)
        self._to_app.send_nowait({"type": "websocket.connect"})
        self._accepted = trio.Event()
        self._over = False
        self._left = False
        """Whether it is the caller who ended it."""
        self._answered = False
        self._sending = trio.Lock()
        self._parts: list[str | bytes | bytearray] = []
        self._size = 0
        self._denial: Message | None = None

    async def run(self, app: Application) -> None:
        """Have the application serve until one side closes."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            failure = await call_application(
                app,
                self._scope,
                self._messages.receive,
                self._send,
                doing=f"in the WebSocket {self._scope['path']}",
                level=self._failure_level,
            )
            nursery.cancel_scope.cancel()
        try:
            if not self._answered:
                status = 500 if failure is not None else 403
                await self._reject(status, NOTHING)
            elif not self._over and self._accepted.is_set():
                await self._transmit(CloseConnection(INTERNAL_ERROR if failure is not None else NORMAL))
        except ConnectionResetError:
            pass  # nobody is left to be told

    def _failure_level(self) -> int:
        """How bad it is if the application fails now: nothing, if the caller has gone."""
        return logging.DEBUG if self._left else logging.ERROR

    def _leave(self) -> None:
        self._left |= not self._over
        self._over = True

    async def _transmit(self, event: Event) -> None:
        async with self._sending:
            # Made in its turn: frames of a message that wait for each other must not mix.
            await self._guard(self._carrier.send(self._carrier.frames.send(event)))

    async def _reject(self, status: int, headers: Headers, body: bytes = b"", *, more: bool = False) -> None:
        self._answered = True
        async with self._sending:
            await self._guard(self._carrier.reject(status, headers, body, more=more))

    async def _guard(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._leave()
            raise ConnectionResetError(f"the caller went away: {error}") from error

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._over:
            raise ConnectionResetError("the WebSocket is over")
        match kind:
            case "websocket.accept":
                self._answered = True
                headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
                async with self._sending:
                    await self._guard(self._carrier.accept(message.get("subprotocol"), headers))
                self._accepted.set()
            case "websocket.send":
                text = message.get("text")
                data = TextMessage(text) if text is not None else BytesMessage(bytes(message["bytes"]))
                await self._transmit(data)
            case "websocket.close" if not self._answered:
                await self._reject(403, NOTHING)
                self._over = True
            case "websocket.close":
                code, reason = message.get("code", NORMAL), message.get("reason") or None
                await self._transmit(CloseConnection(code, reason))
                self._over = True
            case "websocket.http.response.start":
                self._denial = message
                await trio.lowlevel.checkpoint()
            case "websocket.http.response.body":
                await self._deny(bytes(message.get("body", b"")), more=message.get("more_body", False))
            case _:
                raise RuntimeError(f"a WebSocket has no message {kind!r}")

    async def _deny(self, body: bytes, *, more: bool) -> None:
        if self._denial is None:
            raise RuntimeError("websocket.http.response.start comes before the body")
        headers = [(bytes(name), bytes(value)) for name, value in self._denial.get("headers", ())]
        await self._reject(self._denial["status"], headers, body, more=more)
        self._over = not more

    async def _read(self, app_scope: trio.CancelScope) -> None:
        """Hand messages to the application, answer pings, notice the end."""
        code, reason = ABNORMAL, ""
        try:
            await self._accepted.wait()
            data: bytes = self._carrier.early
            while True:
                if data:
                    self._carrier.frames.receive_data(data)
                    ended = await self._take_events()
                    if ended is not None:
                        code, reason = ended
                        break
                data = await self._carrier.receive()
                if not data:
                    break
        except RemoteProtocolError as error:
            if error.event_hint is not None:
                await self._say(error.event_hint)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionResetError):
            pass
        self._leave()
        with trio.move_on_after(LEAVE_LIMIT):
            await self._to_app.send({"type": "websocket.disconnect", "code": code, "reason": reason})
            await trio.sleep_forever()
        app_scope.cancel()

    async def _take_events(self) -> tuple[int, str] | None:
        """Deal with what the last bytes meant; code and reason if the connection is over."""
        for event in self._carrier.frames.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._size += len(event.data)
                if self._size > MESSAGE_LIMIT:
                    await self._say(CloseConnection(TOO_BIG, "message too big"))
                    return TOO_BIG, "message too big"
                self._parts.append(event.data)
                if event.message_finished:
                    await self._hand_over(is_text=isinstance(event, TextMessage))
            elif isinstance(event, Ping):
                await self._say(event.response())
            elif isinstance(event, CloseConnection):
                if not self._over:
                    await self._say(event.response())
                return int(event.code or NO_STATUS), event.reason or ""
        return None

    async def _hand_over(self, *, is_text: bool) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        message: Message = {"type": "websocket.receive"}
        if is_text:
            message["text"] = "".join(str(part) for part in parts)
        else:
            message["bytes"] = b"".join(bytes(part) for part in parts if not isinstance(part, str))
        await self._to_app.send(message)

    async def _say(self, event: Event) -> None:
        """Send what the protocol wants; a connection that is closed from our side already wants nothing."""
        try:
            await self._transmit(event)
        except (LocalProtocolError, ConnectionResetError):
            self._over = True
