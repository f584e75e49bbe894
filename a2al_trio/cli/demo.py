"""`a2al-trio demo`: a whole network in this process, on loopback."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import click
import trio
from rich.console import Console

from a2al_trio.cli.common import run_async
from a2al_trio.host import AgentConnection, Host, HostConfig, open_host
from a2al_trio.identity import Identity

__all__ = ["demo"]


@click.command()
@click.option("--nodes", default=5, show_default=True, type=click.IntRange(2, 50), help="How many nodes to run.")
@run_async
async def demo(nodes: int) -> None:
    """Run nodes on loopback, publish an agent on one, find and call it from another, and end."""
    say = Console(highlight=False)
    async with AsyncExitStack() as stack:
        hosts: list[Host] = []
        for number in range(nodes):
            seeds = (str(hosts[0].dht_address),) if hosts else ()
            config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=seeds)
            host = await stack.enter_async_context(open_host(Identity.generate(os.urandom), config))
            if seeds:
                await host.dht.bootstrapped()
            hosts.append(host)
            say.print(f"node {number + 1}     {host.address} at {host.dht_address}")
        callee, caller = hosts[1], hosts[-1]
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def echo(connection: AgentConnection) -> None:
            say.print(f"called     by {connection.remote}")
            async for stream in connection:
                async with stream:
                    async for chunk in stream:
                        await stream.send_all(chunk)

        await nursery.start(callee.serve, echo)
        publication = (await callee.publish())[0]
        say.print(f"published  {callee.address} at {len(publication.replicas)} other nodes")
        found = await caller.resolve(callee.address)
        say.print(f"resolved   {', '.join(found.endpoints)}")
        started = trio.current_time()
        async with caller.connect(callee.address) as connection:
            say.print(
                f"connected  {connection.path} in {1000 * (trio.current_time() - started):.1f} ms, both sides proven"
            )
            async with await connection.open_stream() as stream:
                await stream.send_all(b"hello from the other side")
                await stream.send_eof()
                answer = await stream.receive_all(limit=64_000)
        say.print(f"echoed     {bytes(answer).decode()}")
        nursery.cancel_scope.cancel()
    say.print("done")
