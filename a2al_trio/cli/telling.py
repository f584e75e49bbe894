"""How commands speak: data on standard output, everything for the person on standard error."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "json_option", "print_json", "tell", "warn"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print data as JSON, one object per line.")


@functools.cache
def console() -> Console:
    """Where commands say things to the person; loaded by the first that has something to say."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def tell(label: str, text: str) -> None:
    """Say one thing to the person, under a label; text from elsewhere is never taken for markup."""
    console().print(f"{label:<9} {text}", soft_wrap=True)


def warn(text: str) -> None:
    """Say what the person should look after."""
    console().print(text, style="yellow", soft_wrap=True)


def print_json(**facts: object) -> None:
    """Print one line of data, at once also into a pipe."""
    click.echo(json.dumps(facts, ensure_ascii=False))
