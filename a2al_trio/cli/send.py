"""`a2al-trio send`: a file to an agent that runs `receive`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import trio
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from a2al_trio.cli.common import (
    AID,
    SOCKET_ADDRESS,
    console,
    host_options,
    load_node_identity,
    make_config,
    run_async,
)
from a2al_trio.host import open_host
from a2al_trio.http.files import send_file
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress

__all__ = ["make_progress", "send"]


def make_progress() -> Progress:
    """A bar with name, size, speed and time left, on standard error; plain where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("aid", type=AID)
@click.option("--at", type=SOCKET_ADDRESS, metavar="IP:PORT", help="Dial this address instead of resolving.")
@click.option("--json", "as_json", is_flag=True, help="Print what happened as JSON.")
@host_options
@run_async
async def send(
    file: Path,
    aid: Address,
    at: SocketAddress | None,
    as_json: bool,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Send a file to an agent and print the name it got there.

    Sent again after a failure, it goes on where it broke off.
    """
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host:
        if at is None:
            await host.dht.bootstrapped()
        async with host.connect(aid, at=at) as connection:
            console.print(f"connected to {connection.remote}, {connection.path}")
            with make_progress() as bars:
                bar = bars.add_task(file.name, total=None)
                began = trio.current_time()
                saved = await send_file(
                    connection, file, progress=lambda sent, size: bars.update(bar, completed=sent, total=size)
                )
                seconds = round(trio.current_time() - began, 3)
            how = {"saved": saved, "aid": str(aid), "path": connection.path, "seconds": seconds}
    click.echo(json.dumps(how) if as_json else saved)
