"""Files from agent to agent: offered by name, size and hash, resumed where the last try broke off, checked at the end.

One stream per file. The sender begins with a line of JSON, `{"name", "size", "sha256"}`; the receiver answers with
`{"offset"}`, how many bytes it has already, or `{"error"}`. The bytes from there follow, then the end of the stream;
the receiver has the last word with `{"saved"}`, the name it kept the file by, or `{"error"}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from a2al_trio.errors import A2alError, DecodeError, StreamStopped
from a2al_trio.host.connection import AgentConnection
from a2al_trio.quic import QuicStream

__all__ = ["FileOffer", "FileReceiver", "TransferFailed", "hash_file", "send_file"]

LINE_LIMIT = 4096
CHUNK = 256 * 1024
LINE_WAIT = 30.0
"""Seconds the other side has for a line."""
MAX_SIZE = 1 << 50
NAME_SIZE = 180
"""Bytes of a file name; file systems take 255, and we may append a number."""


class TransferFailed(A2alError):
    """A file did not get across; the message says why. What has arrived is kept, and a further try goes on there."""


@attrs.frozen
class FileOffer:
    """A file that somebody wants to send."""

    name: str
    size: int
    sha256: str

    @classmethod
    def decode(cls, line: bytes) -> FileOffer:
        """Read the sender's line; raises DecodeError. A name is reduced to what is safe in any directory."""
        fields = _decode(line)
        name, size, digest = fields.get("name"), fields.get("size"), fields.get("sha256")
        if not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
            raise DecodeError("a file offer says the size in bytes")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise DecodeError("a file offer says the SHA-256 as 64 hex digits")
        return cls(safe_name(name if isinstance(name, str) else ""), size, digest)

    def encode(self) -> bytes:
        """The sender's line."""
        return _encode(attrs.asdict(self))


def safe_name(name: str) -> str:
    """The last part of a path, without what hides a file or means something to a terminal or file system."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(character if character.isprintable() and character not in '<>:"|?*' else "_" for character in last)
    short = kept.lstrip(". ").encode("utf-8", "replace")[:NAME_SIZE].decode("utf-8", "ignore")
    return short.rstrip(". ") or "file"


async def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> tuple[int, str]:
    """Size and SHA-256 of a file, in hex; `progress` is told the bytes read so far."""
    digest, size = hashlib.sha256(), 0
    async with await trio.open_file(path, "rb") as file:
        while chunk := await file.read(CHUNK):
            await trio.to_thread.run_sync(digest.update, chunk)
            size += len(chunk)
            if progress is not None:
                progress(size)
    return size, digest.hexdigest()


async def send_file(
    connection: AgentConnection,
    path: Path,
    *,
    name: str = "",
    reading: Callable[[int, int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Send a file to the agent of a connection, from where an earlier try broke off; returns the name it got there.

    `progress` is told bytes sent and bytes in all, first with the bytes that are there already; `reading` likewise,
    before that, of the bytes hashed. Raises TransferFailed if the receiver does not want it or did not get it whole,
    OSError if it cannot be read, and ConnectionLost.
    """
    total = (await trio.Path(path).stat()).st_size
    size, digest = await hash_file(path, None if reading is None else lambda done: reading(done, total))
    offer = FileOffer(name or path.name, size, digest)
    async with await connection.open_stream() as stream:
        try:
            await stream.send_all(offer.encode())
            offset = _verdict(await _receive_line(stream)).get("offset")
            if not isinstance(offset, int) or not 0 <= offset <= size:
                raise TransferFailed("the receiver wants the file from a place that it does not have")
            # A receiver that stops reading has said why.
            with contextlib.suppress(StreamStopped):
                await _send_content(stream, path, offset, size, progress)
            await stream.send_eof()
            # The receiver may have to read through gigabytes before it knows.
            return str(_verdict(await _receive_line(stream, wait=float("inf"))).get("saved", ""))
        except DecodeError as error:
            raise TransferFailed(f"the agent does not speak our file protocol: {error}") from error


