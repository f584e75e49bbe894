"""Proving to a hub that a registration is the agent's own (spec 06 D8). Pure.

The protocol reserves the field `s` of a registration and says nothing about it; hubs that do not know this form skip
it. Ours lets nobody take an agent away from a registration that is proven. The proof names the hub, as the client
dialled it, and the time, so that it is worth nothing elsewhere or later.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from a2al_trio.identity import Address, Identity, InvalidAddress, InvalidDelegation, decode_delegation
from a2al_trio.identity.ed25519 import verify

__all__ = ["PROOF_LIFE", "is_proven", "prove_registration"]

PROOF_LIFE: Final = 300
"""Seconds by which the clocks of client and hub may differ."""

_VERSION: Final = 1
_CONTEXT: Final = b"a2al-hub-reg\0"
_FIXED_SIZE: Final = 1 + 8 + 32 + 64


def prove_registration(identity: Identity, hub: str, *, unix_time: int) -> str:
    """Return the text for `s`: `identity` registers itself at the hub with this authority (`host:port`)."""
    time = unix_time.to_bytes(8, "big")
    signature = identity.sign(_signed(time, str(identity.address), hub))
    raw = bytes([_VERSION]) + time + identity.public_key + signature + (identity.delegation or b"")
    return _text(raw)


def is_proven(agent: str, proof: str, hub: str, *, unix_time: int) -> bool:
    """Whether `proof` shows that `agent` itself registers at this hub now; any text is an answer, no an error."""
    try:
        raw = base64.b64decode(proof + "=" * (-len(proof) % 4), altchars=b"-_", validate=True)
        address = Address.parse(agent)
    except (binascii.Error, ValueError, InvalidAddress):
        return False
    # One proof has one text: the decoder would also take "+" for "-", and any padding bits.
    if len(raw) < _FIXED_SIZE or raw[0] != _VERSION or _text(raw) != proof:
        return False
    time, key, signature, delegation = raw[1:9], raw[9:41], raw[41:105], raw[105:]
    if abs(int.from_bytes(time, "big") - unix_time) > PROOF_LIFE:
        return False
    if not verify(key, _signed(time, agent, hub), signature):
        return False
    if not delegation:
        return Address.from_public_key(key) == address
    try:
        granted = decode_delegation(delegation)
        granted.verify(now=unix_time, operational_key=key)
    except InvalidDelegation:
        return False
    return granted.agent == address


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _signed(time: bytes, agent: str, hub: str) -> bytes:
    return _CONTEXT + time + hub.lower().encode() + b"\0" + agent.encode()
