"""Two hosts in one process, on loopback: they stand for two machines, so that every example runs by itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from a2al_trio import Host, HostConfig, Identity, open_host


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[Host, Host]]:
    """A host that others can find, and one that has joined through it."""
    here, name = "127.0.0.1:0", "127.0.0.1"
    async with open_host(Identity.generate(os.urandom), HostConfig(listen=here, fallback_host=name)) as first:
        config = HostConfig(listen=here, fallback_host=name, bootstrap=(str(first.dht_address),))
        async with open_host(Identity.generate(os.urandom), config) as second:
            await second.dht.bootstrapped()
            await first.publish()
            yield first, second
