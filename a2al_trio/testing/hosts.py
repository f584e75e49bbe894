"""Whole hosts on the simulated network, in virtual time: what to test agents with."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.host import Host, HostConfig, open_host_over
from a2al_trio.host.config import parse_endpoint
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket
from a2al_trio.net.mux import open_mux_over
from a2al_trio.testing.net import SimHost

__all__ = ["EPOCH", "SimNetwork", "open_sim_host", "unix_time"]

EPOCH = 1_800_000_000
"""Wall time at virtual time zero."""
PORT = 4121


def unix_time() -> float:
    """Wall time of the simulation, in seconds."""
    return EPOCH + trio.current_time()


@attrs.frozen
class SimNetwork:
    """What a host needs of its machine beside the main socket: ICE sockets, TCP. Names are IP addresses."""

    machine: SimHost

    def hosts(self) -> Sequence[str]:
        """The machine's own addresses."""
        return self.machine.addresses

    def bind(self, host: str) -> DatagramSocket:
        """A UDP socket on one of them."""
        return self.machine.bind(host="" if host in ("0.0.0.0", "::") else host)

    async def resolve(self, host: str, port: int) -> Sequence[SocketAddress]:
        """Addresses of a name; raises OSError for what is no IP address."""
        await trio.lowlevel.checkpoint()
        try:
            return [SocketAddress.of(host, port)]
        except ValueError:
            raise OSError(f"no such name: {host}") from None

    async def open_stream(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """A TCP connection."""
        assert not tls, "the simulation has no certificates"
        return await self.machine.connect(SocketAddress.of(host, port))


@asynccontextmanager
async def open_sim_host(
    machine: SimHost, who: Identity, *, seeds: tuple[Host, ...] = (), config: HostConfig | None = None
) -> AsyncIterator[Host]:
    """Run a host on a simulated machine and join it to the network of `seeds`.

    With `HostConfig.listen` set to ":4121" it is bound to all addresses, so that it survives `machine.move()`.
    """
    settings = attrs.evolve(config or HostConfig(), bootstrap=tuple(str(seed.dht_address) for seed in seeds))
    bind = parse_endpoint(settings.listen, setting="listen") or SocketAddress(machine.addresses[0], PORT)
    socket = machine.bind(bind.port, host="" if bind.host == "::" else bind.host)
    entropy = random.Random(who.public_key).randbytes
    async with (
        open_mux_over(socket) as mux,
        open_host_over(mux, who, settings, network=SimNetwork(machine), unix_time=unix_time, entropy=entropy) as host,
    ):
        if seeds:
            await host.dht.bootstrapped()
        yield host
