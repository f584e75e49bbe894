"""The hub of the `hub` benchmark as a process of its own: prints its port, ends with its standard input."""

from __future__ import annotations

import sys

import trio

from a2al_trio.signaling import Hub, HubLimits, serve_hub

__all__ = ["main"]


async def main() -> None:
    """Serve until standard input ends."""
    hub = Hub(HubLimits(sockets_per_address=20_000))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(lambda task_status: serve_hub("127.0.0.1", 0, hub=hub, task_status=task_status))
        print(addresses[0].port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
