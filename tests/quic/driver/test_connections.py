"""Connections and endpoints as applications see them, over a simulated network in virtual time."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from a2al_trio.errors import CloseCause, ConfigurationError, ConnectionLost, LocalProtocolError
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.quic import PeerRejected, QuicConfig, QuicConnection, open_quic
from a2al_trio.testing import Link, open_simnet
from tests.quic.driver.support import two_connections, two_endpoints
from tests.quic.tls_support import client_tls, credentials, server_tls

Clock = trio.testing.MockClock


async def test_connecting_tells_both_sides_who_is_there(autojump_clock: Clock) -> None:
    async with two_endpoints() as two:
        near, far = await two.pair()
        assert near.alpn == far.alpn == "test"
        assert near.server_name == far.server_name == "test"
        assert near.peer_certificates == credentials().chain
        assert far.peer_certificates == ()
        assert near.peer_address == two.server_socket.address
        assert far.peer_address == two.client_socket.address
        assert 0.03 < near.stats.smoothed_rtt < 0.06
        assert "open" in repr(near)


async def test_our_own_close_is_seen_by_the_peer_with_code_and_reason(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        near.close(7, "enough")
        near.close(8, "not this one")
        assert near.close_reason is not None
        assert (near.close_reason.by, near.close_reason.code) == (CloseCause.LOCAL, 7)
        await near.wait_closed()
        await far.wait_closed()
        assert far.close_reason is not None
        assert (far.close_reason.by, far.close_reason.code, far.close_reason.reason) == (
            CloseCause.PEER_APP,
            7,
            "enough",
        )
        with pytest.raises(ConnectionLost, match="enough"):
            await far.accept_stream()
        with pytest.raises(trio.ClosedResourceError):
            await near.open_stream()


async def test_a_close_wakes_everybody(autojump_clock: Clock) -> None:
    config = QuicConfig(max_bidirectional_streams=1, stream_window=4096, send_buffer=4096, max_datagram_frame_size=1200)
    async with two_connections(config=config) as (near, far):
        stream = await near.open_stream()
        ended: list[str] = []

        async def expect(name: str, error: type[Exception]) -> None:
            with pytest.raises(error):
                match name:
                    case "accept":
                        await near.accept_stream()
                    case "open":
                        await near.open_stream()
                    case "receive":
                        await stream.receive_some()
                    case "send":
                        await stream.send_all(bytes(1_000_000))
                    case "datagram":
                        await near.receive_datagram()
                    case "far accept":
                        await far.accept_unidirectional_stream()
            ended.append(name)

        async with trio.open_nursery() as nursery:
            for name in ("accept", "open", "receive", "send", "datagram"):
                nursery.start_soon(expect, name, trio.ClosedResourceError)
            nursery.start_soon(expect, "far accept", ConnectionLost)
            await trio.sleep(1)
            assert not ended
            near.close()
        assert len(ended) == 6


async def test_iterating_over_streams_ends_with_code_0(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):

        async def open_three() -> None:
            for number in range(3):
                async with await near.open_stream() as stream:
                    await stream.send_all(bytes([number]))
                    await stream.send_eof()
                    await stream.receive_all(limit=10)
            near.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_three)
            seen = []
            async for stream in far:
                async with stream:
                    seen.append(await stream.receive_all(limit=10))
        assert seen == [b"\0", b"\1", b"\2"]


async def test_iterating_over_streams_raises_at_any_other_end(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        near.close(1)
        with pytest.raises(ConnectionLost):
            async for _ in far:
                raise AssertionError


async def test_leaving_the_endpoint_closes_all_its_connections(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        near_socket, far_socket = net.socket_pair()
        async with open_quic(far_socket, server=server_tls()) as server:
            async with open_quic(near_socket) as client:
                near = [
                    await client.connect(far_socket.address, tls=client_tls(), server_name="test") for _ in range(3)
                ]
                far = [await server.accept() for _ in range(3)]
            for connection in near:
                with pytest.raises(trio.ClosedResourceError):
                    await connection.open_stream()
            with pytest.raises(trio.ClosedResourceError):
                await client.connect(far_socket.address, tls=client_tls())
            for connection in far:
                await connection.wait_closed()
                assert connection.close_reason is not None
                assert (connection.close_reason.by, connection.close_reason.code) == (CloseCause.PEER_APP, 0)
        with pytest.raises(trio.ClosedResourceError):
            await server.accept()


async def test_a_cancelled_body_still_says_goodbye(autojump_clock: Clock) -> None:
    async with two_endpoints() as two:
        _, socket = two.net.socket_pair()
        with trio.CancelScope() as scope:
            async with open_quic(socket) as client:
                await client.connect(two.server_socket.address, tls=client_tls(), server_name="test")
                far = await two.server.accept()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        await far.wait_closed()
        assert far.close_reason is not None
        assert far.close_reason.by is CloseCause.PEER_APP


async def test_nobody_answers(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        socket, silent = net.socket_pair()
        async with open_quic(socket) as endpoint:
            began = trio.current_time()
            with pytest.raises(ConnectionLost) as caught:
                await endpoint.connect(silent.address, tls=client_tls())
            assert caught.value.by is CloseCause.IDLE
            assert trio.current_time() - began == pytest.approx(10.0, abs=0.5)


async def test_cancelling_connect_closes_the_half_open_connection(autojump_clock: Clock) -> None:
    async with two_endpoints(link=Link(latency=0.1)) as two:
        with trio.move_on_after(0.25):
            await two.connect()
        await trio.sleep(1)
        with trio.move_on_after(1) as nothing_came:
            far = await two.server.accept()
            await far.wait_closed()
        assert nothing_came.cancelled_caught or far.close_reason is not None


async def test_what_verify_peer_raised_is_the_cause(autojump_clock: Clock) -> None:
    error = PeerRejected("somebody else")

    def refuse(chain: tuple[bytes, ...], server_name: str | None) -> None:
        raise error

    async with two_endpoints() as two:
        with pytest.raises(ConnectionLost) as caught:
            await two.connect(client_tls(verify_peer=refuse))
        assert caught.value.__cause__ is error


async def test_a_full_accept_queue_refuses(autojump_clock: Clock) -> None:
    async with two_endpoints(accept_queue=2) as two:
        kept = [await two.connect() for _ in range(2)]
        refused = await two.connect()
        await refused.wait_closed()
        assert refused.close_reason is not None
        assert (refused.close_reason.by, refused.close_reason.code) == (CloseCause.PEER_TRANSPORT, 2)
        for _ in kept:
            await two.server.accept()
        await two.connect()
        await two.server.accept()


async def test_silence_ends_a_connection_and_keep_alive_keeps_it(autojump_clock: Clock) -> None:
    async with two_connections(config=QuicConfig(idle_timeout=30)) as (near, far):
        await near.wait_closed()
        await far.wait_closed()
        assert near.close_reason is not None
        assert near.close_reason.by is CloseCause.IDLE
        assert 29 < trio.current_time() < 33
    async with two_connections(config=QuicConfig(idle_timeout=30, keep_alive=20)) as (near, far):
        await trio.sleep(300)
        assert near.close_reason is far.close_reason is None


async def test_an_idle_hour_of_many_connections_costs_little(autojump_clock: Clock) -> None:
    config = QuicConfig(idle_timeout=0)
    async with two_endpoints(config=config) as two:
        pairs = [await two.pair() for _ in range(50)]
        await trio.sleep(10)
        began = time.process_time()
        await trio.sleep(3600)
        assert time.process_time() - began < 0.2
        assert all(near.close_reason is None for near, _ in pairs)


async def test_serve_runs_a_task_per_connection_and_lets_lost_ones_go(autojump_clock: Clock) -> None:
    served = []

    async def handler(connection: QuicConnection) -> None:
        stream = await connection.accept_stream()
        served.append(await stream.receive_some())
        await stream.receive_some()  # raises ConnectionLost

    async with two_endpoints() as two, trio.open_nursery() as nursery:
        await nursery.start(two.server.serve, handler)
        for number in range(3):
            near = await two.connect()
            stream = await near.open_stream()
            await stream.send_all(bytes([number]))
            await trio.sleep(0.1)
            near.close(5)
        await trio.sleep(1)
        assert served == [b"\0", b"\1", b"\2"]
        nursery.cancel_scope.cancel()


async def test_other_errors_of_a_handler_propagate(autojump_clock: Clock) -> None:
    async def handler(connection: QuicConnection) -> None:
        raise KeyError("a bug")

    async with two_endpoints() as two:
        await two.connect()
        with pytest.raises(ExceptionGroup) as caught:
            await two.server.serve(handler)
        assert caught.group_contains(KeyError)


async def test_datagrams(autojump_clock: Clock) -> None:
    config = QuicConfig(max_datagram_frame_size=1200)
    async with two_connections(config=config) as (near, far):
        assert near.send_datagram(b"one")
        assert near.send_datagram(b"two")
        assert await far.receive_datagram() == b"one"
        assert await far.receive_datagram() == b"two"
        with pytest.raises(LocalProtocolError):
            near.send_datagram(bytes(near.max_datagram_size + 1))


async def test_a_full_socket_holds_the_rest_back(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        near_host, far_host = net.host("near", link=Link(latency=0.01, rate=1_000_000)), net.host("far")
        near_socket, far_socket = near_host.bind(send_buffer=5000), far_host.bind()
        async with open_quic(far_socket, server=server_tls()) as server, open_quic(near_socket) as client:
            near = await client.connect(far_socket.address, tls=client_tls(), server_name="test")
            far = await server.accept()
            async with await near.open_unidirectional_stream() as stream:
                await stream.send_all(bytes(300_000))
            received = await far.accept_unidirectional_stream()
            assert len(await received.receive_all(limit=1_000_000)) == 300_000


async def test_a_message_that_finds_the_socket_full_leaves_later(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        near_host, far_host = net.host("near", link=Link(latency=0.01, rate=100_000)), net.host("far")
        near_socket, far_socket = near_host.bind(send_buffer=5000), far_host.bind()
        config = QuicConfig(path_mtu_discovery=False)
        async with open_quic(far_socket, server=server_tls()) as server, open_quic(near_socket, config) as client:
            near = await client.connect(far_socket.address, tls=client_tls(), server_name="test")
            far = await server.accept()
            await trio.sleep(1)
            noise = Transmit(b"noise" * 100, 500, far_socket.address)
            while near_socket.send_nowait(noise):
                pass
            packets = near.stats.packets_sent
            async with await near.open_unidirectional_stream() as stream:
                await stream.send_all(b"message", end=True)
                await trio.testing.wait_all_tasks_blocked()
                assert near.stats.packets_sent == packets + 1
                assert client._unsent is not None
            received = await far.accept_unidirectional_stream()
            assert await received.receive_all(limit=100) == b"message"
            assert client._unsent is None
            assert near.stats.packets_lost == 0


async def test_two_endpoints_connect_to_each_other_at_once(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        sockets = net.socket_pair()
        async with (
            open_quic(sockets[0], server=server_tls()) as one,
            open_quic(sockets[1], server=server_tls()) as other,
            trio.open_nursery() as nursery,
        ):

            async def connect(index: int) -> None:
                endpoint = (one, other)[index]
                address: SocketAddress = sockets[1 - index].address
                await endpoint.connect(address, tls=client_tls(), server_name="test")
                await endpoint.accept()

            nursery.start_soon(connect, 0)
            nursery.start_soon(connect, 1)


async def test_a_ping_tells_a_quiet_peer_from_one_that_is_gone(autojump_clock: Clock) -> None:
    async with two_endpoints() as two:
        near, far = await two.pair()
        await trio.sleep(1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(near.ping)
        assert trio.current_time() - began < 2 * near.stats.smoothed_rtt
        two.net.hosts["host2"].link = Link.broken()
        with trio.move_on_after(5) as limit:
            await near.ping()
        assert limit.cancelled_caught
        two.net.hosts["host2"].link = Link()
        await near.ping()  # the lost one is sent again
        far.close(3, "gone")
        with pytest.raises(ConnectionLost, match="gone"):
            await near.ping()
        near, _ = await two.pair()
        near.close()
        with pytest.raises(trio.ClosedResourceError):
            await near.ping()


@pytest.mark.parametrize("address", ["127.0.0.1:4433", ("localhost", 4433), ("127.0.0.1", 70000), None])
async def test_an_address_that_is_none_names_the_fix(autojump_clock: Clock, address: object) -> None:
    async with two_endpoints() as both:
        with pytest.raises(ConfigurationError, match="address must be a SocketAddress"):
            await both.client.connect(address, tls=client_tls())  # type: ignore[arg-type]
        near, _ = await both.pair()
        assert near.close_reason is None
