"""httpx to agents: an AID is called like a host name (spec 04 §15, fetch).

Over HTTP/3 where the agent speaks it, and else over HTTP/1.1. Either way each request has a stream of its own on the
pooled connection to the agent: opening one costs nothing, no request waits behind another, and cancelling one frees
its stream at both ends.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any

import attrs
import httpcore
import httpx
import trio

from a2al_trio.errors import A2alError
from a2al_trio.host.config import HTTP3
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.pool import ConnectionPool
from a2al_trio.http.refusals import NotProcessed, explain
from a2al_trio.identity import Address, InvalidAddress
from a2al_trio.quic import QuicStream

__all__ = ["AgentTransport", "Pools", "httpx_client"]

HAS_HTTP3 = find_spec("pylsqpack") is not None

SCHEMES = frozenset({"a2al", "http", "https", "ws", "wss"})
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be repeated when it is unknown whether the first try was heard (RFC 9110 §9.2.2)."""
SWITCHING_PROTOCOLS = 101
TRIES = 3
"""How often a request is sent to an agent that goes away before it processes it."""


@attrs.frozen
class Pools:
    """Where the connections of a host come from."""

    http: ConnectionPool
    """For requests."""
    streams: ConnectionPool
    """For requests that want a raw stream in the end."""


class AgentTransport(httpx.AsyncBaseTransport):
    """Sends requests for `a2al://AID/path` to the agent; no other host is called.

    The schemes of the web mean the same: applications make up such URLs for their own pages. `local` is the agent that
    calls; `token` is a ticket for agents that ask for one.
    """

    def __init__(self, pools: Pools, *, local: Address | None, token: str) -> None:
        self._pools = pools
        self._local = local
        self._token = token

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request; repeated once if the pooled connection it went over proves dead.

        Requests that the agent says it has not processed, because it is going away, are sent again in any case.

        Raises httpx.TransportError, whose cause is an error of ours where there is one.
        """
        peer = _peer_of(request)
        # Who wants another protocol gets a raw stream for it, which HTTP/3 does not have.
        over_streams = not HAS_HTTP3 or "upgrade" in request.headers
        pool = self._pools.streams if over_streams else self._pools.http
        pooled = pool.live(peer, local=self._local)
        try:
            return await self._attempt(pool, peer, request)
        except httpx.TransportError:
            if pooled is None or pooled.close_reason is None or not _repeatable(request):
                raise
        return await self._attempt(pool, peer, request)

    async def _attempt(self, pool: ConnectionPool, peer: Address, request: httpx.Request) -> httpx.Response:
        """Make one request, on another connection if the agent says that it has not processed it."""
        tries = 0
        while True:
            with _as_httpx(request), _connecting(peer, request):
                connection = await pool.get(peer, local=self._local)
            try:
                return await self._send(connection, request)
            except NotProcessed:
                tries += 1
                if tries == TRIES:
                    raise
                await _retire_if_draining(connection, pool)

    async def _send(self, connection: AgentConnection, request: httpx.Request) -> httpx.Response:
        if connection.alpn == HTTP3:
            from a2al_trio.http.h3_client import send_request

            return await send_request(connection, request, token=self._token)
        return await self._over_stream(connection, request)

    async def _over_stream(self, connection: AgentConnection, request: httpx.Request) -> httpx.Response:
        with _as_httpx(request):
            with _connecting(connection.remote, request):
                stream = await (
                    connection.open_service_stream(self._token) if self._token else connection.open_stream()
                )
            network = _AgentNetworkStream(connection, stream)
            url = request.url
            origin = httpcore.Origin(b"http", url.raw_host, url.port or 80)
            http = httpcore.AsyncHTTP11Connection(origin, network)
            headers = request.headers.raw
            if "connection" not in request.headers:
                headers = [*headers, (b"Connection", b"close")]
            async with _request_body(request) as content:
                response = await http.handle_async_request(
                    httpcore.Request(
                        method=request.method.encode("ascii"),
                        url=httpcore.URL(scheme=b"http", host=url.raw_host, port=url.port, target=url.raw_path),
                        headers=headers,
                        content=content,
                        extensions=request.extensions,
                    )
                )
        # What follows a change of protocols is the caller's to end.
        network.complete = response.status == SWITCHING_PROTOCOLS
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response, http, network, request),
            extensions=response.extensions,
        )


def httpx_client(
    pools: Pools,
    *,
    local: Address | None,
    token: str,
    **settings: Any,  # noqa: ANN401 - httpx checks them
) -> httpx.AsyncClient:
    """See `Host.http_client`."""
    settings.setdefault("timeout", None)
    return httpx.AsyncClient(transport=AgentTransport(pools, local=local, token=token), trust_env=False, **settings)


async def _retire_if_draining(connection: AgentConnection, pool: ConnectionPool) -> None:
    """Have later requests go elsewhere if the agent takes no more on this connection (RFC 9114 §5.2)."""
    from a2al_trio.h3 import open_h3_client

    if (await connection.session(open_h3_client)).going_away:
        pool.retire(connection)


@contextmanager
def _connecting(peer: Address, request: httpx.Request) -> Iterator[None]:
    limit = request.extensions.get("timeout", {}).get("connect")
    try:
        with trio.fail_after(limit if limit is not None else float("inf")):
            yield
    except trio.TooSlowError as error:
        raise httpcore.ConnectTimeout(f"{peer} was not reached within {limit} s") from error
    except (A2alError, trio.ClosedResourceError) as error:
        raise httpcore.ConnectError(str(error)) from error


class _AgentNetworkStream(httpcore.AsyncNetworkStream):
    """A QUIC stream as httpcore wants it; closed before the exchange is complete, it is abandoned both ways."""

    def __init__(self, connection: AgentConnection, stream: QuicStream) -> None:
        self._connection = connection
        self._stream = stream
        self.complete = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes; b"" at the end."""
        try:
            with trio.fail_after(timeout if timeout is not None else float("inf")):
                return await self._stream.receive_some(max_bytes)
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout(f"{self._connection.remote} was silent for {timeout} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(explain(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; waits while the peer reads slowly."""
        try:
            with trio.fail_after(timeout if timeout is not None else float("inf")):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout(f"{self._connection.remote} took nothing for {timeout} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(explain(error)) from error

    async def aclose(self) -> None:
        """Give the stream back."""
        if not self.complete:
            self._stream.reset(0)
            self._stream.stop(0)
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refused: the stream is encrypted and authenticated already."""
        raise httpcore.UnsupportedProtocol("agent streams are encrypted already; use http or a2al URLs")

    def get_extra_info(self, info: str) -> object:
        """`agent_connection` and `stream` are ours; `server_addr` is where the peer's packets come from."""
        return {
            "agent_connection": self._connection,
            "stream": self._stream,
            "server_addr": tuple(self._connection.peer_address),
        }.get(info)


class _Body(httpx.AsyncByteStream):
    """The body of a response, and the exchange that ends with it."""

    def __init__(
        self,
        response: httpcore.Response,
        http: httpcore.AsyncHTTP11Connection,
        network: _AgentNetworkStream,
        request: httpx.Request,
    ) -> None:
        self._response = response
        self._http = http
        self._network = network
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for part in self._response.aiter_stream():
                yield part
        self._network.complete = True

    async def aclose(self) -> None:
        """End the exchange; a body that was not read to its end is abandoned."""
        with _as_httpx(self._request):
            await self._http.aclose()


class _Once:
    """Hands out an iterator that is there already."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._parts


@asynccontextmanager
async def _request_body(request: httpx.Request) -> AsyncIterator[_Once]:
    """The parts of a body, whose generator is closed by us: nobody else does when a request is cancelled."""
    assert isinstance(request.stream, httpx.AsyncByteStream), "an async client makes async requests"
    parts = aiter(request.stream)
    try:
        yield _Once(parts)
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()


def _peer_of(request: httpx.Request) -> Address:
    url = request.url
    if url.scheme not in SCHEMES:
        raise httpx.UnsupportedProtocol(f"{url}: this client calls agents only; write a2al://AID/path", request=request)
    try:
        return Address.parse(url.host)
    except InvalidAddress as error:
        raise httpx.UnsupportedProtocol(
            f"{url.host!r} is not an AID ({error}), and this client calls nobody else", request=request
        ) from None


def _repeatable(request: httpx.Request) -> bool:
    return request.method.encode() in IDEMPOTENT and isinstance(request.stream, httpx.ByteStream)


ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Errors of httpcore under the names that users of httpx know."""
    try:
        yield
    except tuple(ours for ours, _ in ERRORS) as error:
        theirs = next(theirs for ours, theirs in ERRORS if isinstance(error, ours))
        raise theirs(str(error), request=request) from (error.__cause__ or error)
