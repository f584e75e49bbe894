"""`a2al-trio serve`: answer callers, by echo or by a local TCP service."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.common import console, host_options, load_node_identity, make_config, register_agents, run_async
from a2al_trio.cli.node import announce
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import AgentConnection, open_host
from a2al_trio.http import serve_tcp
from a2al_trio.quic import QuicStream

__all__ = ["echo", "serve"]


@click.command()
@click.option("--forward", metavar="HOST:PORT", help="Local TCP service that answers; without it we echo.")
@click.option("--agents", type=click.Path(path_type=Path), help="Agents file: more agents to run; see `delegate`.")
@host_options
@run_async
async def serve(
    forward: str | None,
    agents: Path | None,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Publish this node's agent and serve its callers until interrupted."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    service = _service(forward) if forward else None
    async with open_host(load_node_identity(key), config) as host, trio.open_nursery() as nursery:
        await register_agents(host, agents)
        if service is not None:
            await nursery.start(serve_tcp, host, *service)
        else:
            await nursery.start(host.serve, echo)
        await announce(host)
        console.print(f"serves  {forward or 'echo'}")


async def echo(connection: AgentConnection) -> None:
    """Send back whatever arrives, stream by stream."""
    console.print(f"caller  {connection.remote} from {connection.peer_address}")
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


def _service(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"--forward: {text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)
