"""`a2al-trio node`: run a node until interrupted."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.common import console, host_options, load_node_identity, make_config, register_agents, run_async
from a2al_trio.debug import serve_debug
from a2al_trio.errors import NoRoute
from a2al_trio.host import Host, open_host
from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import open_service_nursery

__all__ = ["announce", "node"]

REPORT_INTERVAL = 30.0


@click.command()
@click.option("--agents", type=click.Path(path_type=Path), help="Agents file: more agents to run; see `delegate`.")
@click.option("--debug", metavar="IP:PORT", help="Show the state of the node on a web page there; port 0: any.")
@host_options
@run_async
async def node(
    agents: Path | None,
    debug: str | None,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Run a node until interrupted; shows its AID, addresses and how many peers it knows."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host, open_service_nursery("node") as nursery:
        await register_agents(host, agents)
        if debug is not None:
            address: SocketAddress = await nursery.start(serve_debug, host, debug)
            console.print(f"debug   http://{address}/debug/")
        await announce(host)
        while True:
            console.print(f"peers   {len(host.dht.contacts())}")
            await trio.sleep(REPORT_INTERVAL)


async def announce(host: Host) -> None:
    """Say who and where we are, join the network and publish our endpoints."""
    click.echo(str(host.address))
    console.print(f"node    [bold]{host.address}[/]")
    console.print(f"listens {host.dht_address}")
    joined = await host.dht.bootstrapped()
    console.print("joined  the network" if joined else "joined  nobody yet")
    try:
        await host.publish()
    except NoRoute as error:
        console.print(f"[yellow]not published:[/] {error}")
    else:
        console.print("reached at " + ", ".join(host.build_endpoint_payload().endpoints or ()))
