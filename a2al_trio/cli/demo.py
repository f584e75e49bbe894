"""`a2al-trio demo`: a whole network in this process, on loopback."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import click
import trio

from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, print_json
from a2al_trio.host import AgentConnection, Host, HostConfig, open_host
from a2al_trio.identity import Identity

__all__ = ["demo"]


@click.command()
@click.option("--nodes", default=5, show_default=True, type=click.IntRange(2, 50), help="How many nodes to run.")
@json_option
@run_async
async def demo(nodes: int, as_json: bool) -> None:
    """Show a network of nodes on loopback, and end.

    One node publishes an agent; another finds it by its AID, calls it and is answered.
    """

    def say(text: str) -> None:
        if not as_json:
            click.echo(text)

    async with AsyncExitStack() as stack:
        hosts: list[Host] = []
        for number in range(nodes):
            seeds = (str(hosts[0].dht_address),) if hosts else ()
            config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=seeds)
            host = await stack.enter_async_context(open_host(Identity.generate(os.urandom), config))
            if seeds:
                await host.dht.bootstrapped()
            hosts.append(host)
            say(f"node {number + 1:<5} {host.address} at {host.dht_address}")
        callee, caller = hosts[1], hosts[-1]
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def echo(connection: AgentConnection) -> None:
            say(f"called     by {connection.remote}")
            async for stream in connection:
                async with stream:
                    async for chunk in stream:
                        await stream.send_all(chunk)

        await nursery.start(callee.serve, echo)
        publication = (await callee.publish())[0]
        say(f"published  {callee.address} at {len(publication.replicas)} other nodes")
        found = await caller.resolve(callee.address)
        say(f"resolved   {', '.join(found.endpoints)}")
        started = trio.current_time()
        async with caller.connect(callee.address) as connection:
            path, milliseconds = connection.path, round(1000 * (trio.current_time() - started), 1)
            say(f"connected  {path} in {milliseconds} ms, both sides proven")
            async with await connection.open_stream() as stream:
                await stream.send_all(b"hello from the other side")
                await stream.send_eof()
                answer = bytes(await stream.receive_all(limit=64_000)).decode()
        say(f"echoed     {answer}")
        nursery.cancel_scope.cancel()
    say("done")
    if as_json:
        print_json(nodes=nodes, aid=str(callee.address), path=path, connect_ms=milliseconds, echoed=answer)
