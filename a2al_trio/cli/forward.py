"""`a2al-trio forward`: a local TCP port that leads to an agent."""

from __future__ import annotations

import json
from pathlib import Path

import click
import trio

from a2al_trio.cli.common import (
    AID,
    SOCKET_ADDRESS,
    console,
    default_key_path,
    load_node_identity,
    run_async,
)
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import HostConfig, open_host
from a2al_trio.http import forward_tcp
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress

__all__ = ["forward"]


@click.command()
@click.argument("aid", type=AID)
@click.option(
    "--listen", type=SOCKET_ADDRESS, default="127.0.0.1:0", help="Where TCP clients connect; default: any free port."
)
@click.option("--token", default="", help="Ticket for an agent that asks for one.")
@click.option("--json", "as_json", is_flag=True, help="Print the port's address as JSON.")
@click.option("--key", type=click.Path(path_type=Path), default=default_key_path, help="Key file of this node.")
@click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT", help="A node to join through.")
@run_async
async def forward(
    aid: Address,
    listen: SocketAddress,
    token: str,
    as_json: bool,
    key: Path,
    bootstrap: tuple[str, ...],
) -> None:
    """Connect a local TCP port to an agent until interrupted; prints the port's address."""
    try:
        listeners = await trio.open_tcp_listeners(listen.port, host=listen.host)
    except OSError as error:
        raise ConfigurationError(
            f"--listen: cannot listen on {listen}: {error.strerror}; choose another port"
        ) from error
    async with open_host(load_node_identity(key), HostConfig(bootstrap=bootstrap)) as host:
        await host.dht.bootstrapped()
        bound = listeners[0].socket.getsockname()
        port = str(SocketAddress(bound[0], bound[1]))
        click.echo(json.dumps({"listen": port, "aid": str(aid)}) if as_json else port)
        console.print(f"leads to {aid}")
        await forward_tcp(host, aid, listeners, token=token)
