"""A host of ours as a process of its own, opened by nothing but `open_host`: `python -m tests.interop.lone_host JSON`.

Says in lines of JSON where it is, and what came of calling the agents it reads, one AID a line.
"""

from __future__ import annotations

import json
import os
import sys

import trio

from a2al_trio.host import AgentConnection, HostConfig, open_host
from a2al_trio.ice import TurnServer
from a2al_trio.identity import Address, Identity


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def echo(connection: AgentConnection) -> None:
    async for stream in connection:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)


async def call(connection: AgentConnection) -> bool:
    body = bytes(range(256)) * 100
    async with await connection.open_stream() as stream:
        await stream.send_all(body)
        await stream.send_eof()
        return bytes(await stream.receive_all(limit=len(body))) == body


async def main(bootstrap: str, turn_servers: list[str]) -> None:
    config = HostConfig(bootstrap=(bootstrap,), turn_servers=tuple(map(TurnServer, turn_servers)), min_observed_peers=1)
    async with open_host(Identity.generate(os.urandom), config) as host, trio.open_nursery() as nursery:
        await nursery.start(host.serve, echo)
        await host.dht.bootstrapped()
        await host.publish()
        say(aid=str(host.address), endpoints=host.build_endpoint_payload().endpoints)
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(os.dup(0)):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                async with host.connect(Address.parse(line.decode())) as connection:
                    say(echoed=await call(connection), path=connection.path)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *json.loads(sys.argv[1]))
