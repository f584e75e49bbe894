"""Whole lives of connections over simulated networks: resumption, moving networks, watching, being cut off anywhere."""

from __future__ import annotations

import json
import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import A2alError, StreamStopped
from a2al_trio.net.datagram import Transmit
from a2al_trio.quic import Bbr, CongestionFactory, Cubic, NewReno, QuicConfig, QuicConnection, TicketKeys, open_quic
from a2al_trio.quic.qlog import QlogWriter
from a2al_trio.testing import Link, Nat, open_simnet
from tests.quic.driver.support import two_connections, two_endpoints
from tests.quic.tls_support import client_tls, drbg, server_tls

Clock = trio.testing.MockClock
new_clocks = st.builds(Clock, autojump_threshold=st.just(0.0))


async def echo_streams(connection: QuicConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def exchange(connection: QuicConnection, data: bytes) -> bytes:
    async with await connection.open_stream() as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return await stream.receive_all(limit=len(data))


async def test_a_resumed_session_and_its_early_data(autojump_clock: Clock) -> None:
    tls = server_tls(tickets=TicketKeys(drbg("tickets")), early_data=True)
    mine = client_tls(tickets=True, early_data=True)
    async with two_endpoints(tls=tls, link=Link(latency=0.1)) as two, trio.open_nursery() as nursery:
        seen: list[bool] = []

        async def serve(connection: QuicConnection) -> None:
            seen.append(connection.is_early)
            if connection.is_early:
                nursery.start_soon(connection.wait_ready)
            await echo_streams(connection)
            seen.append(connection.is_early)

        nursery.start_soon(two.server.serve, serve)
        first = await two.connect(mine)
        ticket = await first.wait_session_ticket()
        assert not first.resumed
        began = trio.current_time()
        await first.ping()
        round_trip = trio.current_time() - began
        began = trio.current_time()
        address = two.server_socket.address
        second = await two.client.connect(address, tls=mine, server_name="test", ticket=ticket, early=True)
        assert trio.current_time() == began, "early connections are there at once"
        assert second.is_early
        assert await exchange(second, b"early") == b"early"
        assert trio.current_time() - began < 1.1 * round_trip, "the answer does not wait for the handshake"
        await second.wait_ready()
        assert not second.is_early
        assert second.resumed
        assert second.early_data_accepted
        await second.ping()
        second.close()
        await trio.sleep(1)
        assert seen == [False, True, False]
        nursery.cancel_scope.cancel()


async def test_early_data_a_server_refuses_is_sent_again(autojump_clock: Clock) -> None:
    keys = TicketKeys(drbg("tickets"))
    mine = client_tls(tickets=True, early_data=True)
    async with open_simnet() as net:
        near, far = net.socket_pair()
        async with open_quic(near) as client:
            async with open_quic(far, server=server_tls(tickets=keys, early_data=True)):
                first = await client.connect(far.address, tls=mine, server_name="test")
                ticket = await first.wait_session_ticket()
                first.close()
                await trio.sleep(1)
            async with open_quic(far, server=server_tls(tickets=keys)) as strict, trio.open_nursery() as nursery:
                nursery.start_soon(strict.serve, echo_streams)
                second = await client.connect(far.address, tls=mine, server_name="test", ticket=ticket, early=True)
                assert await exchange(second, b"early") == b"early"
                assert not second.early_data_accepted
                nursery.cancel_scope.cancel()


async def test_a_nat_that_forgets_its_mapping_is_followed(autojump_clock: Clock) -> None:
    async with open_simnet() as net:
        home = net.nat("home", Nat.port_restricted())
        near, far = net.host("near", behind=home).bind(), net.host("far").bind()
        neighbour = net.host("neighbour", behind=home).bind()
        async with (
            open_quic(far, server=server_tls()) as server,
            open_quic(near) as client,
            trio.open_nursery() as nursery,
        ):
            connection = await client.connect(far.address, tls=client_tls(), server_name="test")
            accepted = await server.accept()
            nursery.start_soon(echo_streams, accepted)
            await exchange(connection, b"before")
            before = accepted.peer_address
            await trio.sleep(1)  # nothing is under way that would have its old port again
            home.forget_mappings()
            # Another host takes the old mapping's port, so that ours gets a new one.
            neighbour.send_nowait(Transmit(b"hello", 5, far.address))
            assert await exchange(connection, bytes(100_000)) == bytes(100_000)
            assert accepted.peer_address != before
            assert accepted.stats.path_changes == 1
            nursery.cancel_scope.cancel()


async def test_observers_see_what_passes(autojump_clock: Clock) -> None:
    traces: dict[bool, list[str]] = {True: [], False: []}
    config = QuicConfig(observe=lambda cid, is_client, peer: QlogWriter(traces[is_client].append, cid, is_client, peer))
    link = Link(latency=0.02, loss=0.05)
    async with two_connections(config=config, link=link, seed=3) as (near, far):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo_streams, far)
            await exchange(near, bytes(300_000))
            nursery.cancel_scope.cancel()
        near.close(7, "seen")
        far.close()
    for trace in traces.values():
        names = [json.loads(line[1:])["name"] for line in trace[1:]]
        assert {
            "quic:packet_sent",
            "quic:packet_received",
            "quic:packet_lost",
            "quic:recovery_metrics_updated",
            "quic:connection_closed",
        } <= set(names)
        assert names.count("quic:packet_sent") > 200
        assert names.count("quic:connection_closed") == 1


