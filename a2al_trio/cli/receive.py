"""`a2al-trio receive`: take files that agents send."""

from __future__ import annotations

import json
from pathlib import Path

import click
import trio
from rich.progress import TaskID

from a2al_trio.cli.common import AID, console, host_options, load_node_identity, make_config, run_async
from a2al_trio.cli.node import announce
from a2al_trio.cli.send import make_progress
from a2al_trio.errors import A2alError, ConfigurationError
from a2al_trio.host import AgentConnection, Host, open_host
from a2al_trio.host.access import AccessList
from a2al_trio.http.files import FileOffer, FileReceiver
from a2al_trio.identity import Address
from a2al_trio.quic import QuicStream

__all__ = ["receive"]


@click.command()
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--allow", type=AID, multiple=True, help="An AID whose files are taken.")
@click.option("--anyone", is_flag=True, help="Take files from anybody.")
@click.option("--once", is_flag=True, help="End after one file.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each file.")
@host_options
@run_async
async def receive(
    directory: Path,
    allow: tuple[Address, ...],
    anyone: bool,
    once: bool,
    as_json: bool,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Take files into a directory until interrupted; prints the path of each."""
    if bool(allow) == anyone:
        raise ConfigurationError("say whose files are taken: --allow AID for each sender, or --anyone")
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host, trio.open_nursery() as nursery:
        host.access = AccessList(allow=None if anyone else allow)
        await nursery.start(_take_files, host, directory, once, as_json)
        await announce(host)
        console.print(f"takes files into {directory}")


async def _take_files(
    host: Host,
    directory: Path,
    once: bool,
    as_json: bool,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    done = trio.Event()
    bars = make_progress()
    shown: dict[str, TaskID] = {}

    def progress(offer: FileOffer, have: int) -> None:
        if offer.sha256 not in shown:
            shown[offer.sha256] = bars.add_task(offer.name, total=offer.size)
        bars.update(shown[offer.sha256], completed=have)

    receiver = FileReceiver(directory, progress=progress)

    async def take(stream: QuicStream, sender: Address) -> None:
        try:
            path = await receiver.receive(stream)
        except (A2alError, OSError, trio.BrokenResourceError) as error:
            console.print(f"[yellow]not received[/] from {sender}: {error}")
        else:
            click.echo(json.dumps({"file": str(path), "from": str(sender)}) if as_json else str(path))
            done.set()

    async def handle(connection: AgentConnection) -> None:
        console.print(f"caller  {connection.remote}, {connection.path}")
        async with trio.open_nursery() as nursery:
            async for stream in connection:
                nursery.start_soon(take, stream, connection.remote)

    with bars:
        async with trio.open_nursery() as nursery:
            await nursery.start(host.serve, handle)
            task_status.started()
            if once:
                await done.wait()
                nursery.cancel_scope.cancel()
