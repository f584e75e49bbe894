"""One httpx request over an HTTP/3 connection to an agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import trio

from a2al_trio.errors import (
    A2alError,
    ConnectionLost,
    LocalProtocolError,
    Refused,
    StreamReset,
    StreamStopped,
)
from a2al_trio.h3 import ClientExchange, ErrorCode, H3Client, H3Error, RequestHead, open_h3_client
from a2al_trio.host.connection import AgentConnection
from a2al_trio.http.asgi import TOKEN_HEADER
from a2al_trio.http.refusals import NotProcessed, explain

__all__ = ["send_request"]

HTTP1_FIELDS = frozenset(
    {b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te"}
)
"""What httpx sets for HTTP/1.1 and HTTP/3 says otherwise (RFC 9114 §4.2)."""
SMALL = 16 * 1024
"""A body up to this size that is there already goes out together with the head."""


async def send_request(connection: AgentConnection, request: httpx.Request, *, token: str) -> httpx.Response:
    """Make one request and wait for the head of its answer; raises httpx.TransportError with our error as cause.

    That is NotProcessed for a request which may be sent again whatever its method.
    """
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    exchange: ClientExchange | None = None
    try:
        with _as_httpx(request, writing=True), _limit(request, limits.get("write"), httpx.WriteTimeout, "took nothing"):
            client: H3Client = await connection.session(open_h3_client)
            content = _small_content(request)
            exchange = await client.request(_head(request, token), content or b"", end=content is not None)
            if content is None:
                await _send_content(exchange, request)
        with _as_httpx(request), _limit(request, limits.get("read"), httpx.ReadTimeout, "was silent"):
            response = await exchange.receive_response()
    except BaseException as error:
        if exchange is not None:
            await exchange.abandon()
            if isinstance(error, NotProcessed) and not isinstance(request.stream, httpx.ByteStream):
                text = f"{error}, and its content cannot be had twice"
                raise httpx.ConnectError(text, request=request) from error.__cause__
        raise
    return httpx.Response(
        response.status,
        headers=list(response.headers),
        stream=_Body(exchange, request, limits.get("read")),
        extensions={"http_version": b"HTTP/3", "network_stream": _Network(connection, exchange)},
    )


def _head(request: httpx.Request, token: str) -> RequestHead:
    headers = [(name.lower(), value.strip()) for name, value in request.headers.raw]
    kept = [(name, value) for name, value in headers if name not in HTTP1_FIELDS]
    if token:
        kept.append((TOKEN_HEADER, token.encode()))
    authority = dict(headers).get(b"host", request.url.netloc)
    return RequestHead(request.method.encode("ascii"), authority, request.url.raw_path, tuple(kept))


def _small_content(request: httpx.Request) -> bytes | None:
    """The content, if it is there and is to go out together with the head."""
    if not isinstance(request.stream, httpx.ByteStream):
        return None
    content = b"".join(request.stream)
    return content if len(content) <= SMALL else None


async def _send_content(exchange: ClientExchange, request: httpx.Request) -> None:
    assert isinstance(request.stream, httpx.AsyncByteStream), "an async client makes async requests"
    parts = aiter(request.stream)
    try:
        async for part in parts:
            await exchange.send_data(part)
        await exchange.send_end()
    except StreamStopped:
        pass  # the agent has read enough; its answer says why
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()  # nobody else does when a request is cancelled


class _Body(httpx.AsyncByteStream):
    """The body of a response, and the exchange that ends with it."""

    def __init__(self, exchange: ClientExchange, request: httpx.Request, limit: float | None) -> None:
        self._exchange = exchange
        self._request = request
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with _as_httpx(self._request), _limit(self._request, self._limit, httpx.ReadTimeout, "was silent"):
                part = await self._exchange.receive_some()
            if not part:
                return
            yield part

    async def aclose(self) -> None:
        """End the exchange; one that is not complete is abandoned in both directions."""
        if self._exchange.complete:
            await self._exchange.aclose()
        else:
            await self._exchange.abandon()


class _Network:
    """What httpx calls the network stream of a response."""

    def __init__(self, connection: AgentConnection, exchange: ClientExchange) -> None:
        self._connection = connection
        self._exchange = exchange

    def get_extra_info(self, info: str) -> object:
        """`agent_connection` and `exchange` are ours; `server_addr` is where the peer's packets come from."""
        return {
            "agent_connection": self._connection,
            "exchange": self._exchange,
            "server_addr": tuple(self._connection.peer_address),
        }.get(info)


@contextmanager
def _limit(
    request: httpx.Request, seconds: float | None, error: type[httpx.ReadTimeout | httpx.WriteTimeout], did: str
) -> Iterator[None]:
    if seconds is None:
        yield
        return
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError as late:
        raise error(f"{request.url.host} {did} for {seconds} s", request=request) from late


@contextmanager
def _as_httpx(request: httpx.Request, *, writing: bool = False) -> Iterator[None]:
    """Our errors under the names that users of httpx know."""
    broken = httpx.WriteError if writing else httpx.ReadError
    try:
        yield
    except Refused as error:
        raise NotProcessed(str(error), request=request) from error
    except LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error), request=request) from error
    except H3Error as error:
        raise httpx.RemoteProtocolError(str(error), request=request) from error
    except (StreamReset, StreamStopped, ConnectionLost, trio.ClosedResourceError) as error:
        if isinstance(error, (StreamReset, StreamStopped)) and error.code == ErrorCode.REQUEST_REJECTED:
            raise NotProcessed("the agent has rejected the request unprocessed", request=request) from error
        raise broken(explain(error), request=request) from error
    except A2alError as error:
        raise broken(str(error), request=request) from error
