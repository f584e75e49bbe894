"""Files from agent to agent on loopback: whole, resumed, refused."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import DecodeError
from a2al_trio.host import AgentConnection
from a2al_trio.http.files import NAME_SIZE, FileOffer, FileReceiver, TransferFailed, hash_file, safe_name, send_file
from tests.http.world import open_loopback_hosts

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1024 * 1024


@attrs.frozen
class Transfer:
    """A sender's connection and what the receiver said of each stream."""

    connection: AgentConnection
    receiver: FileReceiver
    outcomes: list[object]


@asynccontextmanager
async def open_transfer(directory: Path) -> AsyncIterator[Transfer]:
    receiver, outcomes = FileReceiver(directory), list[object]()

    async def handle(connection: AgentConnection) -> None:
        async for stream in connection:
            try:
                outcomes.append(await receiver.receive(stream))
            except (TransferFailed, OSError, trio.BrokenResourceError) as error:
                outcomes.append(error)

    with trio.fail_after(20):
        async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
            await nursery.start(callee.serve, handle)
            async with caller.connect(callee.address) as connection:
                yield Transfer(connection, receiver, outcomes)
            nursery.cancel_scope.cancel()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def contents(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def make_file(directory: Path, size: int, name: str = "file.bin") -> tuple[Path, bytes]:
    path, data = directory / name, os.urandom(size)
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 1])
async def test_a_file_arrives_whole(tmp_path: Path, inbox: Path, size: int) -> None:
    path, data = make_file(tmp_path, size)
    seen: list[tuple[int, int]] = []
    async with open_transfer(inbox) as transfer:
        assert await send_file(transfer.connection, path, progress=lambda *now: seen.append(now)) == "file.bin"
    assert transfer.outcomes == [inbox / "file.bin"]
    assert (inbox / "file.bin").read_bytes() == data
    assert contents(inbox) == [inbox / "file.bin"]
    assert seen[-1:] == [(size, size)][: len(seen)]


async def test_existing_files_stay(tmp_path: Path, inbox: Path) -> None:
    (inbox / "file.bin").write_bytes(b"mine")
    path, _ = make_file(tmp_path, 100)
    async with open_transfer(inbox) as transfer:
        assert await send_file(transfer.connection, path) == "file (2).bin"
        assert await send_file(transfer.connection, path) == "file (3).bin"
    assert (inbox / "file.bin").read_bytes() == b"mine"


async def test_a_broken_transfer_goes_on_where_it_was(tmp_path: Path, inbox: Path) -> None:
    path, data = make_file(tmp_path, 8 * MIB)
    async with open_transfer(inbox) as transfer:
        with trio.CancelScope() as scope:
            await send_file(
                transfer.connection, path, progress=lambda sent, size: scope.cancel() if sent > 5 * MIB else None
            )
        assert scope.cancelled_caught
        while not transfer.outcomes:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert isinstance(transfer.outcomes[0], trio.BrokenResourceError)
        [partial] = contents(inbox)
        had = partial.stat().st_size
        assert MIB < had < 8 * MIB
        seen: list[int] = []
        await send_file(transfer.connection, path, progress=lambda sent, size: seen.append(sent))
        assert seen[0] == had
    assert (inbox / "file.bin").read_bytes() == data


async def test_a_wrong_beginning_is_thrown_away(tmp_path: Path, inbox: Path) -> None:
    path, data = make_file(tmp_path, 1000)
    _, digest = await hash_file(path)
    partial = inbox / f".{digest}.part"
    async with open_transfer(inbox) as transfer:
        partial.write_bytes(bytes(500))
        with pytest.raises(TransferFailed, match="another hash"):
            await send_file(transfer.connection, path)
        assert not partial.exists()
        partial.write_bytes(bytes(2000))
        await send_file(transfer.connection, path)
    assert (inbox / "file.bin").read_bytes() == data


async def test_what_is_not_wanted_is_refused_with_the_reason(tmp_path: Path, inbox: Path) -> None:
    path, _ = make_file(tmp_path, 5 * MIB)
    async with open_transfer(inbox) as transfer:
        transfer.receiver.accept = lambda offer: f"{offer.size} bytes are too many"
        with pytest.raises(TransferFailed, match=r"the receiver says: 5242880 bytes are too many"):
            await send_file(transfer.connection, path)
        transfer.receiver.accept = lambda offer: None
        transfer.receiver.directory = inbox / "missing"
        with pytest.raises(TransferFailed, match="cannot write"):
            await send_file(transfer.connection, path)
    assert not contents(inbox)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "no line"),
        (b"GET / HTTP/1.1\r\n", "not a line of JSON"),
        (b"x" * 5000, "no line"),
        (b"[]\n", "not a JSON object"),
        (b"[" * 4000 + b"\n", "not a line of JSON"),
        (b'{"name": "a", "size": -1}\n', "size in bytes"),
        (b'{"name": "a", "size": 1, "sha256": "../../etc"}\n', "64 hex digits"),
        (FileOffer("a", 1, "0" * 64).encode() + b"toolong", "more came"),
        (FileOffer("a", 9, "0" * 64).encode() + b"short", "only 5 of 9"),
        (FileOffer("a", 5, "0" * 64).encode() + b"other", "another hash"),
    ],
)
async def test_bad_senders_are_told(inbox: Path, sent: bytes, reason: str) -> None:
    async with open_transfer(inbox) as transfer:
        stream = await transfer.connection.open_stream()
        await stream.send_all(sent)
        await stream.send_eof()
        answer = await stream.receive_all(limit=10_000)
        assert reason in json.loads(answer.splitlines()[-1])["error"]


async def test_a_receiver_of_something_else_is_noticed(tmp_path: Path) -> None:
    path, _ = make_file(tmp_path, 100)

    async def handle(connection: AgentConnection) -> None:
        async for stream in connection:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(callee.serve, handle)
        async with caller.connect(callee.address) as connection:
            with pytest.raises(TransferFailed, match="does not speak"):
                await send_file(connection, path)
        nursery.cancel_scope.cancel()


@given(st.binary(max_size=300))
def test_any_offer_is_read_or_refused(data: bytes) -> None:
    try:
        offer = FileOffer.decode(data)
    except DecodeError:
        return
    assert FileOffer.decode(offer.encode()) == offer


@given(st.text(max_size=400))
def test_names_are_safe_anywhere(name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\<>:"|?*\0\n\x1b')
    assert not safe.startswith((".", " "))
    assert len(safe.encode()) <= NAME_SIZE
