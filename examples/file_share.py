"""Send a file from agent to agent: hash-checked, and resumed where a broken try had got."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import trio
from loopback import open_pair

from a2al_trio import AgentConnection
from a2al_trio.http.files import FileReceiver, hash_file, send_file


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        inbox, file = Path(name) / "inbox", Path(name) / "photo.raw"
        await trio.Path(inbox).mkdir()
        await trio.Path(file).write_bytes(os.urandom(5_000_000))
        receiver = FileReceiver(inbox, accept=lambda offer: "too big" if offer.size > 10**9 else None)

        async def take(connection: AgentConnection) -> None:
            async for stream in connection:
                await receiver.receive(stream)

        async with open_pair() as (callee, caller), trio.open_nursery() as nursery:
            await nursery.start(callee.serve, take)
            async with caller.connect(callee.address) as connection:
                saved = await send_file(connection, file)
            print(saved, "is equal:", await hash_file(inbox / saved) == await hash_file(file))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
