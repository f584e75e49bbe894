"""`a2al-trio connect`: standard input and output over a stream to an agent."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import trio

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
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicStream

__all__ = ["connect"]

CHUNK = 64 * 1024


@click.command()
@click.argument("aid", type=AID)
@click.option("--at", type=SOCKET_ADDRESS, metavar="IP:PORT", help="Dial this address instead of resolving.")
@host_options
@run_async
async def connect(
    aid: Address,
    at: SocketAddress | None,
    key: Path,
    listen: str,
    bootstrap: tuple[str, ...],
    advertise: str,
    data_dir: Path | None,
) -> None:
    """Connect to an agent; pipes standard input to it and what it sends to standard output."""
    config = make_config(listen=listen, bootstrap=bootstrap, advertise=advertise, data_dir=data_dir)
    async with open_host(load_node_identity(key), config) as host:
        if at is None:
            await host.dht.bootstrapped()
        async with host.connect(aid, at=at) as connection:
            console.print(f"connected to {connection.remote}, {connection.path}")
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
