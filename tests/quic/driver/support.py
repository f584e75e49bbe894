"""Two endpoints on a simulated network, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from a2al_trio.quic import ClientTls, QuicConfig, QuicConnection, QuicEndpoint, ServerTls, open_quic
from a2al_trio.testing import Link, SimNet, SimSocket, open_simnet
from tests.quic.tls_support import client_tls, server_tls

__all__ = ["TwoEndpoints", "two_connections", "two_endpoints"]


@attrs.define
class TwoEndpoints:
    """A client and a server endpoint and the network between them."""

    net: SimNet
    client: QuicEndpoint
    server: QuicEndpoint
    client_socket: SimSocket
    server_socket: SimSocket

    async def connect(self, tls: ClientTls | None = None) -> QuicConnection:
        return await self.client.connect(self.server_socket.address, tls=tls or client_tls(), server_name="test")

    async def pair(self) -> tuple[QuicConnection, QuicConnection]:
        """Both ends of a new connection."""
        near = await self.connect()
        return near, await self.server.accept()


@asynccontextmanager
async def two_endpoints(
    *,
    link: Link | None = None,
    config: QuicConfig | None = None,
    server_config: QuicConfig | None = None,
    tls: ServerTls | None = None,
    accept_queue: int = 32,
    seed: int = 1,
) -> AsyncIterator[TwoEndpoints]:
    async with open_simnet(seed=seed) as net:
        near, far = net.socket_pair(link)
        async with (
            open_quic(far, server_config or config, server=tls or server_tls(), accept_queue=accept_queue) as server,
            open_quic(near, config) as client,
        ):
            yield TwoEndpoints(net, client, server, near, far)


@asynccontextmanager
async def two_connections(
    *,
    link: Link | None = None,
    config: QuicConfig | None = None,
    server_config: QuicConfig | None = None,
    seed: int = 1,
) -> AsyncIterator[tuple[QuicConnection, QuicConnection]]:
    """Both ends of one connection, the client's first."""
    async with two_endpoints(link=link, config=config, server_config=server_config, seed=seed) as two:
        yield await two.pair()