async def _send_content(
    stream: QuicStream, path: Path, offset: int, size: int, progress: Callable[[int, int], None] | None
) -> None:
    async with await trio.open_file(path, "rb") as file:
        await file.seek(offset)
        if progress is not None:
            progress(offset, size)
        while chunk := await file.read(CHUNK):
            await stream.send_all(chunk)
            offset += len(chunk)
            if progress is not None:
                progress(offset, size)


@attrs.define(eq=False)
class FileReceiver:
    """Takes the files that streams begin with into a directory."""

    directory: Path

    accept: Callable[[FileOffer], str | None] = lambda offer: None
    """Says why an offer is not wanted, or None."""

    progress: Callable[[FileOffer, int], None] | None = None
    """Told how many bytes of a file are here."""

    _arriving: set[str] = attrs.field(factory=set)

    async def receive(self, stream: QuicStream) -> Path:
        """Take one file; returns where it is. An existing file is never overwritten.

        Raises TransferFailed, OSError if the file cannot be written, and what the stream raises.
        """
        async with stream:
            try:
                offer = FileOffer.decode(await _receive_line(stream))
            except DecodeError as error:
                raise await _refuse(stream, str(error)) from error
            if reason := self.accept(offer):
                raise await _refuse(stream, reason)
            if offer.sha256 in self._arriving:
                raise await _refuse(stream, "the same file is arriving already")
            self._arriving.add(offer.sha256)
            try:
                kept = await self._take(stream, offer)
            except OSError as error:
                await _refuse(stream, f"it cannot write the file: {error.strerror or 'input/output error'}")
                raise
            finally:
                self._arriving.discard(offer.sha256)
            await stream.send_all(_encode({"saved": kept.name}))
        return kept

    async def _take(self, stream: QuicStream, offer: FileOffer) -> Path:
        partial = self.directory / f".{offer.sha256}.part"
        await self._take_content(stream, offer, partial)
        _, digest = await hash_file(partial)
        if digest != offer.sha256:
            partial.unlink()
            raise await _refuse(stream, "what arrived has another hash; it was thrown away")
        return _keep(partial, self.directory, offer.name)

    async def _take_content(self, stream: QuicStream, offer: FileOffer, partial: Path) -> None:
        async with await trio.open_file(partial, "ab") as file:
            have = await file.tell()
            if have > offer.size:
                have = await file.truncate(0)
            await stream.send_all(_encode({"offset": have}))
            while chunk := await stream.receive_some(CHUNK):
                have += len(chunk)
                if have > offer.size:
                    raise await _refuse(stream, "more came than was offered")
                await file.write(chunk)
                if self.progress is not None:
                    self.progress(offer, have)
        if have < offer.size:
            raise await _refuse(stream, f"only {have} of {offer.size} bytes came")


def _keep(partial: Path, directory: Path, name: str) -> Path:
    """Give the file its name, or the next free one like it.

    An empty file made with the name takes it; only then ours takes that one's place, so nothing is lost even if
    others do the same. (Hard links would do it in one step, but not every file system has them.)
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(1, 10_000):
        target = directory / (name if number == 1 else f"{stem} ({number}){suffix}")
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            continue
        return partial.replace(target)
    raise TransferFailed(f"there are too many files called {name}")


async def _refuse(stream: QuicStream, reason: str) -> TransferFailed:
    await stream.send_all(_encode({"error": reason}))
    await stream.send_eof()
    stream.stop(0)
    return TransferFailed(reason)


def _verdict(line: bytes) -> dict[str, Any]:
    fields = _decode(line)
    if "error" in fields:
        raise TransferFailed(f"the receiver says: {str(fields['error'])[:200]}")
    return fields


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not a line of JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DecodeError("not a JSON object")
    return fields


async def _receive_line(stream: QuicStream, wait: float = LINE_WAIT) -> bytes:
    """The next line and not a byte more."""
    line = bytearray()
    with trio.move_on_after(wait):
        while len(line) < LINE_LIMIT and (byte := await stream.receive_some(1)):
            line += byte
            if byte == b"\n":
                return bytes(line)
    raise DecodeError("no line came")
