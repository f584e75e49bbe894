"""`a2al-trio send`: a file to an agent that runs `receive`."""

from __future__ import annotations

from pathlib import Path

import click
import trio
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from a2al_trio.cli.node_options import NodeOptions, host_options
from a2al_trio.cli.parameters import AID, SOCKET_ADDRESS
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import console, json_option, print_json, tell
from a2al_trio.host import AgentConnection
from a2al_trio.http.files import send_file
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress

__all__ = ["add_bar", "make_progress", "send"]


def make_progress() -> Progress:
    """A bar with name, size, speed, time left and path, on standard error; plain where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[path]}", style="dim", markup=False),
        console=console(),
    )


def add_bar(bars: Progress, name: str, *, size: int | None = None, path: str = "") -> TaskID:
    """Add a bar; the name comes from elsewhere and is not taken for markup."""
    return bars.add_task(escape(name), total=size, path=path)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("aid", type=AID)
@click.option("--at", type=SOCKET_ADDRESS, metavar="IP:PORT", help="Dial this address instead of resolving.")
@json_option
@host_options()
@run_async
async def send(file: Path, aid: Address, at: SocketAddress | None, as_json: bool, node: NodeOptions) -> None:
    """Send a file to an agent that runs `receive`.

    Prints the name it got there. Sent again after a failure, it goes on where it broke off.
    """
    async with node.connect(aid, at) as connection:
        with make_progress() as bars:
            shown = _Shown(bars, file.name, connection)
            began = trio.current_time()
            saved = await send_file(connection, file, reading=shown.has_read, progress=shown.has_sent)
            seconds = round(trio.current_time() - began, 3)
        path = connection.path
    if as_json:
        print_json(saved=saved, aid=str(aid), path=path, size=shown.size, resumed_at=shown.resumed_at, seconds=seconds)
    else:
        click.echo(saved)


class _Shown:
    """How far a file has come, as a bar: first its reading, then its sending."""

    def __init__(self, bars: Progress, name: str, connection: AgentConnection) -> None:
        self._bars = bars
        self._name = name
        self._connection = connection
        self._reading = add_bar(bars, f"reading {name}")
        self._sending: TaskID | None = None
        self.size = 0
        self.resumed_at = 0

    def has_read(self, done: int, size: int) -> None:
        """So many bytes are hashed."""
        self._bars.update(self._reading, completed=done, total=size)

    def has_sent(self, done: int, size: int) -> None:
        """So many bytes are there; the first time, from an earlier try."""
        if self._sending is None:
            self._bars.remove_task(self._reading)
            self._sending = add_bar(self._bars, self._name, size=size)
            self._bars.reset(self._sending, completed=done)
            self.size, self.resumed_at = size, done
            if done:
                tell("resumed", f"at {done} of {size} bytes")
        self._bars.update(self._sending, completed=done, path=self._connection.path)
