"""The `a2al-trio` command."""

from a2al_trio.cli.loading import interrupted_quietly

__all__ = ["main"]


def main() -> None:
    """Run the command that the command line asks for; the program ends with its exit code."""
    with interrupted_quietly():
        from a2al_trio.cli.commands import commands
    commands()