@pytest.mark.parametrize("congestion", [NewReno, Cubic, Bbr])
async def test_every_congestion_controller_fills_a_link(congestion: CongestionFactory, autojump_clock: Clock) -> None:
    rate, size = 1_000_000.0, 2_500_000
    link = Link(latency=0.01, rate=rate, queue=60_000)
    config = QuicConfig(congestion=congestion)
    async with two_connections(link=link, config=config) as (near, far), trio.open_nursery() as nursery:
        stream = await near.open_unidirectional_stream()
        nursery.start_soon(stream.send_all, bytes(size))
        began = trio.current_time()
        incoming = await far.accept_unidirectional_stream()
        received = 0
        while received < size:
            received += len(await incoming.receive_some())
        assert size / (trio.current_time() - began) > 0.75 * rate


async def test_writing_to_a_stream_that_was_stopped_long_ago(autojump_clock: Clock) -> None:
    async with two_connections() as (near, far):
        opened = await near.open_stream()
        await opened.send_all(b"!")
        await opened.send_eof()
        opened.stop(0)
        accepted = await far.accept_stream()
        await trio.sleep(1)
        with pytest.raises(StreamStopped):
            await accepted.send_all(b"too late")
        await accepted.aclose()
        quiet = await near.open_stream()
        await quiet.send_all(b"!")
        await quiet.send_eof()
        quiet.stop(0)
        silent = await far.accept_stream()
        await trio.sleep(1)
        await silent.aclose()


@given(new_clocks, st.integers(0, 2**32), st.floats(0, 1.5))
@settings(max_examples=30)
async def test_cut_off_at_any_instant_nothing_is_left(clock: Clock, seed: int, instant: float) -> None:
    chance = random.Random(seed)
    link = Link(latency=0.02, loss=chance.choice((0.0, 0.1)), duplicate=0.05, reorder=0.05)
    async with two_endpoints(link=link, seed=seed, config=QuicConfig(idle_timeout=5)) as two:

        async def life() -> None:
            async with await two.connect() as connection, trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(exchange, connection, chance.randbytes(30_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.server.serve, echo_streams)
            with trio.move_on_after(instant):
                await life()
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
        assert not two.client._core.connections
        assert not two.server._core.connections
        assert two.client._core.next_timeout() is None
        assert two.server._core.next_timeout() is None


@given(new_clocks, st.integers(0, 2**32))
@settings(max_examples=20)
async def test_any_network_delivers_every_byte_in_order_or_one_error(clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    link = Link(
        latency=chance.uniform(0.001, 0.2),
        jitter=chance.choice((0.0, 0.05)),
        loss=chance.choice((0.0, 0.0, 0.02, 0.2)),
        burst=chance.choice((1, 4)),
        reorder=chance.choice((0.0, 0.2)),
        duplicate=chance.choice((0.0, 0.2)),
        mtu=chance.choice((1300, 1500, 9000)),
    )
    data = chance.randbytes(chance.randrange(1, 60_000))
    async with two_endpoints(link=link, seed=seed) as two, trio.open_nursery() as nursery:
        nursery.start_soon(two.server.serve, echo_streams)
        try:
            connection = await two.connect()
            assert await exchange(connection, data) == data
        except* A2alError:
            assert link.loss == 0.2, "only a terrible link ends a connection"
        nursery.cancel_scope.cancel()
