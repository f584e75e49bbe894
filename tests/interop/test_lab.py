"""The lab itself: reference nodes find each other in it, and nothing gets out of it."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from a2al_trio.net.address import SocketAddress
from tests.interop.conftest import Lab
from tests.interop.private_network import assert_no_way_out

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


async def test_reference_nodes_resolve_each_others_agents(lab: Lab) -> None:
    with trio.fail_after(30):
        async with lab.reference_nodes(3) as (_, one, two):
            agent = await one.add_agent()
            found = await two.post(f"/resolve/{agent.aid}")
    assert found["endpoints"] == [f"quic://{one.address}"]


async def test_reference_nodes_fetch_from_each_other(lab: Lab) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        with trio.fail_after(30):
            async with lab.reference_nodes() as (one, two):
                agent = await two.add_agent(SocketAddress("127.0.0.1", port))
                local = await one.add_agent(publish=False)
                assert await one.fetch(agent.aid, local=local.aid) == (200, b"hello")
        nursery.cancel_scope.cancel()


def test_nothing_gets_out(lab: Lab) -> None:
    assert_no_way_out()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for host in (lab.hosts[0], "127.0.0.1"):
            sock.sendto(b"", (host, 9))
        with pytest.raises(OSError, match="unreachable") as caught:
            sock.sendto(b"", ("192.0.2.1", 9))
        assert caught.value.errno == errno.ENETUNREACH
