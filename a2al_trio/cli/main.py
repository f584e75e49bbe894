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
from a2al_trio.cli.send import send
from a2al_trio.cli.serve import serve

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "A2AL_TRIO"})
@click.version_option(package_name="a2al-trio")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
def main(verbose: int) -> None:
    """Dial agents by cryptographic address, and be dialled."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


for command in (
    demo,
    identity,
    delegate,
    node,
    resolve,
    connect,
    serve,
    expose,
    forward,
    send,
    receive,
    hub,
    doctor,
):
    main.add_command(command)
