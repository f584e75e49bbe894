"""`a2al-trio serve`: answer callers, by echo or by a local TCP service."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.node import announce
from a2al_trio.cli.node_options import NodeOptions, host_options, register_agents
from a2al_trio.cli.parameters import SERVICE
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, tell
from a2al_trio.host import AgentConnection
from a2al_trio.quic import QuicStream

__all__ = ["echo", "serve"]


@click.command()
@click.option("--forward", type=SERVICE, metavar="[HOST:]PORT", help="TCP service that answers; without it we echo.")
@click.option("--agents", type=click.Path(path_type=Path), help="Agents file: more agents to run; see `delegate`.")
@json_option
@host_options()
@run_async
async def serve(forward: tuple[str, int] | None, agents: Path | None, as_json: bool, node: NodeOptions) -> None:
    """Answer callers by echo, or by a TCP service.

    Runs until interrupted; prints the AID to call.
    """
    async with node.open_host() as host, trio.open_nursery() as nursery:
        await register_agents(host, agents)
        if forward is not None:
            await nursery.start(host.serve_tcp, forward)
        else:
            await nursery.start(host.serve, echo)
        tell("serves", f"{forward[0]}:{forward[1]}" if forward else "echo")
        await announce(host, as_json=as_json)


async def echo(connection: AgentConnection) -> None:
    """Send back whatever arrives, stream by stream."""
    tell("caller", f"{connection.remote}, {connection.path}")
    async with trio.open_nursery() as nursery:
        async for stream in connection:
            nursery.start_soon(_echo, stream)


async def _echo(stream: QuicStream) -> None:
    async with stream:
        try:
            async for chunk in stream:
                await stream.send_all(chunk)
        except trio.BrokenResourceError:
            return  # the caller went away; its other streams and other callers live on
