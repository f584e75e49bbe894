"""Call an agent by its AID and have everything sent back."""

from __future__ import annotations

import trio
from loopback import open_pair

from a2al_trio import AgentConnection


async def echo(connection: AgentConnection) -> None:
    """Serve one caller; returning closes the connection."""
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def main() -> None:
    async with open_pair() as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(callee.serve, echo)
        async with caller.connect(callee.address) as connection, await connection.open_stream() as stream:
            await stream.send_all(b"hello")
            await stream.send_eof()
            print((await stream.receive_all(limit=64_000)).decode(), "by", connection.path)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
