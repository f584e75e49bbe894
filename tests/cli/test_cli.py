"""The command line: the demo runs by itself, every command explains itself, and mistakes are explained."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio
from click.testing import CliRunner

from a2al_trio import ConfigurationError, ConnectError, ConnectionLost, HostConfig, Identity
from a2al_trio.cli.commands import commands, load_command
from a2al_trio.cli.node_options import join
from a2al_trio.cli.running import explained
from a2al_trio.cli.telling import tell
from a2al_trio.errors import CloseCause
from a2al_trio.testing import open_simnet
from a2al_trio.testing.hosts import open_sim_host
from tests.cli.commands import fails, ok

ROOT = Path(__file__).parents[2]
AID = str(Identity.from_seed(bytes(32)).address)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_demo_meets_and_echoes(no_leaks: None) -> None:
    output = ok("demo", "--nodes", "4")
    assert "echoed     hello from the other side" in output
    assert output.rstrip().endswith("done")


def test_the_demo_as_data(no_leaks: None) -> None:
    facts = json.loads(ok("demo", "--nodes", "2", "--json"))
    assert (facts["nodes"], facts["echoed"]) == (2, "hello from the other side")


def test_an_identity_is_made_once_and_shown(tmp_path: Path) -> None:
    key = str(tmp_path / "keys" / "node.key")
    shown = ok("id", "--key", key, "--create")
    assert ok("id", "--key", key) == shown
    assert ok("id", "--key", key, "--create") == shown
    facts = json.loads(ok("id", "--key", key, "--json"))
    assert (facts["aid"], facts["key"]) == (shown.strip(), key)


def test_a_key_that_was_not_named_is_made() -> None:
    for _ in range(2):
        # The network is the next thing missing.
        assert "name a node of it" in fails("resolve", AID, "--listen", "127.0.0.1:0")
    assert re.fullmatch(r"\w{42}\n", ok("id"))


def test_a_key_that_was_named_is_not(tmp_path: Path) -> None:
    key = str(tmp_path / "none.key")
    for command in (["id"], ["node"], ["serve"], ["resolve", AID], ["forward", AID], ["delegate", "--master", key]):
        named = [] if command[0] == "delegate" else ["--key", key]
        assert f"make one with: a2al-trio id --key {key} --create" in fails(*command, *named)


def test_a_wrong_passphrase_is_said(tmp_path: Path) -> None:
    key, right = str(tmp_path / "node.key"), {"A2AL_TRIO_PASSPHRASE": "right"}
    shown = ok("id", "--key", key, "--create", "--encrypt", env=right)
    assert ok("id", "--key", key, env=right) == shown
    assert "wrong passphrase" in fails("id", "--key", key, code=2, env={"A2AL_TRIO_PASSPHRASE": "wrong"})


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = fails("node", "--listen", address)
    assert address in message
    assert "another program has the port" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resolve", "nonsense"], "an AID is what `a2al-trio id` prints"),
        (["resolve", AID[:-1]], "an AID is what `a2al-trio id` prints"),
        (["resolve", AID.swapcase()], "check for a typing error"),
        (["idd"], "Did you mean 'id'?"),
        (["node", "--listen", "nonsense"], "write IP:port"),
        (["node", "-b", "nonsense"], "is not HOST:PORT, such as"),
        (["node", "-b", "[::1]"], "is not HOST:PORT, such as"),
        (["node", "-b", "a b:1"], "is not HOST:PORT, such as"),
        (["node", "--advertise", "http://host"], "leave out scheme and port"),
        (["node", "--advertise", "192.0.2.1:4121"], "leave out scheme and port"),
        (["node", "--data-dir", "file"], "is a file"),
        (["node", "--config", "none.toml"], "none.toml: No such file"),
        (["node", "--config", "file"], "not valid TOML"),
        (["node", "--agents", "none.json", "--listen", "127.0.0.1:0"], "a2al-trio delegate --agents none.json"),
        (["node", "--key", "file"], "run chmod 600 on it"),
        (["serve", "--forward", "nonsense"], "neither a port nor HOST:PORT"),
        (["expose", "70000"], "neither a port nor HOST:PORT"),
        (["connect", "--at", "localhost:1", AID], "write IP:port such as"),
        (["forward", AID, "--listen", "127.0.0.1:70000"], "not in 0..65535"),
        (["receive"], "--allow AID for each sender, or --anyone"),
        (["receive", "--anyone", "--allow", AID], "--allow AID for each sender, or --anyone"),
        (["receive", "--anyone", "--dir", "none"], "does not exist"),
        (["send", "none", AID], "does not exist"),
        (["send", ".", AID], "is a directory"),
        (["send", "file", AID, "--listen", "127.0.0.1:0"], "name a node of it with --bootstrap"),
        (["doctor", "--web", "host"], "write https://host/path"),
    ],
)
def test_wrong_words_are_explained(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("]")
    (tmp_path / "file").chmod(0o644)
    assert message in fails(*arguments)


def test_wrong_settings_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('lisen_addr = ":4121"\n')
    assert "unknown setting 'lisen_addr'; did you mean listen_addr?" in fails("node", "--config", str(file))
    assert "did you mean" in fails("node", env={"A2AL_TRIO_CONFIG": str(file)})
    assert "A2AL_LISTENN" in fails("node", env={"A2AL_LISTENN": ":4121"})


def test_settings_of_a_file_count_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('bootstrap = ["nonsense"]\n')
    assert "bootstrap: 'nonsense'" in fails("node", "--config", str(file))
    file.write_text(f'data_dir = "{tmp_path}/state"\n')
    assert "listen: 'nonsense'" in fails("node", "--config", str(file), "--listen", "nonsense")
    assert "settings.toml/state: Not a directory" in fails("node", "--data-dir", f"{file}/state", code=1)
    assert "name a node of it" in fails("forward", AID, "--config", str(file), "--listen", "0")
    assert (tmp_path / "state").exists()


async def test_a_silent_node_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet(seed=1) as net, open_sim_host(net.host("alone"), Identity.from_seed(bytes(32))) as host:
        config = HostConfig(bootstrap=("192.0.2.1:4121",))
        with pytest.raises(ConnectError, match=r"no answer from 192\.0\.2\.1:4121: .*a2al-trio doctor -b 192\.0"):
            await join(host, config)
        with pytest.raises(ConfigurationError, match="name a node of it"):
            await join(host, HostConfig())


@pytest.mark.parametrize("name", commands.commands)
def test_every_command_has_help(name: str) -> None:
    text = ok(name, "--help")
    assert text.startswith("Usage")
    command = load_command(name)
    assert command.name == name
    assert commands.commands[name].short_help == (command.help or "").split("\n")[0]
    for option in command.params:
        assert isinstance(option, click.Argument) or option.help, f"{name}: {option.name}"


def test_data_is_there_as_json() -> None:
    without = {name for name in commands.commands if all(p.name != "as_json" for p in load_command(name).params)}
    assert without == {"connect"}, "its standard output is the agent's"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConnectionLost(CloseCause.IDLE), 1, "Error: idle timeout"),
        (ConfigurationError("write it so"), 2, "Error: write it so"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), 1, "Error: file: No space left on device"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_are_explained_wherever_they_come_from(error: BaseException, code: int, said: str) -> None:
    for raised in (error, BaseExceptionGroup("", [BaseExceptionGroup("", [error]), error])):

        @click.command()
        def command(raised: BaseException = raised) -> None:
            with explained():
                raise raised

        result = CliRunner().invoke(command)
        assert (result.exit_code, result.stderr.strip()) == (code, said)


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup), explained():
        raise ExceptionGroup("", [ConfigurationError("x"), ZeroDivisionError()])


def test_who_stops_reading_ends_the_command_quietly() -> None:
    command = [sys.executable, "-m", "a2al_trio", "demo", "--nodes", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(20) == 1


def test_no_colour_where_it_is_not_wanted() -> None:
    coloured: dict[str, str | None] = {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": None}
    for environment, has in ((coloured, True), ({**coloured, "NO_COLOR": "1"}, False)):
        said = CliRunner().invoke(commands, ["doctor", "--listen", "127.0.0.1:0"], env=environment, color=True).stdout
        assert bool(re.search(r"\x1b\[3\dm", said)) == has


def test_text_from_elsewhere_is_no_markup(capfd: pytest.CaptureFixture[str]) -> None:
    tell("listens", "[fe80::1%eth0]:4121 [/] [bold]" + "x" * 200)
    assert capfd.readouterr().err == "listens   [fe80::1%eth0]:4121 [/] [bold]" + "x" * 200 + "\n"
