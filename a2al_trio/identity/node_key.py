"""Text form of a node's key file: hex of seed and public key (spec 01 §4.4)."""

from __future__ import annotations

from a2al_trio.identity.ed25519 import SigningKey
from a2al_trio.identity.errors import KeyFileError

__all__ = ["decode_private_key", "encode_private_key"]

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def encode_private_key(key: SigningKey) -> str:
    """128 lower-case hex digits, no line end."""
    return key.private_key.hex()


def decode_private_key(text: str) -> SigningKey:
    """Read the text of a key file; spaces, tabs and line ends around it are ignored.

    Raises `KeyFileError` when it is not 64 bytes of hex, or when its public half belongs to another seed.
    """
    digits = text.strip(" \n\r\t")
    if len(digits) != 128 or not _HEX_DIGITS.issuperset(digits):
        raise KeyFileError("a key file holds 128 hex digits and nothing else; restore it or remove it for a new key")
    try:
        return SigningKey.from_private_key(bytes.fromhex(digits))
    except ValueError as error:
        raise KeyFileError(f"{error}; restore the key file from a backup") from None
