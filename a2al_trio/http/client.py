"""httpx on agent streams: an AID is called like a host name (spec 04 §15, fetch).

Each request has a stream of its own on the pooled connection to the agent: opening one costs nothing, no request
waits behind another, and cancelling one frees its stream at both ends.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpcore
import httpx
import trio

from a2al_trio.errors import A2alError, ConnectionLost, StreamReset, StreamStopped
from a2al_trio.host import AgentConnection, Host
from a2al_trio.identity import Address, InvalidAddress
from a2al_trio.quic import QuicStream
from a2al_trio.wire import StreamErrorCode

__all__ = ["AgentTransport"]

SCHEMES = frozenset({"a2al", "http"})
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be repeated when it is unknown whether the first try was heard (RFC 9110 §9.2.2)."""
SWITCHING_PROTOCOLS = 101
CODES = {
    StreamErrorCode.ACCESS_DENIED: "the agent denies us access",
    StreamErrorCode.NO_SERVICE: "the agent has no service",
    StreamErrorCode.SERVICE_UNREACHABLE: "the agent's service is down, or broke off",
}
"""What stream error codes mean (spec 08 §4)."""


class AgentTransport(httpx.AsyncBaseTransport):
    """Sends requests for `a2al://AID/path` to the agent. `http://AID/path` means the same; no other host is called."""

    def __init__(self, host: Host, *, local: Address | None = None, token: str = "") -> None:
        self._host = host
        self._local = local
        self._token = token

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request; repeated once if the pooled connection it went over proves dead.

        Raises httpx.TransportError, whose cause is an error of ours where there is one.
        """
        peer = _peer_of(request)
        pooled = self._host.pool.live(peer, local=self._local)
        try:
            return await self._attempt(peer, request)
        except httpx.TransportError:
            if pooled is None or pooled.close_reason is None or not _repeatable(request):
                raise
        return await self._attempt(peer, request)

    async def _attempt(self, peer: Address, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", {})
        with _as_httpx(request):
            connection, stream = await self._open(peer, limits.get("connect"))
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

    async def _open(self, peer: Address, limit: float | None) -> tuple[AgentConnection, QuicStream]:
        try:
            with trio.fail_after(limit if limit is not None else float("inf")):
                connection = await self._host.pool.get(peer, local=self._local)
                if self._token:
                    return connection, await connection.open_service_stream(self._token)
                return connection, await connection.open_stream()
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
            raise httpcore.ReadError(_explain(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; waits while the peer reads slowly."""
        try:
            with trio.fail_after(timeout if timeout is not None else float("inf")):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout(f"{self._connection.remote} took nothing for {timeout} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(_explain(error)) from error

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


def _explain(error: BaseException) -> str:
    if isinstance(error, (StreamReset, StreamStopped)):
        for code, meaning in CODES.items():
            if error.code == code:
                return meaning
    return str(error) if isinstance(error, ConnectionLost) else f"the exchange was broken off: {error}"


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
