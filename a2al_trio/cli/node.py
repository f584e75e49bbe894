"""`a2al-trio node`: run a node until interrupted."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.common import console, host_options, load_node_identity, make_config, register_agents, run_async
from a2al_trio.errors import NoRoute
from a2al_trio.host import Host, open_host

__all__ = ["announce", "node"]

REPORT_INTERVAL = 30.0


@click.command()
@click.option("--agents", type=click.Path(path_type=Path), help="Agents file: more agents to run; see `delegate`.")
@host_options
@run_async
async def node(
    agents: Path | None, key: Path, listen: str, bootstrap: tuple[str, ...], advertise: str, data_dir: Path | None
) -> None:
    """Run a node until interrupted; shows its AID, addresses and how many peers it knows."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host:
        await register_agents(host, agents)
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
