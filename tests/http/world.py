"""Two hosts on a simulated network: one that calls, one that serves an application."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import httpx
import trio

from a2al_trio.host import Host, HostConfig, open_host
from a2al_trio.http import Application
from a2al_trio.identity import Identity
from a2al_trio.testing import SimNet, open_simnet
from tests.host.world import identity, open_sim_host

__all__ = ["CALLEE", "CALLER", "World", "open_hosts", "open_loopback_hosts", "open_world"]

CALLEE, CALLER = identity(11), identity(12)


@attrs.frozen
class World:
    """The caller, the callee, and a client of the caller's whose base is the callee."""

    net: SimNet
    caller: Host
    callee: Host
    client: httpx.AsyncClient


@asynccontextmanager
async def open_hosts(net: SimNet) -> AsyncIterator[tuple[Host, Host]]:
    """The callee, published, and the caller."""
    async with (
        open_sim_host(net.host("callee"), CALLEE) as callee,
        open_sim_host(net.host("caller"), CALLER, seeds=(callee,)) as caller,
    ):
        await callee.publish()
        yield callee, caller


@asynccontextmanager
async def open_world(app: Application, *, http3: bool = True) -> AsyncIterator[World]:
    """Serve an application by AID and have a client for it, over HTTP/3 or, as with older peers, HTTP/1.1."""
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(partial(callee.serve_asgi, app, http3=http3))
        async with caller.http_client(base_url=f"a2al://{callee.address}") as client:
            yield World(net, caller, callee, client)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_loopback_hosts() -> AsyncIterator[tuple[Host, Host]]:
    """The callee, published, and the caller, with real sockets on loopback."""
    config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    async with open_host(Identity.generate(os.urandom), config) as callee:
        joined = attrs.evolve(config, bootstrap=(str(callee.dht_address),))
        async with open_host(Identity.generate(os.urandom), joined) as caller:
            await caller.dht.bootstrapped()
            await callee.publish()
            yield callee, caller
