"""The command group and what all commands share."""

from __future__ import annotations

import importlib
import logging

import click

from a2al_trio.cli.loading import interrupted_quietly
from a2al_trio.cli.running import explained

__all__ = ["commands", "load_command"]

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)

SUMMARIES = {
    "demo": "Show a network of nodes on loopback, and end.",
    "id": "Show the AID of this node's key.",
    "node": "Run a node until interrupted.",
    "serve": "Answer callers by echo, or by a TCP service.",
    "expose": "Put this node's agent in front of a TCP service.",
    "forward": "Lead a local TCP port to an agent.",
    "connect": "Pipe standard input and output through an agent.",
    "resolve": "Print the endpoints an agent has published.",
    "send": "Send a file to an agent that runs `receive`.",
    "receive": "Take files that agents send.",
    "hub": "Run a hub, where agents behind NATs are called.",
    "doctor": "Tell what will work in this network.",
    "delegate": "Let a key act for an AID whose own key stays safe.",
}
"""The commands in the order of their use, and how each one's own help begins."""

MODULES = {"id": "identity"}
"""Where commands are that have not the name of their module."""


def load_command(name: str) -> click.Command:
    """The command of that name; loads what it needs."""
    where = MODULES.get(name, name)
    with interrupted_quietly():
        found: click.Command = getattr(importlib.import_module(f"a2al_trio.cli.{where}"), where)
    return found


class Commands(click.Group):
    """Knows of each command the name and a summary, and loads the one that is run.

    What goes wrong in any of them is explained in a line.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, and load it."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and load_command(str(known.name)), rest

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        with explained():
            return super().invoke(ctx)


@click.group(
    name="a2al-trio",
    cls=Commands,
    commands=[click.Command(name, short_help=summary) for name, summary in SUMMARIES.items()],
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "A2AL_TRIO"},
)
@click.version_option(package_name="a2al-trio")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def commands(verbose: int) -> None:
    """Dial agents by cryptographic address, and be dialled."""
    logging.basicConfig(level=LEVELS[min(verbose, 2)], format="%(levelname)s %(name)s: %(message)s")
