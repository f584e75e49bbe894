"""Running `a2al-trio` as a user does."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from a2al_trio.cli.commands import commands

HERE = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1")
"""Where commands that run a host do so in tests."""


def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run a command in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(commands, arguments, env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ok(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a command that succeeds prints."""
    result = invoke(*arguments, env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: str, code: int = 2, env: Mapping[str, str] | None = None) -> str:
    """What a command that fails says, on one line; nothing of it is data."""
    result = invoke(*arguments, env=env)
    assert result.exit_code == code, result.output
    assert not result.stdout
    return re.sub(r"\s+", " ", result.stderr)


def make_key(folder: Path, name: str) -> str:
    """A new key file."""
    path = folder / f"{name}.key"
    ok("id", "--key", str(path), "--create")
    return str(path)


class Command:
    """A command that runs until told otherwise, and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def wait_for(self, pattern: str) -> str:
        """Read until a line matches; returns the group."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.said += line
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"it ended without saying {pattern!r}:\n{self.said}")


@contextlib.contextmanager
def running(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Command]:
    """Run a command as a process of its own for the length of a block."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "a2al_trio", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    with process:
        try:
            yield Command(process)
        finally:
            process.terminate()
