"""HTTP/1.1 on an agent stream, as a server (RFC 9112), by h11."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TypeAlias, cast

import h11
import trio

from a2al_trio.quic import QuicStream

__all__ = ["Http1Stream", "RequestEvent", "has_body", "wants_websocket"]

CHUNK = 64 * 1024
HEAD_SIZE = 64 * 1024
"""Bytes that a request line with its headers may have."""
IDLE_LIMIT = 75.0
"""Seconds until the next request has arrived, its body apart."""

RequestEvent: TypeAlias = h11.Request | h11.Data | h11.EndOfMessage | h11.ConnectionClosed | type[h11.PAUSED]
ResponseEvent: TypeAlias = h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage


class Http1Stream:
    """One stream of requests and responses. Reads only when asked, so a slow application slows its caller down."""

    def __init__(self, stream: QuicStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_SIZE)
        self._sending = trio.Lock()
        self._ended = False
        self._head_only = False

    async def next_request(self) -> h11.Request | None:
        """Wait for the head of the next request; None if there is none, or not in time.

        Raises h11.RemoteProtocolError for what is no HTTP, and what the stream raises.
        """
        with trio.move_on_after(IDLE_LIMIT):
            event = await self.next_event()
            if isinstance(event, h11.Request):
                self._head_only = event.method == b"HEAD"
                return event
        return None

    async def next_event(self) -> RequestEvent:
        """Wait for the next part of the request; raises as `next_request` does."""
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, (h11.Response, h11.InformationalResponse)), "requests only"
                return cast(RequestEvent, event)
            if self._h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self.read()

    async def read(self) -> bool:
        """Take what has come into the parser, waiting for it; False at the end of the stream."""
        if not self._ended:
            data = await self.stream.receive_some(CHUNK)
            self._ended = not data
            self._h11.receive_data(data)
        return not self._ended

    async def send(self, *events: ResponseEvent) -> None:
        """Send parts of a response; raises h11.LocalProtocolError if they make none, and what the stream raises."""
        async with self._sending:
            parts: list[bytes] = []
            for event in events:
                parts += self._h11.send_with_data_passthrough(event) or ()
            if parts:
                await self.stream.send_all(b"".join(parts))

    async def send_error(self, status: int, text: str) -> None:
        """Answer with a short text and announce the end, if no response has begun."""
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = f"{text}\n".encode()
            headers = [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                ("Date", formatdate(time.time(), usegmt=True)),
            ]
            head = h11.Response(status_code=status, headers=headers)
            data = () if self._head_only else (h11.Data(data=body),)
            await self.send(head, *data, h11.EndOfMessage())

    @property
    def response_complete(self) -> bool:
        """Whether the whole answer was handed to the stream."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    @property
    def response_begun(self) -> bool:
        """Whether anything of the answer was sent."""
        return self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    def start_next_cycle(self) -> bool:
        """Make ready for another request; False if this was the last one, or its body was not read."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    def trailing_data(self) -> bytes:
        """What has come after the request that asked for another protocol."""
        return bytes(self._h11.trailing_data[0])


def has_body(request: h11.Request) -> bool:
    """Whether anything follows the head (RFC 9112 §6.3)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def wants_websocket(request: h11.Request) -> bool:
    """Whether the request asks to go on as a WebSocket (RFC 6455 §4.1)."""
    return request.method == b"GET" and any(
        name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers
    )
