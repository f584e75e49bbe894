"""Key exchange: X25519 (RFC 7748), P-256, and X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem), which is both at once.

A client calls `offer_share` and later `complete` on what it returned; a server answers with `answer_share` in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from a2al_trio.quic.tls.codepoints import AlertDescription, NamedGroup
from a2al_trio.quic.tls.errors import TlsAlert

__all__ = ["OfferedShare", "answer_share", "offer_share"]

Entropy = Callable[[int], bytes]

_X25519_SIZE = 32
_MLKEM_KEY_SIZE = 1184
_MLKEM_CIPHERTEXT_SIZE = 1088
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class OfferedShare(Protocol):
    """Our half of a key exchange, waiting for the server's."""

    public: bytes
    """What the server is sent."""

    def complete(self, peer_public: bytes) -> bytes:
        """Return the shared secret; raises illegal_parameter for a share no honest peer sends."""


@attrs.define
class _X25519Share:
    public: bytes
    _private: X25519PrivateKey

    @classmethod
    def generate(cls, entropy: Entropy) -> _X25519Share:
        private = X25519PrivateKey.from_private_bytes(entropy(_X25519_SIZE))
        return cls(private.public_key().public_bytes_raw(), private)

    def complete(self, peer_public: bytes) -> bytes:
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as error:  # a wrong length, or a point of small order (RFC 8446 §7.4.2)
            raise _bad_share("X25519") from error


@attrs.define
class _P256Share:
    public: bytes
    _private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls, entropy: Entropy) -> _P256Share:
        # 16 bytes more than the order has make the remainder's bias negligible (FIPS 186-5 §A.2.1).
        scalar = int.from_bytes(entropy(48), "big") % (_P256_ORDER - 1) + 1
        private = ec.derive_private_key(scalar, ec.SECP256R1())
        public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return cls(public, private)

    def complete(self, peer_public: bytes) -> bytes:
        if peer_public[:1] != b"\x04":  # RFC 8446 §4.2.8.2: uncompressed points only
            raise _bad_share("P-256")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer_public)
        except ValueError as error:
            raise _bad_share("P-256") from error
        return self._private.exchange(ec.ECDH(), point)


@attrs.define
class _HybridShare:
    public: bytes
    _lattice: MLKEM768PrivateKey
    _curve: _X25519Share

    @classmethod
    def generate(cls, entropy: Entropy) -> _HybridShare:
        lattice = MLKEM768PrivateKey.from_seed_bytes(entropy(64))
        curve = _X25519Share.generate(entropy)
        return cls(lattice.public_key().public_bytes_raw() + curve.public, lattice, curve)

    def complete(self, peer_public: bytes) -> bytes:
        if len(peer_public) != _MLKEM_CIPHERTEXT_SIZE + _X25519_SIZE:
            raise _bad_share("X25519MLKEM768")
        secret = self._lattice.decapsulate(peer_public[:_MLKEM_CIPHERTEXT_SIZE])
        return secret + self._curve.complete(peer_public[_MLKEM_CIPHERTEXT_SIZE:])


_GENERATE: dict[NamedGroup, Callable[[Entropy], OfferedShare]] = {
    NamedGroup.X25519: _X25519Share.generate,
    NamedGroup.SECP256R1: _P256Share.generate,
    NamedGroup.X25519MLKEM768: _HybridShare.generate,
}


def offer_share(group: NamedGroup, entropy: Entropy) -> OfferedShare:
    """Make a client's half of a key exchange."""
    return _GENERATE[group](entropy)


def answer_share(group: NamedGroup, peer_public: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
    """Return a server's share and the shared secret; raises illegal_parameter for a share no honest peer sends.

    ML-KEM draws the randomness of its ciphertext from the library, not from `entropy`.
    """
    if group is not NamedGroup.X25519MLKEM768:
        share = offer_share(group, entropy)
        return share.public, share.complete(peer_public)
    try:
        lattice = MLKEM768PublicKey.from_public_bytes(peer_public[:_MLKEM_KEY_SIZE])
    except ValueError as error:
        raise _bad_share("X25519MLKEM768") from error
    curve = _X25519Share.generate(entropy)
    curve_secret = curve.complete(peer_public[_MLKEM_KEY_SIZE:])
    secret, ciphertext = lattice.encapsulate()
    return ciphertext + curve.public, secret + curve_secret


def _bad_share(group: str) -> TlsAlert:
    return TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"the peer's {group} key share is not one")
