"""`a2al-trio expose`: an agent in front of a local TCP service, for those who may call it."""

from __future__ import annotations

import click
import trio

from a2al_trio.cli.node import announce
from a2al_trio.cli.node_options import NodeOptions, host_options
from a2al_trio.cli.parameters import AID, SERVICE
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, tell
from a2al_trio.host.access import AccessList
from a2al_trio.identity import Address

__all__ = ["expose"]


@click.command()
@click.argument("service", type=SERVICE)
@click.option("--allow", type=AID, multiple=True, help="An AID that may call; without any, all may.")
@click.option("--deny", type=AID, multiple=True, help="An AID that may not.")
@click.option("--token", multiple=True, help="A ticket that lets in callers who are not in --allow.")
@json_option
@host_options()
@run_async
async def expose(
    service: tuple[str, int],
    allow: tuple[Address, ...],
    deny: tuple[Address, ...],
    token: tuple[str, ...],
    as_json: bool,
    node: NodeOptions,
) -> None:
    """Put this node's agent in front of a TCP service.

    SERVICE is a port of this machine, or HOST:PORT. Runs until interrupted; prints the AID to call.
    """
    access = AccessList(allow=allow if allow or token else None, deny=deny, tokens=token)
    async with node.open_host() as host, trio.open_nursery() as nursery:
        host.access = access
        await nursery.start(host.serve_tcp, service)
        tell("exposes", f"{service[0]}:{service[1]}")
        await announce(host, as_json=as_json)
