"""The JSON cache of peers to start from next time (spec 03 §13)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from a2al_trio.identity.errors import KeyFileError

__all__ = ["MAX_PEERS", "decode_peers", "encode_peers"]

MAX_PEERS = 64


def encode_peers(peers: Sequence[str]) -> str:
    """Text of the file for the first 64 of `peers`, each `ip:port` with IPv6 in brackets."""
    return json.dumps({"peers": list(peers[:MAX_PEERS])}, indent=2)


def decode_peers(text: str) -> tuple[str, ...]:
    """At most 64 peers of a file. Raises `KeyFileError`; the file is a cache and may simply be removed."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeyFileError(f"the peers file is not valid JSON ({error}); remove it") from None
    if document is None:
        return ()
    peers = document.get("peers", []) if isinstance(document, dict) else None
    if not isinstance(peers, list) or not all(isinstance(peer, str) for peer in peers):
        raise KeyFileError("the peers file holds no list of texts named peers; remove it")
    return tuple(peers[:MAX_PEERS])
