"""The doctor: asks only whom it is told to, and tells what it found."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from click.testing import CliRunner

from a2al_trio.cli.commands import commands
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from tests.nat.stun_server import StunServer


@contextmanager
def stun_server() -> Iterator[SocketAddress]:
    """A STUN server on loopback, in a thread of its own: the command has an event loop of its own."""
    found: list[SocketAddress] = []
    started, stop = threading.Event(), trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        async with open_udp(SocketAddress("127.0.0.1", 0)) as socket:
            found.append(socket.local_address)
            token.append(trio.lowlevel.current_trio_token())
            started.set()
            with stop:
                await StunServer(socket).run()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    started.wait(5)
    try:
        yield found[0]
    finally:
        token[0].run_sync_soon(stop.cancel)
        thread.join(5)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(commands, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_nobody_is_asked_unless_named(no_leaks: None) -> None:
    output = run()
    assert "nobody was asked" in output
    assert "Being dialled" in output


def test_findings_and_conclusions_as_data(no_leaks: None) -> None:
    with stun_server() as server:
        data = json.loads(run("--json", "--listen", "127.0.0.1:0", "--stun", f"stun:{server}", "--stun", str(server)))
    local = data["findings"]["local_address"]
    assert {finding["mapped"] for finding in data["findings"]["stun"]} == {local}
    assert {"subject": "UDP", "level": "good", "text": "works"} in data["verdicts"]


@pytest.mark.parametrize("server", ["stun:127.0.0.1:x", "127.0.0.1:99999"])
def test_servers_that_do_not_resolve_are_told(server: str, no_leaks: None) -> None:
    assert "does not resolve" in " ".join(run("--stun", server).split())


def test_a_wrong_address_is_the_users_mistake() -> None:
    result = CliRunner().invoke(commands, ["doctor", "--listen", "nonsense"])
    assert result.exit_code != 0
    assert "--listen" in result.output
