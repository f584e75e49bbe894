"""`a2al-trio forward`: a local TCP port that leads to an agent."""

from __future__ import annotations

from contextlib import AsyncExitStack

import click
import trio

from a2al_trio.cli.node_options import NodeOptions, host_options, join
from a2al_trio.cli.parameters import AID, TCP_LISTEN
from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, print_json, tell
from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress

__all__ = ["forward"]


@click.command()
@click.argument("aid", type=AID)
@click.option(
    "--listen",
    type=TCP_LISTEN,
    default="127.0.0.1:0",
    metavar="[IP:]PORT",
    help="Where TCP clients connect; default: any free port.",
)
@click.option("--token", default="", help="Ticket for an agent that asks for one.")
@json_option
@host_options(udp_listen=False)
@run_async
async def forward(aid: Address, listen: SocketAddress, token: str, as_json: bool, node: NodeOptions) -> None:
    """Lead a local TCP port to an agent.

    Runs until interrupted; prints the port's address.
    """
    try:
        listeners = await trio.open_tcp_listeners(listen.port, host=listen.host)
    except OSError as error:
        raise ConfigurationError(
            f"--listen: cannot listen on {listen}: {error.strerror}; choose another port"
        ) from error
    bound = listeners[0].socket.getsockname()
    port = SocketAddress(bound[0], bound[1])
    async with AsyncExitStack() as stack:
        for listener in listeners:
            await stack.enter_async_context(listener)
        host = await stack.enter_async_context(node.open_host())
        await join(host, node.config)
        tell("leads to", str(aid))
        if as_json:
            print_json(listen=str(port), aid=str(aid))
        else:
            click.echo(str(port))
        await host.forward_tcp(aid, listeners, token=token)
