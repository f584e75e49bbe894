"""WebSockets that were asked for by extended CONNECT (RFC 9220): frames in the content of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio
from wsproto import ConnectionType
from wsproto.connection import Connection

from a2al_trio.h3 import H3Error, RequestHead, ResponseHead, ServerExchange
from a2al_trio.http.websocket import Frames, Headers

__all__ = ["H3Carrier"]

VERSION = b"13"
PROTOCOL_FIELD = b"sec-websocket-protocol"


class H3Carrier:
    """Carries a WebSocket on an exchange; there is no key to answer (RFC 8441 §5)."""

    def __init__(self, exchange: ServerExchange, head: RequestHead) -> None:
        self._exchange = exchange
        self._rejected = False
        asked = b",".join(value for name, value in head.headers if name == PROTOCOL_FIELD)
        self.frames: Frames = Connection(ConnectionType.SERVER)
        self.subprotocols = [name.strip() for name in asked.decode("latin-1").split(",") if name.strip()]
        self.early = b""

    @staticmethod
    def speaks(head: RequestHead) -> bool:
        """Whether it is the version of WebSockets there is."""
        return all(value == VERSION for name, value in head.headers if name == b"sec-websocket-version")

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer 200."""
        if subprotocol is not None:
            headers = [*headers, (PROTOCOL_FIELD, subprotocol.encode())]
        await self._send(ResponseHead(200, _lower(headers)))

    async def reject(self, status: int, headers: Headers, body: bytes, *, more: bool) -> None:
        """Answer with something else."""
        if not self._rejected:
            self._rejected = True
            await self._send(ResponseHead(status, _lower(headers)), body, end=not more)
        else:
            with _as_broken():
                await self._exchange.send_data(body, end=not more)

    async def _send(self, head: ResponseHead, body: bytes = b"", *, end: bool = False) -> None:
        with _as_broken():
            await self._exchange.send_response(head, body, end=end)

    async def send(self, data: bytes) -> None:
        """Send frames."""
        with _as_broken():
            await self._exchange.send_data(data)

    async def receive(self) -> bytes:
        """Receive frames."""
        with _as_broken():
            return await self._exchange.receive_some()


def _lower(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower(), value) for name, value in headers)


@contextmanager
def _as_broken() -> Iterator[None]:
    try:
        yield
    except H3Error as error:
        raise trio.BrokenResourceError(str(error)) from error
