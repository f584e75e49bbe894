"""The command group and what all commands share."""

from __future__ import annotations

import logging

import click

from a2al_trio.cli.connect import connect
from a2al_trio.cli.delegate import delegate
from a2al_trio.cli.demo import demo
from a2al_trio.cli.doctor import doctor
from a2al_trio.cli.expose import expose
from a2al_trio.cli.forward import forward
from a2al_trio.cli.hub import hub
from a2al_trio.cli.identity import identity
from a2al_trio.cli.node import node
from a2al_trio.cli.receive import receive
from a2al_trio.cli.resolve import resolve
from a2al_trio.cli.running import explained
from a2al_trio.cli.send import send
from a2al_trio.cli.serve import serve

__all__ = ["main"]

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class Commands(click.Group):
    """The commands in the order of their use; what goes wrong in any of them is explained in a line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        with explained():
            return super().invoke(ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "A2AL_TRIO"})
@click.version_option(package_name="a2al-trio")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def main(verbose: int) -> None:
    """Dial agents by cryptographic address, and be dialled."""
    logging.basicConfig(level=LEVELS[min(verbose, 2)], format="%(levelname)s %(name)s: %(message)s")


for command in (
    demo,
    identity,
    node,
    serve,
    expose,
    forward,
    connect,
    resolve,
    send,
    receive,
    hub,
    doctor,
    delegate,
):
    main.add_command(command)
