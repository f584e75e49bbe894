"""The files of a node's data directory, read once at the start and written atomically (spec 03 §13, §14).

These functions block; call them in a thread. A file that is missing or cannot be used is no reason not to start.
"""

from __future__ import annotations

import logging
from pathlib import Path

import attrs

from a2al_trio.identity.errors import KeyFileError
from a2al_trio.identity.files import write_private_file
from a2al_trio.identity.peers_file import decode_peers, encode_peers
from a2al_trio.net.address import SocketAddress

__all__ = ["SavedState", "load_state", "save_state"]

logger = logging.getLogger(__name__)

PEERS = "peers.cache"
SEEN = "seen_peers.dat"
PUBLISHED = "published.cbor"
MAX_FILE = 16 * 1024 * 1024


@attrs.frozen
class SavedState:
    """What a data directory holds: addresses to start from, the text of the seen-peers file, published records."""

    peers: tuple[SocketAddress, ...] = ()
    seen: str = ""
    published: bytes = b""


def load_state(directory: Path) -> SavedState:
    """Read the files; what is missing or broken counts as empty and is logged."""
    peers: list[SocketAddress] = []
    try:
        for text in decode_peers(_read(directory / PEERS).decode("utf-8", "replace") or "null"):
            peers.append(SocketAddress.parse(text))
    except (KeyFileError, ValueError) as error:
        logger.warning("ignoring %s: %s", directory / PEERS, error)
    seen = _read(directory / SEEN).decode("ascii", "replace")
    return SavedState(tuple(peers), seen, _read(directory / PUBLISHED))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        logger.warning("cannot read %s: %s", path, error.strerror)
        return b""


def save_state(directory: Path, state: SavedState) -> None:
    """Write the files, each whole or not at all; trouble is logged."""
    contents = {
        PEERS: encode_peers([str(peer) for peer in state.peers]).encode(),
        SEEN: state.seen.encode(),
        PUBLISHED: state.published,
    }
    for name, content in contents.items():
        try:
            write_private_file(directory / name, content)
        except KeyFileError as error:
            logger.warning("cannot keep the state of the DHT: %s", error)
