"""`a2al-trio resolve`: look up where an agent can be reached."""

from __future__ import annotations

import click

from a2al_trio.cli.node_options import NodeOptions, host_options, join
from a2al_trio.cli.parameters import AID
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, print_json
from a2al_trio.identity import Address

__all__ = ["resolve"]


@click.command()
@click.argument("aid", type=AID)
@json_option
@host_options()
@run_async
async def resolve(aid: Address, as_json: bool, node: NodeOptions) -> None:
    """Print the endpoints an agent has published.

    With --json, the whole record.
    """
    async with node.open_host() as host:
        await join(host, node.config)
        found = await host.resolve(aid)
    if not as_json:
        for endpoint in found.endpoints:
            click.echo(endpoint)
        return
    record, payload = found.record, found.payload
    print_json(
        aid=str(record.address),
        endpoints=found.endpoints,
        nat_type=payload.nat_type,
        signals=payload.signals,
        sequence=record.sequence,
        timestamp=record.timestamp,
        ttl=record.ttl,
    )
