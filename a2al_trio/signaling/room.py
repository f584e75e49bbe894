"""The name under which two agents meet at a hub (spec 06 §2)."""

from __future__ import annotations

import hashlib

__all__ = ["room_id"]


def room_id(one: str, other: str) -> str:
    """Return the room of two agents, given by their AID display texts in either order: 32 hex digits."""
    low, high = sorted((one.encode(), other.encode()))
    return hashlib.sha256(low + b"\n" + high).digest()[:16].hex()
