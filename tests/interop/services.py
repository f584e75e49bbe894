"""Small services at the ends of agent connections: data worth hashing, HTTP, and echo."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import h11
import trio

from a2al_trio.net.address import SocketAddress

__all__ = [
    "Duplex",
    "blob",
    "digest",
    "exchange",
    "exchange_digests",
    "http_get",
    "serve_echo",
    "serve_http",
    "tcp_service",
]

CHUNK = 64 * 1024


class Duplex(Protocol):
    """What a stream of ours, a QUIC one or a TCP one, can do."""

    async def send_all(self, data: bytes) -> None: ...
    async def send_eof(self) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...


def blob(size: int, seed: int = 1) -> bytes:
    """That many bytes that do not repeat."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    """What bodies are compared by."""
    return hashlib.sha256(data).hexdigest()


async def read_to_end(stream: Duplex) -> bytes:
    """Everything the peer sends."""
    found = bytearray()
    while chunk := await stream.receive_some(CHUNK):
        found += chunk
    return bytes(found)


async def exchange(stream: Duplex, data: bytes) -> bytes:
    """Send everything and end, while receiving everything."""
    received = b""

    async def receive() -> None:
        nonlocal received
        received = await read_to_end(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await stream.send_all(data)
        await stream.send_eof()
    return received


async def exchange_digests(stream: Duplex, data: bytes, times: int) -> tuple[str, str]:
    """Send `data` that often and end, while receiving everything; the digests of both directions."""
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def receive() -> None:
        while chunk := await stream.receive_some(CHUNK):
            received.update(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for _ in range(times):
            sent.update(data)
            await stream.send_all(data)
        await stream.send_eof()
    return sent.hexdigest(), received.hexdigest()


async def http_get(stream: Duplex, path: str) -> tuple[int, bytes]:
    """One HTTP/1.1 request over an open stream; status and body."""
    client = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=path, headers=[("Host", "a2al-agent"), ("Connection", "close")])
    await stream.send_all(client.send(request) or b"")
    client.send(h11.EndOfMessage())
    status, body = 0, bytearray()
    while True:
        event: Any = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(bytes(await stream.receive_some(CHUNK)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage)
            return status, bytes(body)


async def serve_http(stream: Duplex, pages: dict[str, bytes]) -> None:
    """Answer one HTTP/1.1 request, if there is one; a POST is answered with its own body."""
    server = h11.Connection(h11.SERVER)
    request, body = None, bytearray()
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            server.receive_data(bytes(await stream.receive_some(CHUNK)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            break
    if request is None:
        return  # the reference looks whether the service is there
    page = bytes(body) if request.method == b"POST" else pages.get(request.target.decode())
    answer = h11.Response(
        status_code=404 if page is None else 200,
        headers=[("Content-Length", str(len(page or b""))), ("Connection", "close")],
    )
    await stream.send_all(server.send(answer) or b"")
    if page:
        await stream.send_all(server.send(h11.Data(data=page)) or b"")
    await stream.send_all(server.send(h11.EndOfMessage()) or b"")
    await stream.send_eof()


async def serve_echo(stream: Duplex) -> None:
    """Send everything back, then end."""
    while chunk := await stream.receive_some(CHUNK):
        await stream.send_all(bytes(chunk))
    await stream.send_eof()


@asynccontextmanager
async def tcp_service(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[SocketAddress]:
    """Run a TCP service on loopback; yields its address."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield SocketAddress("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()
