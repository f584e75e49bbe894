"""Signed text messages of chain keys: Ethereum personal_sign and Bitcoin signmessage (spec 01 §5).

Both give 65-byte signatures from which the signer's public key is recovered, so an address of 20 bytes is all a
verifier needs. Signing is deterministic (RFC 6979) and always gives the low S; verification takes either S.
"""

from __future__ import annotations

import hashlib

from coincurve import PrivateKey, PublicKey

from a2al_trio.identity.address import Address
from a2al_trio.identity.hashes import hash160, keccak256

__all__ = [
    "SIGNATURE_SIZE",
    "ethereum_address",
    "ethereum_digest",
    "paralism_address",
    "paralism_digest",
    "public_key",
    "sign_ethereum",
    "sign_paralism",
    "verify_ethereum",
    "verify_paralism",
]

SIGNATURE_SIZE = 65

_ETHEREUM_PREFIX = b"\x19Ethereum Signed Message:\n"
_BITCOIN_PREFIX = b"\x18Bitcoin Signed Message:\n"
_RECOVERY_BASE = 27  # what both conventions add to the recovery id
_COMPRESSED = 4  # what signmessage adds for a key that is hashed in its compressed form


def public_key(private_key: bytes, *, compressed: bool = True) -> bytes:
    """SEC1 encoding (33 or 65 bytes) of the public key of a 32-byte private key.

    Raises `ValueError` when the private key is not a scalar of the group.
    """
    return PrivateKey(private_key).public_key.format(compressed=compressed)


def ethereum_address(key: bytes) -> Address:
    """Ethereum address of a SEC1 public key of either form (spec 01 §1.1)."""
    return Address(b"\xa3" + _ethereum_hash(PublicKey(key)))


def paralism_address(key: bytes) -> Address:
    """Paralism address of a SEC1 public key; each form of the same key has its own (spec 01 §1.1)."""
    return Address(b"\xa2" + hash160(key))


def ethereum_digest(message: bytes) -> bytes:
    """EIP-191 digest of a personal_sign message."""
    return keccak256(_ETHEREUM_PREFIX + str(len(message)).encode("ascii") + message)


def paralism_digest(message: bytes) -> bytes:
    """Double SHA-256 digest of a Bitcoin signmessage text."""
    body = _BITCOIN_PREFIX + _compact_size(len(message)) + message
    return hashlib.sha256(hashlib.sha256(body).digest()).digest()


def sign_ethereum(private_key: bytes, message: bytes) -> bytes:
    """Signature r, s, v with v 27 or 28."""
    signature = PrivateKey(private_key).sign_recoverable(ethereum_digest(message), hasher=None)
    return signature[:64] + bytes((_RECOVERY_BASE + signature[64],))


def sign_paralism(private_key: bytes, message: bytes, *, compressed: bool = True) -> bytes:
    """Signature header, r, s; the header also says which form of the public key is hashed."""
    signature = PrivateKey(private_key).sign_recoverable(paralism_digest(message), hasher=None)
    header = _RECOVERY_BASE + signature[64] + (_COMPRESSED if compressed else 0)
    return bytes((header,)) + signature[:64]


def verify_ethereum(address: Address, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the personal_sign of `message` by the owner of `address`; the version is not looked at."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    recovery_id = signature[64] if signature[64] < _RECOVERY_BASE else signature[64] - _RECOVERY_BASE
    if recovery_id > 1:
        return False
    key = _recover(signature[:64], recovery_id, ethereum_digest(message))
    return key is not None and _ethereum_hash(key) == address[1:]


def verify_paralism(address: Address, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the signmessage of `message` by the owner of `address`; the version is not looked at."""
    if len(signature) != SIGNATURE_SIZE or not 27 <= signature[0] <= 34:
        return False  # 35 to 42 would be the segwit headers
    flags = signature[0] - _RECOVERY_BASE
    key = _recover(signature[1:], flags & 3, paralism_digest(message))
    return key is not None and hash160(key.format(compressed=bool(flags & _COMPRESSED))) == address[1:]


def _recover(signature: bytes, recovery_id: int, digest: bytes) -> PublicKey | None:
    try:
        return PublicKey.from_signature_and_message(signature + bytes((recovery_id,)), digest, hasher=None)
    except ValueError:
        return None


def _ethereum_hash(key: PublicKey) -> bytes:
    return keccak256(key.format(compressed=False)[1:])[12:]


def _compact_size(number: int) -> bytes:
    """Bitcoin's variable-length integer."""
    if number < 0xFD:
        return bytes((number,))
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFFFFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")
