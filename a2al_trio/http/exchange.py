"""One HTTP request, given to an ASGI application, and its answer."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from typing import Any

import h11
import trio

from a2al_trio.http.asgi import Application, Message, call_application
from a2al_trio.http.http1 import Http1Stream, has_body

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

NO_BODY = frozenset({204, 304})


class Exchange:
    """The `receive` and `send` of one request.

    The caller's going away cancels the application at once, unless the answer was complete already: what the
    application does after that is its own.
    """

    def __init__(self, http: Http1Stream, request: h11.Request, scope: dict[str, Any]) -> None:
        self._http = http
        self._scope = scope
        self._doing = f"{request.method.decode()} {request.target.decode('ascii', 'replace')}"
        self._is_head = request.method == b"HEAD"
        self._expects_body = has_body(request)
        self._all_received = trio.Event()
        self._over = trio.Event()
        self._told_end = False
        self._head: h11.Response | None = None
        self._has_body = True
        self._cancel_scope = trio.CancelScope()
        self._fault: h11.RemoteProtocolError | None = None
        self._lost = False

    async def run(self, app: Application) -> bool:
        """Have the application answer; whether the stream can carry another request."""
        failure: Exception | None = None
        if not self._expects_body:
            await self._http.next_event()  # the end of the request, which the parser has already
            self._all_received.set()
        async with trio.open_nursery() as nursery:
            self._cancel_scope = nursery.cancel_scope
            # The reference stops listening where our own client breaks the stream off.
            self._http.stream.on_given_up = self._give_up
            nursery.start_soon(self._watch)
            failure = await call_application(
                app, self._scope, self._receive, self._send, doing=f"to answer {self._doing}", level=self._failure_level
            )
            nursery.cancel_scope.cancel()
        if self._lost:
            return False
        if self._http.response_complete:
            return self._http.start_next_cycle()
        if self._http.response_begun:
            self._http.stream.reset(0)  # a truncated answer never looks like a complete one
        elif self._fault is not None:
            await self._http.send_error(self._fault.error_status_hint, str(self._fault))
        else:
            if failure is None:
                logger.error("the application gave no answer to %s", self._doing)
            await self._http.send_error(500, "Internal Server Error")
        return False

    def _failure_level(self) -> int:
        """How bad it is if the application fails now: nothing, if the caller has gone."""
        return logging.DEBUG if self._lost else logging.ERROR

    async def _receive(self) -> Message:
        if self._told_end or self._over.is_set():
            await self._over.wait()
            return {"type": "http.disconnect"}
        event = None if self._all_received.is_set() else await self._next_event()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        if self._over.is_set():
            return {"type": "http.disconnect"}
        self._told_end = True
        self._all_received.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _next_event(self) -> object:
        try:
            return await self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._fault = error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lost = True
        self._end()
        return None

    async def _watch(self) -> None:
        """Notice when the caller goes away while the application works."""
        await self._all_received.wait()
        try:
            await self._http.read()  # a further request waits in the parser, one chunk of it at most
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lost = not self._http.response_complete
            self._end()

    def _give_up(self) -> None:
        self._lost = not self._http.response_complete
        self._end()

    def _end(self) -> None:
        self._over.set()
        if not self._http.response_complete:
            self._cancel_scope.cancel()

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                if self._head is not None:
                    raise RuntimeError("the response has begun already")
                self._head = self._response(message)
                await trio.lowlevel.checkpoint()
            case "http.response.body":
                await self._send_body(bytes(message.get("body", b"")), more=message.get("more_body", False))
            case other:
                raise RuntimeError(f"an HTTP response has no message {other!r}")

    def _response(self, message: Message) -> h11.Response:
        status = int(message["status"])
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        if not any(name.lower() == b"date" for name, _ in headers):
            headers.append((b"date", formatdate(time.time(), usegmt=True).encode()))
        self._has_body = not self._is_head and status not in NO_BODY
        return h11.Response(status_code=status, headers=headers)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self._head is None:
            raise RuntimeError("http.response.start comes before the body")
        events: list[h11.Response | h11.Data | h11.EndOfMessage] = []
        if not self._http.response_begun:
            events.append(self._head)
        if body and self._has_body:
            events.append(h11.Data(data=body))
        if not more:
            events.append(h11.EndOfMessage())
        try:
            await self._http.send(*events)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lost = True
            self._end()
            raise ConnectionResetError(f"the caller went away: {error}") from error
        if not more:
            self._over.set()
