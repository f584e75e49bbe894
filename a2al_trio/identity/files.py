"""Key files on disk: read with care, written whole or not at all, never readable by others (spec 01 §4.4, §10.2).

These functions block for a few milliseconds (0.2 s with a passphrase); call them before `trio.run` or in a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from a2al_trio.identity.ed25519 import SigningKey
from a2al_trio.identity.errors import KeyFileError
from a2al_trio.identity.identity import Identity
from a2al_trio.identity.keystore import decrypt_seed, encrypt_seed
from a2al_trio.identity.node_key import decode_private_key, encode_private_key

__all__ = ["load_identity", "load_or_create_identity", "read_private_file", "write_private_file"]

_MAX_FILE_SIZE = 16 * 1024 * 1024


def load_or_create_identity(path: str | Path, *, passphrase: bytes | None = None) -> Identity:
    """Read the identity kept at `path`, or make a new one and keep it there with mode 0600.

    Without a passphrase the file holds the key in hex, as the reference daemon's `node.key`; with one it is
    encrypted. Raises `KeyFileError` (`WrongPassphrase`) when the file is there and cannot be used.
    """
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        return load_identity(path, passphrase=passphrase)
    key = SigningKey.generate(os.urandom)
    if passphrase is None:
        content = encode_private_key(key).encode("ascii")
    else:
        content = encrypt_seed(key.seed, passphrase, entropy=os.urandom)
    write_private_file(path, content, replace=False)
    return Identity.from_key(key)


def load_identity(path: str | Path, *, passphrase: bytes | None = None) -> Identity:
    """Read the identity kept at `path`. Raises `FileNotFoundError`, `KeyFileError` or `WrongPassphrase`."""
    content = read_private_file(path)
    try:
        if passphrase is not None:
            return Identity.from_seed(decrypt_seed(content, passphrase))
        if content.startswith(b"a2al-k1"):
            raise KeyFileError("the key is encrypted; give its passphrase")
        return Identity.from_key(decode_private_key(content.decode("utf-8", "replace")))
    except KeyFileError as error:
        raise type(error)(f"{path}: {error}") from None


def read_private_file(path: str | Path) -> bytes:
    """Content of a file that only its owner may read.

    Raises `FileNotFoundError` when there is none and `KeyFileError` when it cannot be read or others may read it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise KeyFileError(f"{path} holds a private key and other users may open it; run chmod 600 on it")
            content = file.read(_MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_SIZE:
        raise KeyFileError(f"{path} is too big to be a key file")
    return content


def write_private_file(path: str | Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file of mode 0600 atomically: readers see the old content or the new, also after a crash.

    Missing parent directories are made with mode 0700. Raises `KeyFileError` when it cannot be written or, without
    `replace`, when the file exists.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _make_private_directories(path.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            if not replace and path.exists():
                raise FileExistsError
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except FileExistsError:
        raise KeyFileError(f"{path} exists already; another process may have just made it") from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from error


def _make_private_directories(directory: Path) -> None:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable, where directories can be opened at all."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
