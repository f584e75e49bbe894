"""What can be wrong with an address, a delegation proof, a certificate or a key file (spec 01 §8)."""

from __future__ import annotations

from a2al_trio.errors import ConfigurationError, DecodeError

__all__ = [
    "IdentityDecodeError",
    "InvalidAddress",
    "InvalidCertificate",
    "InvalidDelegation",
    "KeyFileError",
    "WrongPassphrase",
]


class IdentityDecodeError(DecodeError):
    """Identity material from outside is malformed or does not prove what it claims."""


class InvalidAddress(IdentityDecodeError):
    """Neither 21 bytes nor any of the text forms of an agent address (spec 01 §2)."""


class InvalidDelegation(IdentityDecodeError):
    """A delegation proof is malformed, badly signed, expired or for something else (spec 01 §6)."""


class InvalidCertificate(IdentityDecodeError):
    """A peer's certificate does not authenticate an agent (spec 04 §4.5 to §4.7)."""


class KeyFileError(ConfigurationError):
    """A key or registry file cannot be used; the message names the file and the fix (spec 01 §4)."""


class WrongPassphrase(KeyFileError):
    """An encrypted key does not open: the passphrase is wrong or the data is damaged (spec 01 §4.3)."""
