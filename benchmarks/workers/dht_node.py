"""One DHT node of ours on a UDP socket until standard input ends: `-m benchmarks.workers.dht_node HOST PORT`."""

from __future__ import annotations

import os
import sys

import trio

from a2al_trio.dht import DhtConfig, RequestBudget, StoreLimits, open_dht
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp

__all__: list[str] = []

EVERYBODY = ("0.0.0.0/0", "::/0")


async def main(host: str, port: int) -> None:
    """Run the node; request budgets are off, since one client asks for many."""
    config = DhtConfig(
        requests=RequestBudget(exempt=EVERYBODY, queued_per_source=2048),
        store=StoreLimits(per_source_bytes=2**30, max_bytes=2**30),
    )
    async with open_udp(SocketAddress(host, port)) as socket, open_dht(socket, Identity.generate(os.urandom), config):
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
