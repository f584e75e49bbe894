"""What a node keeps across restarts: contacts, whom it met, and the records it publishes (spec 03 §13, §14)."""

from __future__ import annotations

from collections.abc import Iterable

from a2al_trio.cbor import CborDecodeError, decode, encode
from a2al_trio.dht.units import Unit
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.errors import WireDecodeError
from a2al_trio.wire.records import SignedRecord, decode_record

__all__ = ["decode_published", "encode_published"]

PUBLISHED_LIMIT = 10_000


def encode_published(units: Iterable[Unit]) -> bytes:
    """The records kept alive, each with its key, as one CBOR array."""
    return encode([[bytes(unit.key), unit.record.encoded] for unit in units])


def decode_published(data: bytes, unix_now: int) -> list[tuple[NodeId, SignedRecord]]:
    """The records of a file that have not expired; what is malformed in it is left out.

    Signatures are checked when the records are published again.
    """
    try:
        items = decode(data)
    except CborDecodeError:
        return []
    found: list[tuple[NodeId, SignedRecord]] = []
    for item in items[:PUBLISHED_LIMIT] if isinstance(items, list) else ():
        if not isinstance(item, list) or len(item) != 2:
            continue
        key, encoded = item
        if not isinstance(key, bytes) or len(key) != 32 or not isinstance(encoded, bytes):
            continue
        try:
            record = decode_record(encoded)
        except WireDecodeError:
            continue
        if record.expires_at >= unix_now:
            found.append((NodeId(key), record))
    return found
