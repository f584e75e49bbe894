"""Ed25519 in one place: every signature of the protocol is made and judged here (RFC 8032, spec 01 §3).

libsodium is used because it verifies almost twice as fast as OpenSSL; where PyNaCl cannot be imported, OpenSSL
serves with the same verdicts. Verification is cofactorless and strict: S below the group order, and neither
the key nor R may be one of the small-order points, so no key exists under which many messages verify.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

try:
    from nacl import bindings as _sodium
    from nacl.exceptions import BadSignatureError

    _HAVE_SODIUM = True
except ImportError:
    _HAVE_SODIUM = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["PRIVATE_KEY_SIZE", "PUBLIC_KEY_SIZE", "SIGNATURE_SIZE", "SigningKey", "verify"]

PUBLIC_KEY_SIZE = 32
SIGNATURE_SIZE = 64
PRIVATE_KEY_SIZE = 64
"""Size of the storage form: seed, then public key."""

_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255
# y coordinates of the eight points whose order divides 8.
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset((0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y))


@attrs.frozen(repr=False)
class SigningKey:
    """An Ed25519 private key. `seed` is the 32-byte secret; the rest follows from it."""

    seed: bytes
    public_key: bytes = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if len(self.seed) != 32:
            raise ValueError(f"an Ed25519 seed has 32 bytes, not {len(self.seed)}")
        public_key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        object.__setattr__(self, "public_key", public_key)

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Self:
        """Make a new key from 32 bytes of `entropy`."""
        return cls(entropy(32))

    @classmethod
    def from_private_key(cls, private_key: bytes) -> Self:
        """Read the 64-byte storage form (seed, public key).

        Raises `ValueError` when the halves do not belong together: signing under a foreign public half would
        give the secret scalar away (spec 01 §10).
        """
        if len(private_key) != PRIVATE_KEY_SIZE:
            raise ValueError(f"an Ed25519 private key is stored in 64 bytes, not {len(private_key)}")
        key = cls(private_key[:32])
        if key.public_key != private_key[32:]:
            raise ValueError("the public half of the Ed25519 key does not belong to its seed")
        return key

    @property
    def private_key(self) -> bytes:
        """The 64-byte storage form: seed, then public key."""
        return self.seed + self.public_key

    def sign(self, message: bytes) -> bytes:
        """64-byte signature of `message`."""
        if not _HAVE_SODIUM:
            return _sign_openssl(self.seed, message)
        return _sodium.crypto_sign(message, self.seed + self.public_key)[:SIGNATURE_SIZE]

    def __repr__(self) -> str:
        return f"SigningKey(public_key={self.public_key.hex()})"


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public_key`'s over `message`. Wrong lengths are simply no."""
    if len(public_key) != PUBLIC_KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    if not _HAVE_SODIUM:
        return _verify_openssl(public_key, message, signature)
    try:
        _sodium.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def _sign_openssl(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def _verify_openssl(public_key: bytes, message: bytes, signature: bytes) -> bool:
    key_y = int.from_bytes(public_key, "little") & _SIGN_BIT - 1
    r_y = int.from_bytes(signature[:32], "little") & _SIGN_BIT - 1
    if key_y >= _FIELD_PRIME or key_y in _SMALL_ORDER_Y or r_y % _FIELD_PRIME in _SMALL_ORDER_Y:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
