"""`a2al-trio node`: run a node until interrupted."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.node_options import NodeOptions, host_options, register_agents
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, print_json, tell, warn
from a2al_trio.debug import serve_debug
from a2al_trio.errors import NoRoute
from a2al_trio.host import Host
from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import open_service_nursery

__all__ = ["announce", "node"]

REPORT_INTERVAL = 30.0


@click.command()
@click.option("--agents", type=click.Path(path_type=Path), help="Agents file: more agents to run; see `delegate`.")
@click.option("--debug", metavar="IP:PORT", help="Show the state of the node on a web page there; port 0: any.")
@json_option
@host_options()
@run_async
async def node(agents: Path | None, debug: str | None, as_json: bool, node: NodeOptions) -> None:
    """Run a node until interrupted.

    Prints its AID; says its addresses, and how many peers it knows whenever that changes.
    """
    facts = {}
    async with node.open_host() as host, open_service_nursery("node") as nursery:
        await register_agents(host, agents)
        if debug is not None:
            address: SocketAddress = await nursery.start(serve_debug, host, debug)
            facts["debug"] = f"http://{address}/debug/"
            tell("debug", facts["debug"])
        await announce(host, as_json=as_json, **facts)
        known = -1
        while True:
            if (peers := len(host.dht.contacts())) != known:
                known = peers
                tell("peers", str(peers))
                if as_json:
                    print_json(peers=peers)
            await trio.sleep(REPORT_INTERVAL)


async def announce(host: Host, *, as_json: bool, **facts: str) -> None:
    """Say who and where we are, join the network and publish our endpoints; `facts` is more for the JSON."""
    if not as_json:
        click.echo(str(host.address))
    tell("listens", str(host.dht_address))
    joined = await host.dht.bootstrapped()
    tell("joined", "the network" if joined else "nobody yet")
    endpoints: tuple[str, ...] = ()
    try:
        await host.publish()
    except NoRoute:
        warn(
            "not published: no address is known yet at which others reach this node; "
            "join through a public node (--bootstrap), or name an address that leads here (--advertise)"
        )
    else:
        endpoints = host.build_endpoint_payload().endpoints or ()
        tell("reached", "at " + (", ".join(endpoints) or "hubs only"))
    if as_json:
        print_json(aid=str(host.address), listen=str(host.dht_address), joined=joined, endpoints=endpoints, **facts)
