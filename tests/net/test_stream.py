"""Streams over TCP and TLS on loopback. That a right certificate is taken, tests of their users show."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel

from a2al_trio.net.stream import open_stream

Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def open_server(handle: Handler) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_plain_stream_carries_both_ways(no_leaks: None) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some())

    async with open_server(echo) as port, await open_stream("localhost", port, local_host="127.0.0.1") as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


async def test_who_does_not_speak_tls_is_hung_up_on(no_leaks: None) -> None:
    hung_up = trio.Event()

    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"this is no TLS")
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        hung_up.set()

    async with open_server(babble) as port:
        with pytest.raises(trio.BrokenResourceError):
            await open_stream("127.0.0.1", port, tls=ssl.create_default_context())
        await hung_up.wait()


async def test_a_handshake_that_is_cancelled_hangs_up(no_leaks: None) -> None:
    began, hung_up = trio.Event(), trio.Event()

    async def say_nothing(stream: trio.SocketStream) -> None:
        assert await stream.receive_some()
        began.set()
        assert await stream.receive_some() == b""
        hung_up.set()

    async def dial(port: int) -> None:
        await open_stream("127.0.0.1", port, tls=ssl.create_default_context())

    async with open_server(say_nothing) as port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, port)
            await began.wait()
            nursery.cancel_scope.cancel()
        await hung_up.wait()


async def test_a_port_where_nobody_listens_is_an_os_error(no_leaks: None) -> None:
    async with open_server(trio.aclose_forcefully) as port:
        pass
    with pytest.raises(OSError, match="all attempts to connect"):
        await open_stream("127.0.0.1", port)
