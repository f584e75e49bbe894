"""The two hash functions of chain addresses that `hashlib` does not reliably offer (spec 01 §5).

Few programs meet such an address, and the library is slow to load: it is imported by the first that does.
"""

from __future__ import annotations

import hashlib

__all__ = ["hash160", "keccak256"]


def keccak256(data: bytes) -> bytes:
    """Keccak-256 with the original padding; SHA3-256 differs."""
    from Crypto.Hash import keccak

    return keccak.new(digest_bits=256, data=data).digest()


def hash160(data: bytes) -> bytes:
    """RIPEMD-160 of SHA-256: 20 bytes. OpenSSL 3 may lack RIPEMD-160, hence not `hashlib`."""
    from Crypto.Hash import RIPEMD160

    return RIPEMD160.new(hashlib.sha256(data).digest()).digest()
