"""A live host on real sockets goes on serving under a rain of garbage."""

from __future__ import annotations

import os
import random
import socket

import pytest
import trio

from a2al_trio.host import ALPN, AgentConnection, HostConfig, open_host
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import ClientTls, QuicConfig
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.wire import FindNode, FindValue, Ping, Store, encode_message, sign_record

DATAGRAMS = 100_000
BURST = 64
LOOPBACK = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")


def seeds_of_garbage(randomness: random.Random) -> list[bytes]:
    """Datagrams an honest peer could send, to be mutated."""
    who = Identity.from_seed(bytes(32))
    tx_id = bytes(20)
    record = sign_record(who, 1, b"\xa2\x01\xf6\x02\x00", sequence=1, timestamp=1_800_000_000, ttl=60)
    bodies = (Ping(who.address), FindNode(who.node_id), FindValue(who.node_id), Store(record))
    honest = [encode_message(body, tx_id, who) for body in bodies]
    core = QuicEndpointCore(QuicConfig(), entropy=randomness.randbytes, now=0.0)
    tls = ClientTls(alpn=(ALPN,), verify_peer=lambda chain, name: None)
    core.connect(SocketAddress("127.0.0.1", 1), tls=tls, server_name="x", now=0.0)
    for transmit in core.datagrams_to_send(0.0):
        honest.append(bytes(transmit.data[: transmit.segment_size]))
    return honest


def mutate(randomness: random.Random, honest: bytes) -> bytes:
    kind = randomness.randrange(5)
    if kind == 0:
        return randomness.randbytes(randomness.randrange(1, 1400))
    damaged = bytearray(honest)
    if kind == 1:
        return bytes(damaged[: randomness.randrange(len(damaged))])
    if kind == 2:
        damaged += randomness.randbytes(randomness.randrange(1, 100))
        return bytes(damaged)
    for _ in range(kind):
        damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
    return bytes(damaged)


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


@pytest.mark.parametrize("seed", [20261122])
async def test_a_hundred_thousand_bad_datagrams_leave_a_host_serving(seed: int, no_leaks: None) -> None:
    randomness = random.Random(seed)
    honest = seeds_of_garbage(randomness)
    async with (
        open_host(Identity.generate(os.urandom), LOOPBACK) as victim,
        open_host(Identity.generate(os.urandom), LOOPBACK) as friend,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(victim.serve, echo)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thrower:
            target = tuple(victim.dht_address)
            for _ in range(DATAGRAMS // BURST):
                for _ in range(BURST):
                    thrower.sendto(mutate(randomness, randomness.choice(honest)), target)
                await trio.lowlevel.checkpoint()
        async with (
            friend.connect(victim.address, at=victim.quic_address) as connection,
            await connection.open_stream() as stream,
        ):
            await stream.send_all(b"still serving?")
            await stream.send_eof()
            assert bytes(await stream.receive_all(limit=100)) == b"still serving?"
        nursery.cancel_scope.cancel()
