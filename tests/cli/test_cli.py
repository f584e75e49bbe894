"""The command line: the demo runs by itself, and user errors say how to fix them."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from a2al_trio import Identity
from a2al_trio.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return Runner()


class Runner:
    def ok(self, *arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    def fails(self, *arguments: str) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code != 0
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return re.sub(r"\s+", " ", result.output)


def test_the_demo_meets_and_echoes(run: Runner, no_leaks: None) -> None:
    output = run.ok("demo", "--nodes", "4")
    assert "echoed     hello from the other side" in output
    assert output.rstrip().endswith("done")


def test_an_identity_is_made_once_and_shown(run: Runner, tmp_path: Path) -> None:
    key = str(tmp_path / "keys" / "node.key")
    shown = run.ok("id", "--key", key, "--create")
    assert run.ok("id", "--key", key) == shown
    assert run.ok("id", "--key", key, "--create") == shown


def test_without_an_identity_the_way_to_make_one_is_said(run: Runner) -> None:
    for command in (["id"], ["node"], ["serve"], ["resolve", str(Identity.generate(os.urandom).address)]):
        assert "make one with: a2al-trio id --create" in run.fails(*command)


def test_a_wrong_passphrase_is_said(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(tmp_path / "node.key")
    monkeypatch.setenv("A2AL_TRIO_PASSPHRASE", "right")
    shown = run.ok("id", "--key", key, "--create", "--encrypt")
    assert run.ok("id", "--key", key) == shown
    monkeypatch.setenv("A2AL_TRIO_PASSPHRASE", "wrong")
    assert "wrong passphrase" in run.fails("id", "--key", key)


def test_a_port_in_use_is_said(run: Runner, tmp_path: Path) -> None:
    key = str(tmp_path / "node.key")
    run.ok("id", "--key", key, "--create")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = run.fails("node", "--key", key, "--listen", address)
    assert address in message
    assert "another program has the port" in message


def test_wrong_words_are_explained(run: Runner, tmp_path: Path) -> None:
    key = str(tmp_path / "node.key")
    run.ok("id", "--key", key, "--create")
    aid = str(Identity.generate(os.urandom).address)
    assert "is not an AID" in run.fails("resolve", "--key", key, "nonsense")
    assert "write IP:port" in run.fails("node", "--key", key, "--listen", "nonsense")
    assert "is not host:port" in run.fails("node", "--key", key, "-b", "nonsense")
    assert "is not HOST:PORT" in run.fails("serve", "--key", key, "--forward", "nonsense")
    assert "is not IP:port" in run.fails("connect", "--key", key, "--at", "nonsense", aid)
    assert "could be found" in run.fails("resolve", "--key", key, "--listen", "127.0.0.1:0", aid)
