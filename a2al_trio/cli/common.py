"""Options and errors that several commands share."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import attrs
import click
import trio
from rich.console import Console

from a2al_trio.errors import A2alError, ConfigurationError
from a2al_trio.host import Host, HostConfig
from a2al_trio.host.agents_file import load_agents
from a2al_trio.host.settings import load_config
from a2al_trio.identity import Address, Identity, InvalidAddress
from a2al_trio.identity.files import load_identity, read_private_file
from a2al_trio.net.address import SocketAddress

__all__ = [
    "AID",
    "SOCKET_ADDRESS",
    "AidParameter",
    "SocketAddressParameter",
    "ask_passphrase",
    "console",
    "default_key_path",
    "host_options",
    "load_node_identity",
    "make_config",
    "register_agents",
    "run_async",
]

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])

console = Console(stderr=True, highlight=False)
"""Where commands say things to the person; standard output is for data."""


class AidParameter(click.ParamType[Address]):
    """An agent's address on the command line, in any of its text forms."""

    name = "aid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the text, or fail with what is wrong about it."""
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(str(value))
        except InvalidAddress as error:
            self.fail(f"{value!r} is not an AID: {error}", param, ctx)


class SocketAddressParameter(click.ParamType[SocketAddress]):
    """`IP:port` on the command line."""

    name = "ip:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> SocketAddress:
        """Parse the text, or fail with what is wrong about it."""
        if isinstance(value, SocketAddress):
            return value
        try:
            return SocketAddress.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


AID = AidParameter()
SOCKET_ADDRESS = SocketAddressParameter()


def run_async(command: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async command under Trio; what the user did wrong becomes a message, an interrupt a quiet end."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            # At checkpoints of the command itself: an interrupt in the middle of a connection's task, deep in some
            # library, would end that task and no more.
            trio.run(functools.partial(command, *args, **kwargs), restrict_keyboard_interrupt_to_checkpoints=True)
        except A2alError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None
        except BaseExceptionGroup as group:
            # The same from inside a command's own nursery.
            if group.split(KeyboardInterrupt)[1] is None:
                raise click.exceptions.Exit(130) from None
            if group.split(A2alError)[1] is None:
                raise click.ClickException(str(_first_leaf(group))) from group
            raise

    return run


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def default_key_path() -> Path:
    """Where the key of this user's node is kept unless said otherwise."""
    return Path(click.get_app_dir("a2al-trio")) / "node.key"


def host_options(command: F) -> F:
    """The options of every command that runs a host."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option("--key", type=path, default=default_key_path, help="Key file of this node; see `id`."),
            click.option("--listen", default="", metavar="[IP]:PORT", help="UDP address; default: any free port."),
            click.option("--bootstrap", "-b", multiple=True, metavar="HOST:PORT", help="A node to join through."),
            click.option("--advertise", default="", metavar="HOST", help="Also publish this host name or IP."),
            click.option("--data-dir", type=path, help="Where known peers and records survive a restart."),
        )
    ):
        command = option(command)
    return command


def make_config(*, listen: str, bootstrap: tuple[str, ...], advertise: str, data_dir: Path | None) -> HostConfig:
    """The host settings that `host_options` say, over those of the environment and of a settings file.

    `A2AL_TRIO_CONFIG` names the file, TOML as the reference daemon's `config.toml`; see `load_config`.
    """
    file = os.environ.get("A2AL_TRIO_CONFIG")
    settings = load_config(Path(file) if file else None, os.environ)
    said = {"listen": listen, "bootstrap": bootstrap, "fallback_host": advertise, "data_dir": data_dir}
    return attrs.evolve(settings, **{name: value for name, value in said.items() if value})  # type: ignore[arg-type]


async def register_agents(host: Host, path: Path | None) -> None:
    """Register the agents of a file, and say which of its entries cannot be used."""
    if path is None:
        return
    try:
        loaded = await trio.to_thread.run_sync(functools.partial(load_agents, path, now=time.time()))
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no agents file {path}; make one with: a2al-trio delegate --agents"
        ) from None
    for identity in loaded.identities:
        host.register_agent(identity)
        console.print(f"agent   {identity.address}")
    for reason in loaded.skipped:
        console.print(f"[yellow]skipped:[/] {reason}")


def load_node_identity(key: Path) -> Identity:
    """The identity in a key file; asks for the passphrase of an encrypted one."""
    try:
        encrypted = read_private_file(key).startswith(b"a2al-k1")
        return load_identity(key, passphrase=ask_passphrase() if encrypted else None)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no identity at {key}; make one with: a2al-trio id --create") from None


def ask_passphrase(*, confirm: bool = False) -> bytes:
    """The passphrase from `A2AL_TRIO_PASSPHRASE`, or asked for on the terminal."""
    given = os.environ.get("A2AL_TRIO_PASSPHRASE")
    if given is None:
        given = click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=confirm)
    return str(given).encode()
