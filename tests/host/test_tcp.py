"""TCP by AID on loopback: a local port that leads to an agent in front of a TCP service."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from a2al_trio.errors import ConfigurationError, StreamReset
from a2al_trio.host import Host
from a2al_trio.host.access import AccessList
from tests.host.world import identity
from tests.http.world import open_loopback_hosts

pytestmark = pytest.mark.usefixtures("no_leaks")

TcpHandler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def open_tunnel(handler: TcpHandler, *, token: str = "") -> AsyncIterator[tuple[int, Host]]:
    """A TCP service behind an agent, and the port that leads there from elsewhere; yields it and the callee."""

    async def handle(client: trio.SocketStream) -> None:
        async with client:
            await handler(client)

    with trio.fail_after(20):
        async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
            [service] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            [port] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, handle, [service])

            async def forward() -> None:
                await caller.forward_tcp(callee.address, [port], token=token)

            await nursery.start(callee.serve_tcp, ("127.0.0.1", service.socket.getsockname()[1]))
            nursery.start_soon(forward)
            yield port.socket.getsockname()[1], callee
            nursery.cancel_scope.cancel()


async def read_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    async for chunk in stream:
        received += chunk
    return bytes(received)


async def echo(client: trio.SocketStream) -> None:
    async for chunk in client:
        await client.send_all(chunk)


async def test_each_client_has_its_own_stream_and_half_closes_pass() -> None:
    digests = set()

    async def hash_all(client: trio.SocketStream) -> None:
        await client.send_all(hashlib.sha256(await read_all(client)).digest())

    async with open_tunnel(hash_all) as (port, callee):

        async def ask(data: bytes) -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                digests.add((hashlib.sha256(data).digest(), await read_all(stream)))

        async with trio.open_nursery() as nursery:
            for size in (0, 1, 1_000, 3_000_000):
                nursery.start_soon(ask, os.urandom(size))
        assert len(callee.connections) == 1
    assert len(digests) == 4
    assert all(wanted == found for wanted, found in digests)


async def test_a_service_may_speak_first() -> None:
    async def greet(client: trio.SocketStream) -> None:
        await client.send_all(b"220 ready\r\n")
        await read_all(client)

    async with open_tunnel(greet) as (port, _), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        assert await stream.receive_some() == b"220 ready\r\n"


async def test_the_connection_is_made_again_when_it_has_died() -> None:
    async with open_tunnel(echo) as (port, callee):
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            for connection in callee.connections:
                connection.close(0, "restarting")
            await trio.testing.wait_all_tasks_blocked(0.05)


async def test_a_broken_answer_does_not_look_complete() -> None:
    async def break_off(client: trio.SocketStream) -> None:
        await client.receive_some()
        await client.send_all(b"half")
        client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with (
        open_tunnel(break_off) as (_, callee),
        open_loopback_hosts() as (other, _),
        other.connect(callee.address, at=callee.quic_address) as connection,
    ):
        stream = await connection.open_stream()
        await stream.send_all(b"question")
        with pytest.raises(StreamReset) as caught:
            await stream.receive_all(limit=100)
        assert caught.value.code == 0x43


async def test_a_service_that_is_down_is_said() -> None:
    async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
        [unused] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = unused.socket.getsockname()[1]
        await unused.aclose()
        await nursery.start(callee.serve_tcp, ("127.0.0.1", port))
        async with caller.connect(callee.address) as connection:
            stream = await connection.open_stream()
            await stream.send_all(b"question")
            with pytest.raises(StreamReset) as caught:
                await stream.receive_some()
            assert caught.value.code == 0x43
        nursery.cancel_scope.cancel()


async def test_a_service_is_given_as_host_and_port() -> None:
    text: Any = "127.0.0.1:8000"
    async with open_loopback_hosts() as (callee, _):
        with pytest.raises(ConfigurationError, match=r'as in \("127.0.0.1", 8000\)'):
            await callee.serve_tcp(text)


@pytest.mark.parametrize(("token", "admitted"), [("ticket", True), ("wrong", False), ("", False)])
async def test_who_is_refused_is_hung_up_on(token: str, admitted: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with open_tunnel(echo, token=token) as (port, callee):
        callee.access = AccessList(allow=(), tokens=["ticket"])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            if admitted:
                assert await stream.receive_some() == b"hello"
            else:
                with contextlib.suppress(trio.BrokenResourceError):  # what is left unread makes the kernel say it so
                    assert await stream.receive_some() == b""
                assert "access denied" in caplog.text


def test_access_lists() -> None:
    me, friend, stranger = (identity(number).address for number in (1, 2, 3))
    assert AccessList()(me, stranger, ())
    assert not AccessList(deny=[stranger])(me, stranger, ("ticket",))
    assert AccessList(allow=[friend])(me, friend, ())
    assert not AccessList(allow=[friend])(me, stranger, ())
    assert not AccessList(allow=[friend], deny=[friend])(me, friend, ())
    tickets = AccessList(allow=[friend], tokens=["a", "b"])
    assert tickets(me, stranger, ("x", "b"))
    assert not tickets(me, stranger, ("x",))
    with pytest.raises(ConfigurationError, match=r"set allow=\(\)"):
        AccessList(tokens=["a"])
