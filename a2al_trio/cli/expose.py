"""`a2al-trio expose`: an agent in front of a local TCP service, for those who may call it."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from a2al_trio.cli.common import AID, console, host_options, load_node_identity, make_config, run_async
from a2al_trio.cli.node import announce
from a2al_trio.host import open_host
from a2al_trio.host.access import AccessList
from a2al_trio.http import serve_tcp
from a2al_trio.identity import Address

__all__ = ["ServiceParameter", "expose"]


class ServiceParameter(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`, or a port of this machine."""

    name = "service"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Parse the text, or fail with what is wrong about it."""
        host, _, port = str(value).rpartition(":")
        if not port.isdigit() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is neither a port nor HOST:PORT, such as 8000 or 127.0.0.1:8000", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@click.command()
@click.argument("service", type=ServiceParameter())
@click.option("--allow", type=AID, multiple=True, help="An AID that may call; without any, all may.")
@click.option("--deny", type=AID, multiple=True, help="An AID that may not.")
@click.option("--token", multiple=True, help="A ticket that lets in callers who are not in --allow.")
@host_options
@run_async
async def expose(
    service: tuple[str, int],
    allow: tuple[Address, ...],
    deny: tuple[Address, ...],
    token: tuple[str, ...],
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Publish this node's agent in front of a local TCP service until interrupted."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    access = AccessList(allow=allow if allow or token else None, deny=deny, tokens=token)
    async with open_host(load_node_identity(key), config) as host, trio.open_nursery() as nursery:
        host.access = access
        await nursery.start(serve_tcp, host, *service)
        await announce(host)
        console.print(f"exposes {service[0]}:{service[1]}")
