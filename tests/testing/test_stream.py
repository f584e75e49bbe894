"""Simulated TCP: Trio's own stream checks, latency, NATs, refusals and outages."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.net.address import SocketAddress
from a2al_trio.testing import Link, Nat, SimListener, SimNet, SimStream, open_simnet

Clock = trio.testing.MockClock


async def connected(net: SimNet) -> tuple[SimStream, SimStream]:
    number = len(net.hosts)
    listener = net.host(f"server{number}").listen()
    client = await net.host(f"client{number}").connect(listener.local_address)
    return client, await listener.accept()


async def test_trios_own_checks_of_a_stream(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(latency=0)) as net:

        async def maker() -> tuple[SimStream, SimStream]:
            return await connected(net)

        await trio.testing.check_half_closeable_stream(maker, None)


async def test_bytes_arrive_in_order_after_the_latency_of_the_path(autojump_clock: Clock) -> None:
    async with open_simnet(link=Link(latency=0.05)) as net, trio.open_nursery() as nursery:
        client, server = await connected(net)
        assert trio.current_time() == pytest.approx(0.2)
        data = bytes(range(256)) * 2000
        nursery.start_soon(client.send_all, data)
        began, got = trio.current_time(), bytearray()
        while len(got) < len(data):
            got += await server.receive_some(10_000)
            assert trio.current_time() - began >= 0.099
        assert got == data


async def test_behind_a_nat_one_can_connect_but_not_be_connected_to(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        nat = net.nat("nat", Nat.udp_blocked())
        inside = net.host("inside", behind=nat)
        outside = net.host("outside").listen(80)
        stream = await inside.connect(outside.local_address)
        accepted = await outside.accept()
        assert accepted.peer_address.host == nat.address
        assert stream.peer_address == outside.local_address
        inside.listen(80)
        for host in (nat.address, inside.addresses[0]):
            with pytest.raises(TimeoutError):
                await net.hosts["outside"].connect(SocketAddress(host, 80))


async def test_where_nobody_listens_connections_are_refused(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        one, two = net.host("one"), net.host("two")
        with pytest.raises(ConnectionRefusedError):
            await one.connect(SocketAddress(two.addresses[0], 80))
        listener: SimListener = two.listen(80)
        with pytest.raises(OSError, match="in use"):
            two.listen(80)
        await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            await one.connect(SocketAddress(two.addresses[0], 80))
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()


async def test_an_outage_delays_and_a_reset_breaks(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        client, server = await connected(net)
        host = net.hosts["server0"]
        host.link = Link.broken()
        await client.send_all(b"late")
        with trio.move_on_after(5) as limit:
            await server.receive_some()
        assert limit.cancelled_caught
        host.link = Link()
        assert await server.receive_some() == b"late"
        server.reset()
        for stream in (client, server):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")


async def test_a_host_serves_connections_as_with_real_listeners(autojump_clock: Clock) -> None:
    async def echo(stream: SimStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)

    async with open_simnet() as net, trio.open_nursery() as nursery:
        listener = net.host("server").listen(7)
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        for _ in range(3):
            async with await net.host(f"client{len(net.hosts)}").connect(listener.local_address) as stream:
                await stream.send_all(b"hello")
                await stream.send_eof()
                assert b"".join([chunk async for chunk in stream]) == b"hello"
        nursery.cancel_scope.cancel()
