"""CertificateVerify (RFC 8446 §4.4.3): proving to hold a certificate's key, and checking that proof."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from a2al_trio.quic.tls.codepoints import AlertDescription, SignatureScheme
from a2al_trio.quic.tls.config import PrivateKey
from a2al_trio.quic.tls.errors import PeerRejected, TlsAlert
from a2al_trio.quic.tls.extensions import VERIFIABLE_SCHEMES
from a2al_trio.quic.tls.loading import load_public_key
from a2al_trio.quic.tls.messages import CertificateVerify

__all__ = ["check_certificate_verify", "choose_scheme", "sign_transcript"]

_CONTEXT = {
    True: b" " * 64 + b"TLS 1.3, server CertificateVerify\0",
    False: b" " * 64 + b"TLS 1.3, client CertificateVerify\0",
}
_RSA_HASHES: dict[int, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    SignatureScheme.RSA_PSS_RSAE_SHA256: hashes.SHA256(),
    SignatureScheme.RSA_PSS_RSAE_SHA384: hashes.SHA384(),
    SignatureScheme.RSA_PSS_RSAE_SHA512: hashes.SHA512(),
}
MAX_RSA_BITS = 8192
"""Larger keys would cost a verifier more time than any honest peer asks for."""


def choose_scheme(key: PrivateKey, peer_schemes: Iterable[int]) -> SignatureScheme | None:
    """Return the scheme to sign with, or None when the peer accepts none that `key` can do."""
    possible: tuple[SignatureScheme, ...]
    if isinstance(key, Ed25519PrivateKey):
        possible = (SignatureScheme.ED25519,)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        possible = (SignatureScheme.ECDSA_SECP256R1_SHA256,)
    else:
        possible = (SignatureScheme.RSA_PSS_RSAE_SHA256, SignatureScheme.RSA_PSS_RSAE_SHA384)
    accepted = set(peer_schemes)
    return next((scheme for scheme in possible if scheme in accepted), None)


def sign_transcript(key: PrivateKey, scheme: SignatureScheme, transcript_hash: bytes, *, as_server: bool) -> bytes:
    """Return the body of our CertificateVerify."""
    content = _CONTEXT[as_server] + transcript_hash
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(content)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(content, ec.ECDSA(hashes.SHA256()))
    else:
        digest = _RSA_HASHES[scheme]
        signature = key.sign(content, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return scheme.to_bytes(2, "big") + len(signature).to_bytes(2, "big") + signature


def check_certificate_verify(
    leaf: bytes, verify: CertificateVerify, transcript_hash: bytes, *, from_server: bool
) -> None:
    """Check the peer's CertificateVerify against its leaf certificate (DER).

    Raises bad_certificate when the leaf does not parse, unsupported_certificate for a kind of key we do not know,
    illegal_parameter for a scheme we did not offer or that does not fit the key, decrypt_error for a wrong signature.
    """
    if verify.scheme not in VERIFIABLE_SCHEMES:
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"signature scheme {verify.scheme:#06x} was not offered")
    try:
        key = load_public_key(leaf)
    except PeerRejected as rejection:
        raise TlsAlert(rejection.alert, rejection.reason) from rejection
    content = _CONTEXT[from_server] + transcript_hash
    scheme, signature = verify.scheme, verify.signature
    try:
        if isinstance(key, Ed25519PublicKey) and scheme == SignatureScheme.ED25519:
            key.verify(signature, content)
        elif isinstance(key, ec.EllipticCurvePublicKey) and (digest := _ecdsa_hash(key, scheme)) is not None:
            key.verify(signature, content, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey) and scheme in _RSA_HASHES:
            if key.key_size > MAX_RSA_BITS:
                raise TlsAlert(AlertDescription.UNSUPPORTED_CERTIFICATE, f"an RSA key of {key.key_size} bits")
            rsa_digest = _RSA_HASHES[scheme]
            key.verify(signature, content, padding.PSS(padding.MGF1(rsa_digest), rsa_digest.digest_size), rsa_digest)
        elif isinstance(key, (Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the signature scheme does not fit the certificate")
        else:
            raise TlsAlert(AlertDescription.UNSUPPORTED_CERTIFICATE, "a certificate with an unknown kind of key")
    except InvalidSignature as error:
        raise TlsAlert(AlertDescription.DECRYPT_ERROR, "the peer does not hold its certificate's key") from error


def _ecdsa_hash(key: ec.EllipticCurvePublicKey, scheme: int) -> hashes.SHA256 | hashes.SHA384 | None:
    """TLS 1.3 ties each curve to one hash."""
    if isinstance(key.curve, ec.SECP256R1) and scheme == SignatureScheme.ECDSA_SECP256R1_SHA256:
        return hashes.SHA256()
    if isinstance(key.curve, ec.SECP384R1) and scheme == SignatureScheme.ECDSA_SECP384R1_SHA384:
        return hashes.SHA384()
    return None
