"""`expose` and `forward`, `receive` and `send`: two commands meet on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from a2al_trio import Identity
from tests.cli.commands import HERE, Command, fails, make_key, ok, running


def test_a_port_leads_to_an_exposed_service(tmp_path: Path) -> None:
    forwarder = make_key(tmp_path, "forward")
    allowed = ok("id", "--key", forwarder).strip()
    with socket.create_server(("127.0.0.1", 0)) as service:

        def greet() -> None:
            for _ in range(2):
                connection, _ = service.accept()
                with connection:
                    connection.sendall(b"hello " + connection.recv(100))

        threading.Thread(target=greet, daemon=True).start()
        port = str(service.getsockname()[1])
        arguments = ("expose", port, "--key", make_key(tmp_path, "expose"), "--allow", allowed, "--json", *HERE)
        with running(*arguments) as exposed:
            exposed.wait_for(rf"exposes +(127.0.0.1:{port})")
            facts = json.loads(exposed.wait_for(r"^(\{.*\})$"))
            assert facts["endpoints"] == [f"quic://{facts['listen']}"]
            with running("forward", facts["aid"], "--key", forwarder, "-b", facts["listen"]) as forward:
                host, _, local_port = forward.wait_for(r"^(127\.0\.0\.1:\d+)$").partition(":")
                for name in (b"alice", b"bob"):
                    with socket.create_connection((host, int(local_port))) as client:
                        client.sendall(name)
                        assert client.recv(100) == b"hello " + name


# --- files --------------------------------------------------------------------------------------------------------

SIZE = 128_000_000


@attrs.frozen
class Inbox:
    """A running `receive`."""

    folder: Path
    command: Command
    aid: str
    address: str
    sender: str

    def send(self, file: Path) -> dict[str, object]:
        facts = json.loads(ok("send", str(file), self.aid, "--at", self.address, "--key", self.sender, "--json"))
        assert isinstance(facts, dict)
        return facts


@contextlib.contextmanager
def open_inbox(tmp_path: Path, *options: str, prefix: tuple[str, ...] = ()) -> Iterator[Inbox]:
    folder = tmp_path / "inbox"
    folder.mkdir()
    arguments = ("receive", "--anyone", "--dir", str(folder), "--key", make_key(tmp_path, "in"), *options, *HERE)
    with running(*arguments, prefix=prefix) as receive:
        aid = receive.wait_for(r"^(\w{42})$")
        address = receive.wait_for(r"listens +(\S+)")
        yield Inbox(folder, receive, aid, address, make_key(tmp_path, "out"))


def make_file(tmp_path: Path, size: int) -> Path:
    path = tmp_path / "letter.txt"
    path.write_bytes(os.urandom(size))
    return path


def test_a_file_is_sent_and_received(tmp_path: Path) -> None:
    file = make_file(tmp_path, 300_000)
    with open_inbox(tmp_path, "--once") as inbox:
        sent = inbox.send(file)
        assert (sent["saved"], sent["aid"], sent["size"]) == ("letter.txt", inbox.aid, 300_000)
        assert str(sent["path"]).startswith("direct 127.0.0.1:")
        assert sent["resumed_at"] == 0
        assert inbox.command.process.wait(10) == 0
    assert (inbox.folder / "letter.txt").read_bytes() == file.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_a_file_goes_on_where_an_interrupt_broke_it_off(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    with file.open("wb") as content:
        content.truncate(SIZE)  # much, so that there is time to break it off
    with open_inbox(tmp_path) as inbox:
        arguments = ("send", str(file), inbox.aid, "--at", inbox.address, "--key", inbox.sender)
        with running(*arguments) as broken:
            broken.wait_for("(connected)")
            while sum(path.stat().st_size for path in inbox.folder.glob("*.part")) < 100_000:
                assert broken.process.poll() is None, "it was faster than this test"
            broken.process.send_signal(signal.SIGINT)
            assert broken.process.wait(20) == 130
        inbox.command.wait_for(r"(not received from \w{42}: )")
        [partial] = inbox.folder.iterdir()
        had = partial.stat().st_size
        assert 100_000 <= had < SIZE
        assert inbox.send(file)["resumed_at"] == had
    assert (inbox.folder / "letter.txt").stat().st_size == SIZE


def test_a_file_that_is_too_big_is_refused(tmp_path: Path) -> None:
    file = make_file(tmp_path, 1001)
    with open_inbox(tmp_path, "--max-size", "1000") as inbox:
        said = fails("send", str(file), inbox.aid, "--at", inbox.address, "--key", inbox.sender, code=1)
    assert "the receiver says: 1001 bytes are too many; it takes 1000" in said
    assert not list(inbox.folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a process's files")
def test_a_full_disk_is_said_on_both_sides(tmp_path: Path) -> None:
    file = make_file(tmp_path, 9_000_000)
    # A limit on file sizes stands for the disk: it fails in the same place.
    with open_inbox(tmp_path, prefix=("sh", "-c", 'ulimit -f 4096; exec "$@"', "sh")) as inbox:
        said = fails("send", str(file), inbox.aid, "--at", inbox.address, "--key", inbox.sender, code=1)
        assert "the receiver says: it cannot write the file: File too large" in said
        assert inbox.command.wait_for(r"not received from \w{42}: (.*)") == "File too large"


def test_mistakes_are_explained(tmp_path: Path) -> None:
    some_key, aid = make_key(tmp_path, "some"), str(Identity.generate(os.urandom).address)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "choose another port" in fails("forward", aid, "--listen", address, "--key", some_key)
