"""Hosts on a simulated network in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.identity import Identity
from a2al_trio.net.mux import open_mux_over
from a2al_trio.testing import SimHost

__all__ = ["EPOCH", "identity", "open_sim_host", "unix_time"]

EPOCH = 1_800_000_000
"""Wall time at virtual time zero."""
PORT = 4121


def unix_time() -> float:
    return EPOCH + trio.current_time()


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


@asynccontextmanager
async def open_sim_host(
    machine: SimHost, who: Identity, *, seeds: tuple[Host, ...] = (), config: HostConfig | None = None
) -> AsyncIterator[Host]:
    """Run a host on a simulated machine and join it to the network of `seeds`."""
    settings = attrs.evolve(config or HostConfig(), bootstrap=tuple(str(seed.dht_address) for seed in seeds))
    socket = machine.bind(PORT, host=machine.addresses[0])
    entropy = random.Random(who.public_key).randbytes
    async with (
        open_mux_over(socket) as mux,
        open_host_over(mux, who, settings, unix_time=unix_time, entropy=entropy) as host,
    ):
        if seeds:
            await host.dht.bootstrapped()
        yield host
