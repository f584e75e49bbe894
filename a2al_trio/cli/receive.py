"""`a2al-trio receive`: take files that agents send."""

from __future__ import annotations

from pathlib import Path

import attrs
import click
import trio
from rich.progress import Progress, TaskID

from a2al_trio.cli.node import announce
from a2al_trio.cli.node_options import NodeOptions, host_options
from a2al_trio.cli.parameters import AID
from a2al_trio.cli.running import run_async
from a2al_trio.cli.send import add_bar, make_progress
from a2al_trio.cli.telling import json_option, print_json, tell, warn
from a2al_trio.errors import A2alError, ConfigurationError
from a2al_trio.host import AgentConnection, Host
from a2al_trio.host.access import AccessList
from a2al_trio.http.files import FileOffer, FileReceiver
from a2al_trio.identity import Address
from a2al_trio.quic import QuicStream

__all__ = ["receive"]


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=".",
    help="Where files go; default: the current directory.",
)
@click.option("--allow", type=AID, multiple=True, help="An AID whose files are taken.")
@click.option("--anyone", is_flag=True, help="Take files from anybody.")
@click.option("--max-size", type=click.IntRange(1), metavar="BYTES", help="Refuse files that are larger.")
@click.option("--once", is_flag=True, help="End after one file.")
@json_option
@host_options()
@run_async
async def receive(
    directory: Path,
    allow: tuple[Address, ...],
    anyone: bool,
    max_size: int | None,
    once: bool,
    as_json: bool,
    node: NodeOptions,
) -> None:
    """Take files that agents send.

    Runs until interrupted; prints the path of each file. Existing files are never overwritten.
    """
    if bool(allow) == anyone:
        raise ConfigurationError("say whose files are taken: --allow AID for each sender, or --anyone")
    with make_progress() as bars:
        inbox = _Inbox(directory, max_size, bars, as_json)
        async with node.open_host() as host, trio.open_nursery() as nursery:
            host.access = AccessList(allow=None if anyone else allow)
            await nursery.start(inbox.serve, host)
            tell("takes", f"files into {directory}")
            await announce(host, as_json=as_json)
            if once:
                await inbox.filled.wait()
                nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class _Inbox:
    """Takes files into a directory and shows how they come."""

    directory: Path
    max_size: int | None
    bars: Progress
    as_json: bool
    filled: trio.Event = attrs.field(factory=trio.Event)
    """Set once a file is here and its sender knows."""

    async def serve(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take files from all callers until cancelled."""
        await host.serve(self._handle, task_status=task_status)

    async def _handle(self, connection: AgentConnection) -> None:
        tell("caller", f"{connection.remote}, {connection.path}")
        shown: dict[str, TaskID] = {}

        def progress(offer: FileOffer, have: int) -> None:
            if offer.sha256 not in shown:
                shown[offer.sha256] = add_bar(self.bars, offer.name, size=offer.size)
                self.bars.reset(shown[offer.sha256], completed=have)
            self.bars.update(shown[offer.sha256], completed=have, path=connection.path)

        receiver = FileReceiver(self.directory, accept=self._accept, progress=progress)
        try:
            async with trio.open_nursery() as nursery:
                async for stream in connection:
                    nursery.start_soon(self._take, receiver, stream, connection.remote)
        finally:
            for bar in shown.values():
                self.bars.remove_task(bar)

    def _accept(self, offer: FileOffer) -> str | None:
        if self.max_size is not None and offer.size > self.max_size:
            return f"{offer.size} bytes are too many; it takes {self.max_size}"
        return None

    async def _take(self, receiver: FileReceiver, stream: QuicStream, sender: Address) -> None:
        try:
            path = await receiver.receive(stream)
        except (A2alError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            warn(f"not received from {sender}: {reason}")
            return
        if self.as_json:
            print_json(file=str(path), size=path.stat().st_size, **{"from": str(sender)})
        else:
            click.echo(str(path))
        self.filled.set()
