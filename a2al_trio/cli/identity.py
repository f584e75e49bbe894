"""`a2al-trio id`: make and show this node's identity."""

from __future__ import annotations

from pathlib import Path

import click

from a2al_trio.cli.keys import ask_passphrase, default_key_path, load_node_identity
from a2al_trio.cli.telling import json_option, print_json
from a2al_trio.identity.files import load_or_create_identity

__all__ = ["identity"]


@click.command(name="id")
@click.option("--key", type=click.Path(path_type=Path), default=default_key_path, help="This node's key file.")
@click.option("--create", is_flag=True, help="Make a key if there is none yet.")
@click.option("--encrypt", is_flag=True, help="Keep a new key under a passphrase.")
@json_option
def identity(key: Path, create: bool, encrypt: bool, as_json: bool) -> None:
    """Show the AID of this node's key."""
    if create and not key.exists():
        found = load_or_create_identity(key, passphrase=ask_passphrase(confirm=True) if encrypt else None)
    else:
        found = load_node_identity(key)
    if as_json:
        print_json(aid=str(found.address), node_id=found.address.node_id.hex(), key=str(key))
    else:
        click.echo(str(found.address))
