"""A request to a router or to a service that tells one's address: short, bounded, without redirects or proxies."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import attrs
import h11
import trio

from a2al_trio.errors import A2alError
from a2al_trio.net.stream import open_stream

__all__ = ["HttpFailed", "HttpReply", "request"]


class HttpFailed(A2alError):
    """There is no answer, or none that is HTTP or small enough; the message says what was asked and why."""


@attrs.frozen
class HttpReply:
    """Status and body of an answer."""

    status: int
    body: bytes


async def request(
    url: str,
    *,
    max_body: int,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    local_host: str | None = None,
) -> HttpReply:
    """GET a URL, or POST a body to it. Waits as long as the server takes: put it in a cancel scope.

    `local_host` is the own address to ask from, which also decides the family; `0.0.0.0` is any of IPv4. Raises
    HttpFailed, also for an answer of more than `max_body` bytes.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise HttpFailed(f"{url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HttpFailed(f"{url} is no http or https URL")
    try:
        stream = await _connect(parts, port, local_host)
        async with stream:
            return await _exchange(stream, _head(parts, headers or {}, body), body or b"", max_body)
    except (OSError, ValueError, trio.BrokenResourceError, h11.ProtocolError) as error:
        raise HttpFailed(f"{url}: {_reason(error)}") from error
    except _TooLong as error:
        raise HttpFailed(f"{url}: the answer does not end") from error


def _reason(error: BaseException) -> str:
    """Trio's stream errors say nothing themselves; what caused them does."""
    return str(error) or str(error.__cause__ or "") or type(error).__name__


class _TooLong(Exception):
    pass


async def _connect(parts: SplitResult, port: int, local_host: str | None) -> trio.abc.Stream:
    assert parts.hostname is not None
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    return await open_stream(parts.hostname, port, tls=tls, local_host=local_host)


def _head(parts: SplitResult, headers: Mapping[str, str], body: bytes | None) -> h11.Request:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": parts.netloc.rpartition("@")[2], "Connection": "close", **headers}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    return h11.Request(method="GET" if body is None else "POST", target=target, headers=list(fields.items()))


async def _exchange(stream: trio.abc.Stream, head: h11.Request, body: bytes, max_body: int) -> HttpReply:
    connection = h11.Connection(h11.CLIENT)
    request = (connection.send(head) or b"") + (connection.send(h11.Data(data=body)) or b"" if body else b"")
    await stream.send_all(request + (connection.send(h11.EndOfMessage()) or b""))
    status, received = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(16384)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            received += event.data
            if len(received) > max_body:
                raise _TooLong
        elif isinstance(event, h11.EndOfMessage):
            return HttpReply(status, bytes(received))
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("the server hangs up")
