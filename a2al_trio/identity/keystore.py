"""One identity key under a passphrase: the 95-byte `a2al-k1` blob (spec 01 §4.3).

Argon2id takes 64 MiB and about 0.15 s on purpose; call these before `trio.run` or in a worker thread. The libraries
take keys as immutable `bytes`, so secrets cannot be wiped from memory here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl import bindings
from nacl.exceptions import CryptoError

from a2al_trio.identity.errors import WrongPassphrase

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BLOB_SIZE", "STORAGE_KEY", "decrypt_seed", "encrypt_seed"]

BLOB_SIZE = 95
STORAGE_KEY = "identity.ed25519"
"""Usual file name of the blob."""

_MAGIC = b"a2al-k1"
_SALT_SIZE = 16
_NONCE_SIZE = 24
_HEADER_SIZE = len(_MAGIC) + _SALT_SIZE + _NONCE_SIZE


def encrypt_seed(seed: bytes, passphrase: bytes, *, entropy: Callable[[int], bytes]) -> bytes:
    """Blob of a 32-byte Ed25519 seed. The passphrase is taken as it is, the empty one included."""
    salt, nonce = entropy(_SALT_SIZE), entropy(_NONCE_SIZE)
    key = _derive_key(passphrase, salt)
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(seed, b"", nonce, key)
    return _MAGIC + salt + nonce + sealed


def decrypt_seed(blob: bytes, passphrase: bytes) -> bytes:
    """The 32-byte seed in `blob`.

    Raises `WrongPassphrase` for any defect: a damaged blob cannot be told from a wrong passphrase.
    """
    if len(blob) != BLOB_SIZE or not blob.startswith(_MAGIC):
        raise WrongPassphrase("this is not an encrypted identity key (95 bytes that begin with a2al-k1)")
    salt, nonce = blob[len(_MAGIC) : len(_MAGIC) + _SALT_SIZE], blob[_HEADER_SIZE - _NONCE_SIZE : _HEADER_SIZE]
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            blob[_HEADER_SIZE:], b"", nonce, _derive_key(passphrase, salt)
        )
    except CryptoError:
        raise WrongPassphrase("wrong passphrase, or the encrypted identity key is damaged") from None


def _derive_key(passphrase: bytes, salt: bytes) -> bytes:
    return Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024).derive(passphrase)
