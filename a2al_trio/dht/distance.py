"""XOR distance between 32-byte ids (spec 03 §1), on integers: Python compares and XORs those fastest."""

from __future__ import annotations

from a2al_trio.identity.address import NodeId
from a2al_trio.machine import Entropy

__all__ = ["ID_BITS", "as_int", "bucket_index", "random_id_in_bucket", "to_node_id"]

ID_BITS = 256


def as_int(node_id: bytes) -> int:
    """The id as a 256-bit big-endian number."""
    return int.from_bytes(node_id, "big")


def to_node_id(number: int) -> NodeId:
    """The id with that number."""
    return NodeId(number.to_bytes(32, "big"))


def bucket_index(a: int, b: int) -> int:
    """The number of leading bits both share, 256 if they are equal (spec 03 §3.1)."""
    return ID_BITS - (a ^ b).bit_length()


def random_id_in_bucket(own: int, index: int, entropy: Entropy) -> int:
    """An id that shares exactly `index` leading bits with `own` and is random after that (spec 03 §3.6)."""
    below = ID_BITS - 1 - index
    flipped = own ^ (1 << below)
    mask = (1 << below) - 1
    return (flipped & ~mask) | (int.from_bytes(entropy(32), "big") & mask)
