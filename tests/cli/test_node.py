"""`a2al-trio node` as a process: its debug page, and an end by Ctrl-C without a traceback."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from a2al_trio.cli.commands import commands
from a2al_trio.identity.files import load_or_create_identity


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "node.key"
    load_or_create_identity(path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_the_debug_page_and_an_interrupt(key: Path) -> None:
    options = ["--key", str(key), "--listen", "127.0.0.1:0", "--debug", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-m", "a2al_trio", "node", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = ""
            while (found := re.search(r"debug +(http://127.0.0.1:\d+/debug/)", said)) is None:
                line = process.stderr.readline()
                assert line, said
                said += line
            page = httpx.get(found[1] + "host", trust_env=False).json()
            assert page["address"] == process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in rest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for one process")
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_end_does_so_quietly(key: Path, told: signal.Signals) -> None:
    command = [sys.executable, "-m", "a2al_trio", "serve", "--key", str(key), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = ""
            while "joined" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            process.send_signal(told)
            _, rest = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 128 + told
    assert "Traceback" not in rest


def test_a_debug_address_that_cannot_be_is_said(key: Path) -> None:
    result = CliRunner().invoke(
        commands, ["node", "--key", str(key), "--listen", "127.0.0.1:0", "--debug", "0.0.0.0:1"]
    )
    assert result.exit_code == 2
    assert "not loopback" in result.output
