"""The options of every command that runs a host, and what they come to."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import click
import trio
from click.core import ParameterSource

from a2al_trio.cli.keys import default_key_path, load_node_identity
from a2al_trio.cli.parameters import HOST_NAME, NODE
from a2al_trio.cli.telling import tell, warn
from a2al_trio.errors import ConfigurationError, ConnectError
from a2al_trio.host import AgentConnection, Host, HostConfig, load_agents, open_host
from a2al_trio.host.settings import load_config
from a2al_trio.identity import Address, Identity
from a2al_trio.net.address import SocketAddress

__all__ = [
    "NodeOptions",
    "host_options",
    "join",
    "register_agents",
]

R = TypeVar("R")

FIELDS = {"bootstrap": "bootstrap", "advertise": "fallback_host", "data_dir": "data_dir", "listen": "listen"}
"""Options, and the settings they stand for."""


@attrs.frozen
class NodeOptions:
    """Who this node is, and its settings."""

    identity: Identity
    config: HostConfig

    @asynccontextmanager
    async def open_host(self) -> AsyncIterator[Host]:
        """Run the host for the length of a block."""
        async with open_host(self.identity, self.config) as host:
            yield host

    @asynccontextmanager
    async def connect(self, aid: Address, at: SocketAddress | None) -> AsyncIterator[AgentConnection]:
        """Run the host, connected to an agent, for the length of a block."""
        async with self.open_host() as host:
            if at is None:
                await join(host, self.config)
            async with host.connect(aid, at=at) as connection:
                tell("connected", f"to {connection.remote}, {connection.path}")
                yield connection


def host_options(*, udp_listen: bool = True) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options of a command that runs a host; it gets them as one argument, `node`.

    Without `udp_listen` the command has another use for `--listen`.
    """
    options = [
        click.option("--key", type=click.Path(path_type=Path), default=default_key_path, help="This node's key file."),
        click.option("--bootstrap", "-b", multiple=True, type=NODE, metavar="HOST:PORT", help="Node to join through."),
        click.option("--advertise", type=HOST_NAME, metavar="HOST", help="Also publish this host name or IP."),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False, writable=True),
            help="Where known peers and records survive a restart.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar="A2AL_TRIO_CONFIG",
            help="Settings file (TOML); options win over it.",
        ),
    ]
    names = list(FIELDS)
    if not udp_listen:
        names.remove("listen")
    else:
        options.insert(1, click.option("--listen", metavar="[IP]:PORT", help="UDP address; default: any free port."))

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def with_node(*, key: Path, config: Path | None, **others: object) -> R:
            said = {FIELDS[name]: value for name in names if (value := others.pop(name))}
            settings = attrs.evolve(load_config(config, os.environ), **said)  # type: ignore[arg-type]  # click read them
            if settings.data_dir is not None:
                settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # now, or the state is lost at the end
            source = click.get_current_context().get_parameter_source("key")
            identity = load_node_identity(key, make=source is ParameterSource.DEFAULT)
            return command(node=NodeOptions(identity, settings), **others)

        with_options: Callable[..., R] = with_node
        for option in reversed(options):
            with_options = option(with_options)
        return with_options

    return decorate


async def join(host: Host, config: HostConfig) -> None:
    """Wait until the network is joined; raises an error that says what is missing."""
    if await host.dht.bootstrapped():
        return
    if not config.bootstrap:
        raise ConfigurationError("no network to look in: name a node of it with --bootstrap HOST:PORT")
    raise ConnectError(
        f"no answer from {', '.join(config.bootstrap)}: see whether the node runs there and whether UDP gets through, "
        f"with: a2al-trio doctor -b {config.bootstrap[0]}"
    )


async def register_agents(host: Host, path: Path | None) -> None:
    """Register the agents of a file, and say which of its entries cannot be used."""
    if path is None:
        return
    try:
        loaded = await trio.to_thread.run_sync(functools.partial(load_agents, path, now=time.time()))
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no agents file {path}; make one with: a2al-trio delegate --agents {path}"
        ) from None
    for identity in loaded.identities:
        host.register_agent(identity)
        tell("agent", str(identity.address))
    for reason in loaded.skipped:
        warn(f"skipped: {reason}")
