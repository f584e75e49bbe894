"""httpx2, the continuation of httpx, to agents: its requests go through the transport made for httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpcore2
import httpx
import httpx2

from a2al_trio.http.client import AgentTransport, Pools
from a2al_trio.identity import Address

__all__ = ["httpx2_client"]


def httpx2_client(
    pools: Pools,
    *,
    local: Address | None,
    token: str,
    **settings: Any,  # noqa: ANN401 - httpx2 checks them
) -> httpx2.AsyncClient:
    """See `Host.httpx2_client`."""
    settings.setdefault("timeout", None)
    transport = _Transport(AgentTransport(pools, local=local, token=token))
    return httpx2.AsyncClient(transport=transport, trust_env=False, **settings)


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, inner: AgentTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make one request; see `AgentTransport`."""
        with _as_httpx2(request):
            response = await self._inner.handle_async_request(_for_httpx(request))
        return httpx2.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_ResponseBody(response, request),
            extensions=_extensions(response),
        )


def _extensions(response: httpx.Response) -> dict[str, Any]:
    """Those of the response; a raw stream, as WebSockets have, is wrapped like the rest."""
    raw = response.extensions.get("network_stream")
    if not isinstance(raw, httpcore.AsyncNetworkStream):
        return response.extensions
    return response.extensions | {"network_stream": _NetworkStream(raw)}


def _for_httpx(request: httpx2.Request) -> httpx.Request:
    """The same request in terms of httpx; content that is there already stays so, and can be sent again."""
    stream = request.stream
    return httpx.Request(
        request.method,
        str(request.url),
        headers=request.headers.raw,
        stream=httpx.ByteStream(b"".join(stream)) if isinstance(stream, httpx2.ByteStream) else _RequestBody(request),
        extensions=request.extensions,
    )


class _RequestBody(httpx.AsyncByteStream):
    def __init__(self, request: httpx2.Request) -> None:
        assert isinstance(request.stream, httpx2.AsyncByteStream), "an async client makes async requests"
        self._stream = request.stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)


class _ResponseBody(httpx2.AsyncByteStream):
    def __init__(self, response: httpx.Response, request: httpx2.Request) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream), "an async client gets async responses"
        self._stream = response.stream
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx2(self._request):
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        """End the exchange."""
        with _as_httpx2(self._request):
            await self._stream.aclose()


class _NetworkStream(httpcore2.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes; b"" at the end."""
        with _as_httpcore2():
            return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; waits while the peer reads slowly."""
        with _as_httpcore2():
            await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Give the stream back."""
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> object:
        """What the stream for httpx knows."""
        return self._inner.get_extra_info(info)


@contextmanager
def _as_httpcore2() -> Iterator[None]:
    """Errors of httpcore under the same names in httpcore2."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException) as error:
        raise getattr(httpcore2, type(error).__name__)(str(error)) from error


@contextmanager
def _as_httpx2(request: httpx2.Request) -> Iterator[None]:
    """Errors of httpx under the same names in httpx2."""
    try:
        yield
    except httpx.TransportError as error:
        names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] == "httpx"]
        theirs: type[httpx2.TransportError] = getattr(httpx2, names[0])
        raise theirs(str(error), request=request) from (error.__cause__ or error)
