"""The `a2al-trio` command."""

from a2al_trio.cli.main import main

__all__ = ["main"]
