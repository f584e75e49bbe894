"""Reading and writing the fields that message bodies are made of (spec 02 §6).

The readers take a decoded map and a key, and raise InvalidMessage naming the field; the writers raise WireEncodeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from a2al_trio.cbor import CborMap, CborValue, head
from a2al_trio.wire.errors import InvalidMessage, InvalidRecord, WireEncodeError
from a2al_trio.wire.nodes import NodeInfo, node_from_map
from a2al_trio.wire.records import SignedRecord, record_from_map

__all__ = [
    "encode_address",
    "encode_array",
    "exactly",
    "fixed_bytes",
    "flag",
    "nested_record",
    "node_list",
    "observed_address",
    "uint8",
]


def encode_array(items: Sequence[bytes] | None) -> bytes:
    """An array of encoded items; None is written as null."""
    return b"\xf6" if items is None else head(0x80, len(items)) + b"".join(items)


def encode_address(observed: bytes) -> bytes:
    """The byte string of 6 or 18 address bytes."""
    if len(observed) == 6:
        return b"\x46" + observed
    if len(observed) == 18:
        return b"\x52" + observed
    raise WireEncodeError(f"an observed address has 6 or 18 bytes, not {len(observed)}")


BytesT = TypeVar("BytesT", bound=bytes)


def exactly(value: BytesT, length: int, name: str) -> BytesT:
    """The value itself, if it has `length` bytes."""
    if len(value) != length:
        raise WireEncodeError(f"{name} has {length} bytes, not {len(value)}")
    return value


def fixed_bytes(fields: CborMap, key: int, length: int, name: str) -> bytes:
    """A required byte string of one length."""
    value = fields.get(key)
    if not isinstance(value, bytes) or len(value) != length:
        raise InvalidMessage(f"{name} is not {length} bytes")
    return value


def observed_address(fields: CborMap, key: int) -> bytes:
    """A required address of 6 or 18 bytes."""
    value = fields.get(key)
    if not isinstance(value, bytes) or len(value) not in (6, 18):
        raise InvalidMessage("observed address is not 6 or 18 bytes")
    return value


def uint8(fields: CborMap, key: int, name: str) -> int:
    """An optional 8-bit number, 0 if absent."""
    value = fields.get(key, 0)
    if type(value) is not int or not 0 <= value <= 0xFF:
        raise InvalidMessage(f"{name} is not an 8-bit number")
    return value


def flag(fields: CborMap, key: int, name: str) -> bool:
    """An optional boolean, False if absent."""
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise InvalidMessage(f"{name} is not a boolean")
    return value


def node_list(fields: CborMap) -> tuple[NodeInfo, ...] | None:
    """The nodes under key 1, which must be there; None if null."""
    nodes = fields.get(1, 0)
    if nodes is None:
        return None
    if not isinstance(nodes, list):
        raise InvalidMessage("nodes is not a list")
    return tuple(map(node_from_map, nodes))


def nested_record(fields: CborValue, data: bytes) -> SignedRecord:
    """A record inside a body; only its structure is checked (spec 02 §13)."""
    try:
        return record_from_map(fields, data)
    except InvalidRecord as error:
        raise InvalidMessage(str(error)) from error
