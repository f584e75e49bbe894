"""The three cipher suites QUIC uses (RFC 8446 §B.4, RFC 9001 §5.3) and what each one asks of its keys."""

from __future__ import annotations

import enum
from typing import Final, Literal

__all__ = ["CipherSuite"]


class CipherSuite(enum.IntEnum):
    """A TLS 1.3 cipher suite; the number is its TLS code point."""

    hash_name: Literal["sha256", "sha384"]
    hash_size: int
    key_size: int
    confidentiality_limit: int
    """Packets that may be sealed with one key (RFC 9001 §6.6)."""
    integrity_limit: int
    """Forged packets that may be seen before the connection must close (RFC 9001 §6.6)."""

    AES_128_GCM_SHA256 = 0x1301
    AES_256_GCM_SHA384 = 0x1302
    CHACHA20_POLY1305_SHA256 = 0x1303

    @property
    def is_aes(self) -> bool:
        """Whether packets and headers are protected with AES."""
        return self is not CipherSuite.CHACHA20_POLY1305_SHA256


_UNLIMITED: Final = 1 << 62  # ChaCha20-Poly1305 outlives the packet number space

for _suite in CipherSuite:
    _suite.hash_name = "sha384" if _suite is CipherSuite.AES_256_GCM_SHA384 else "sha256"
    _suite.hash_size = 48 if _suite is CipherSuite.AES_256_GCM_SHA384 else 32
    _suite.key_size = 16 if _suite is CipherSuite.AES_128_GCM_SHA256 else 32
    _suite.confidentiality_limit = 1 << 23 if _suite.is_aes else _UNLIMITED
    _suite.integrity_limit = 1 << 52 if _suite.is_aes else 1 << 36
