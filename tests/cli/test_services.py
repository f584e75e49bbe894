"""`expose` and `forward`, `receive` and `send`: two commands meet on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from a2al_trio import Identity
from a2al_trio.cli import main


def key(tmp_path: Path, name: str) -> str:
    path = tmp_path / f"{name}.key"
    CliRunner().invoke(main, ["id", "--key", str(path), "--create"])
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
def running(*arguments: str) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-m", "a2al_trio", *arguments],
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


HERE = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1")


def test_a_port_leads_to_an_exposed_service(tmp_path: Path) -> None:
    forwarder = key(tmp_path, "forward")
    allowed = CliRunner().invoke(main, ["id", "--key", forwarder]).output.strip()
    with socket.create_server(("127.0.0.1", 0)) as service:

        def greet() -> None:
            for _ in range(2):
                connection, _ = service.accept()
                with connection:
                    connection.sendall(b"hello " + connection.recv(100))

        threading.Thread(target=greet, daemon=True).start()
        port = str(service.getsockname()[1])
        with running("expose", port, "--key", key(tmp_path, "expose"), "--allow", allowed, *HERE) as exposed:
            aid = exposed.wait_for(r"^(\w{42})$")
            address = exposed.wait_for(r"listens (\S+)")
            exposed.wait_for(rf"exposes (127.0.0.1:{port})")
            with running("forward", aid, "--key", forwarder, "-b", address) as forward:
                host, _, local_port = forward.wait_for(r"^(127\.0\.0\.1:\d+)$").partition(":")
                for name in (b"alice", b"bob"):
                    with socket.create_connection((host, int(local_port))) as client:
                        client.sendall(name)
                        assert client.recv(100) == b"hello " + name


def test_a_file_is_sent_and_received(tmp_path: Path) -> None:
    file, inbox = tmp_path / "letter.txt", tmp_path / "inbox"
    file.write_bytes(os.urandom(300_000))
    inbox.mkdir()
    with running("receive", "--anyone", "--once", "--dir", str(inbox), "--key", key(tmp_path, "in"), *HERE) as receive:
        aid = receive.wait_for(r"^(\w{42})$")
        address = receive.wait_for(r"listens (\S+)")
        receive.wait_for(r"(takes files)")
        sent = CliRunner().invoke(
            main, ["send", str(file), aid, "--at", address, "--key", key(tmp_path, "out"), "--json"]
        )
        assert sent.exit_code == 0, sent.output
        found = json.loads(sent.stdout)
        assert (found["saved"], found["aid"]) == ("letter.txt", aid)
        assert found["path"].startswith("direct 127.0.0.1:")
        assert receive.process.wait(10) == 0
    assert (inbox / "letter.txt").read_bytes() == file.read_bytes()


def test_mistakes_are_explained(tmp_path: Path) -> None:
    some_key, aid = key(tmp_path, "some"), str(Identity.generate(os.urandom).address)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments, message in (
            (["expose", "nonsense", "--key", some_key], "neither a port nor HOST:PORT"),
            (["expose", "70000", "--key", some_key], "neither a port nor HOST:PORT"),
            (["forward", aid, "--listen", address, "--key", some_key], "choose another port"),
            (["receive", "--key", some_key], "--allow AID for each sender, or --anyone"),
            (["send", "/nonexistent", aid, "--key", some_key], "does not exist"),
        ):
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code != 0
            assert message in re.sub(r"\s+", " ", result.output)
            assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("command", ["expose", "forward", "send", "receive"])
def test_help_is_there(command: str) -> None:
    assert "Usage" in CliRunner().invoke(main, [command, "--help"]).output
