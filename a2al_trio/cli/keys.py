"""Key files of nodes: where they are, and how they are opened."""

from __future__ import annotations

import os
from pathlib import Path

import click

from a2al_trio.cli.telling import tell
from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Identity
from a2al_trio.identity.files import load_identity, load_or_create_identity, read_private_file

__all__ = ["ask_passphrase", "default_key_path", "load_node_identity"]


def default_key_path() -> Path:
    """Where the key of this user's node is kept unless said otherwise."""
    return Path(click.get_app_dir("a2al-trio")) / "node.key"


def load_node_identity(key: Path, *, make: bool = False) -> Identity:
    """The identity in a key file; asks for the passphrase of an encrypted one. With `make`, makes a missing one."""
    try:
        encrypted = read_private_file(key).startswith(b"a2al-k1")
        return load_identity(key, passphrase=ask_passphrase() if encrypted else None)
    except FileNotFoundError:
        if not make:
            raise ConfigurationError(
                f"there is no key file {key}; make one with: a2al-trio id --key {key} --create"
            ) from None
    tell("new key", str(key))
    return load_or_create_identity(key)


def ask_passphrase(*, confirm: bool = False) -> bytes:
    """The passphrase from `A2AL_TRIO_PASSPHRASE`, or asked for on the terminal."""
    given = os.environ.get("A2AL_TRIO_PASSPHRASE")
    if given is None:
        given = click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=confirm)
    return str(given).encode()
