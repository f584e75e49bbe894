"""Parsing certificates that strangers send.

The parser of the library is asked only for what is plausible, and every way it fails becomes `PeerRejected`.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from a2al_trio.quic.tls.codepoints import AlertDescription
from a2al_trio.quic.tls.errors import PeerRejected

__all__ = ["MAX_CERTIFICATE_SIZE", "load_certificate", "load_public_key"]

MAX_CERTIFICATE_SIZE: Final = 16_384
"""Bytes of one certificate; those of the web have one or two thousand."""

_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse one certificate; raises `PeerRejected` (bad_certificate)."""
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise PeerRejected(f"a certificate of {len(der)} bytes; the limit is {MAX_CERTIFICATE_SIZE}")
    if not _serial_is_positive(der):
        raise PeerRejected("the certificate does not begin like one, or its serial number is not positive")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise PeerRejected(f"the certificate does not parse: {error}") from error


def load_public_key(der: bytes) -> CertificatePublicKeyTypes:
    """Return the key of a certificate; raises `PeerRejected` (bad_certificate or unsupported_certificate)."""
    try:
        return load_certificate(der).public_key()
    except UnsupportedAlgorithm as error:
        reason = "the certificate has an unknown kind of key"
        raise PeerRejected(reason, AlertDescription.UNSUPPORTED_CERTIFICATE) from error
    except ValueError as error:
        raise PeerRejected(f"the certificate's key does not parse: {error}") from error


def _serial_is_positive(der: bytes) -> bool:
    """Whether the bytes begin as a certificate with a positive serial number does (RFC 5280 §4.1.2.2).

    The library takes any serial but warns of it, and a peer must not be able to make this process print warnings.
    """
    try:
        at = _content(der, 0, _SEQUENCE)  # Certificate
        at = _content(der, at, _SEQUENCE)  # TBSCertificate
        if der[at] == _VERSION:
            at = _content(der, at, _VERSION) + 3
        at = _content(der, at, _INTEGER)
        return der[at] < 0x80 and any(der[at : at + der[at - 1]])
    except IndexError:
        return False


def _content(der: bytes, at: int, tag: int) -> int:
    """Return where the content of the element at `at` begins; `IndexError` unless it has this tag."""
    if der[at] != tag:
        raise IndexError
    return at + 2 + (der[at + 1] & 0x7F if der[at + 1] & 0x80 else 0)
