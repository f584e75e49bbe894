"""A machine whose address changes under its QUIC connections: real sockets, which cannot send from what is gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import trio

from a2al_trio.errors import CloseCause, ConnectionLost
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import QuicConfig, QuicConnection, open_quic
from tests.interop.private_network import private_network, why_not
from tests.quic.tls_support import client_tls, server_tls

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks", "network")]

SERVER, BEFORE, AFTER = "20.1.1.1", "20.1.1.2", "20.1.1.3"


@pytest.fixture
def network() -> Iterator[None]:
    """A network in which packets to the server come from the client's address, on one machine."""
    if reason := why_not():
        pytest.skip(reason)
    with private_network(SERVER, BEFORE):
        send_from(BEFORE)
        yield


def send_from(host: str) -> None:
    route = ["local", SERVER, "dev", "lo", "table", "local", "proto", "kernel", "scope", "host", "src", host]
    subprocess.run(["ip", "route", "replace", *route], check=True)


def move() -> None:
    subprocess.run(["ip", "addr", "add", f"{AFTER}/32", "dev", "lo"], check=True)
    send_from(AFTER)
    subprocess.run(["ip", "addr", "del", f"{BEFORE}/32", "dev", "lo"], check=True)


async def echo(connection: QuicConnection) -> None:
    async for stream in connection:
        async with stream:
            await stream.send_all(await stream.receive_all(limit=1000))


async def ask(connection: QuicConnection, question: bytes) -> bytes:
    async with await connection.open_stream() as stream:
        await stream.send_all(question)
        await stream.send_eof()
        return bytes(await stream.receive_all(limit=1000))


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_a_clients_connection_goes_on_from_another_address_when_it_is_told(told: bool) -> None:
    config = QuicConfig(silence_limit=1.0)
    async with (
        open_udp() as near,
        open_udp() as far,
        open_quic(far, config, server=server_tls()) as server,
        open_quic(near, config) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve, echo)
        to = SocketAddress(SERVER, far.local_address.port)
        async with await client.connect(to, tls=client_tls(), server_name="server") as connection:
            assert await ask(connection, b"before") == b"before"
            assert connection.local_address.host == BEFORE
            move()
            if told:
                client.network_changed({BEFORE})
                assert await ask(connection, b"after") == b"after"
                assert connection.local_address.host == AFTER
            else:
                with pytest.raises(ConnectionLost, match="the peer has not answered for 1 s") as lost:
                    await ask(connection, b"after")
                assert lost.value.by is CloseCause.PATH
        nursery.cancel_scope.cancel()
