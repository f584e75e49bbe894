"""`a2al-trio resolve`: look up where an agent can be reached."""

from __future__ import annotations

import json
from pathlib import Path

import click

from a2al_trio.cli.common import AID, host_options, load_node_identity, make_config, run_async
from a2al_trio.host import open_host
from a2al_trio.identity import Address

__all__ = ["resolve"]


@click.command()
@click.argument("aid", type=AID)
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@host_options
@run_async
async def resolve(
    aid: Address,
    as_json: bool,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Print the endpoints an agent has published."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host:
        await host.dht.bootstrapped()
        found = await host.resolve(aid)
    if not as_json:
        for endpoint in found.endpoints:
            click.echo(endpoint)
        return
    record, payload = found.record, found.payload
    click.echo(
        json.dumps(
            {
                "aid": str(record.address),
                "endpoints": list(found.endpoints),
                "nat_type": payload.nat_type,
                "signals": list(payload.signals),
                "sequence": record.sequence,
                "timestamp": record.timestamp,
                "ttl": record.ttl,
            },
            indent=2,
        )
    )
