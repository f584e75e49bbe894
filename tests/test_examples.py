"""The examples run, each as a program of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "echo": "hello by direct 127.0.0.1:",
    "chat": "bob heard alice: hello, all",
    "http_service": "hello world caller proven: True",
    "file_share": "photo.raw is equal: True",
    "mcp_tools": "['add', 'caller_aid'] {'result': 42}\ncaller proven: True",
    "swarm": "50 of 50 agents were found and proved who they are",
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, "loopback"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_does_what_it_says(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
