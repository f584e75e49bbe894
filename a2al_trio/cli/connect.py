"""`a2al-trio connect`: standard input and output over a stream to an agent."""

from __future__ import annotations

import os
import sys

import click
import trio

from a2al_trio.cli.node_options import NodeOptions, host_options
from a2al_trio.cli.parameters import AID, SOCKET_ADDRESS
from a2al_trio.cli.running import run_async
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicStream

__all__ = ["connect"]

CHUNK = 64 * 1024


@click.command()
@click.argument("aid", type=AID)
@click.option("--at", type=SOCKET_ADDRESS, metavar="IP:PORT", help="Dial this address instead of resolving.")
@host_options()
@run_async
async def connect(aid: Address, at: SocketAddress | None, node: NodeOptions) -> None:
    """Pipe standard input and output through an agent.

    Ends when the agent has ended its side of the stream.
    """
    async with node.connect(aid, at) as connection:
        stream = await connection.open_stream()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send_input, stream)
            async for chunk in stream:
                await trio.to_thread.run_sync(_write_output, bytes(chunk))
            nursery.cancel_scope.cancel()


async def _send_input(stream: QuicStream) -> None:
    # A thread, because a terminal or file may not be readable without blocking; it is left behind on the way out.
    while chunk := await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), CHUNK, abandon_on_cancel=True):
        await stream.send_all(chunk)
    await stream.send_eof()


def _write_output(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
