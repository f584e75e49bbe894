"""The self-signed certificates agents show each other, and what one proves (spec 04 §4.2 to §4.7).

A certificate carries an Ed25519 key; TLS proves possession of it. It authenticates the address of that key or, when
the delegation extension is present, the address whose owner delegated to that key. An extension that is there
must hold: nobody falls back to the key's own address (spec 04 §17 D1 to D3). Validity dates, names and the
self-signature mean nothing to the protocol and are not looked at.
"""

from __future__ import annotations

import datetime
import warnings
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from a2al_trio.cbor import CborDecodeError
from a2al_trio.cbor import decode as decode_cbor
from a2al_trio.cbor import encode as encode_cbor
from a2al_trio.errors import IdentityMismatch
from a2al_trio.identity.address import Address
from a2al_trio.identity.delegation import CLOCK_TOLERANCE, decode_delegation
from a2al_trio.identity.errors import InvalidAddress, InvalidCertificate, InvalidDelegation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from a2al_trio.identity.identity import Identity

__all__ = [
    "CERTIFICATE_LIFETIME",
    "DELEGATION_EXTENSION",
    "MAX_CERTIFICATE_SIZE",
    "certificate_renewal_time",
    "make_certificate",
    "peer_address",
    "verify_peer",
]

DELEGATION_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.999999.1")
CERTIFICATE_LIFETIME = 365 * 24 * 3600
"""Seconds a new certificate is dated to be valid."""
MAX_CERTIFICATE_SIZE = 8192
"""Longest certificate that is parsed; the longest an honest agent has is about 1 KiB."""

_BACKDATING = 3600
_OCTET_STRING = 0x04


def make_certificate(identity: Identity, *, now: float, entropy: Callable[[int], bytes]) -> bytes:
    """DER of a new certificate for `identity`, signed by its operational key and dated from `now` (Unix seconds)."""
    key = Ed25519PrivateKey.from_private_bytes(identity.key.seed)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a2al")])
    serial = int.from_bytes(entropy(16), "big") >> 1 or 1  # RFC 5280 §4.1.2.2: positive
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(_date(now - _BACKDATING))
        .not_valid_after(_date(now + CERTIFICATE_LIFETIME))
        .add_extension(_SIGNATURES_ONLY, critical=True)
        .add_extension(_BOTH_SIDES, critical=False)
    )
    if identity.delegation is not None:
        content = encode_cbor({1: identity.address, 2: identity.delegation})
        extension = x509.UnrecognizedExtension(DELEGATION_EXTENSION, _encode_octet_string(content))
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, None).public_bytes(Encoding.DER)


def certificate_renewal_time(certificate: bytes) -> float:
    """When to replace one of our own certificates: halfway through its life, in Unix seconds."""
    parsed = x509.load_der_x509_certificate(certificate)
    begin, end = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    return (begin + end) / 2


def peer_address(chain: Sequence[bytes], *, now: float, tolerance: float = CLOCK_TOLERANCE) -> Address:
    """The address that a peer's certificate chain (DER, leaf first) authenticates at `now` (Unix seconds).

    Only the leaf counts. Raises `InvalidCertificate`; a delegation that does not hold is no less a failure than a
    certificate that does not parse. `tolerance` is the grace for an expired delegation, in seconds.
    """
    if not chain:
        raise InvalidCertificate("the peer sent no certificate")
    public_key, extension = _read_leaf(chain[0])
    if extension is None:
        return Address.from_public_key(public_key)
    address, encoded_proof = _decode_extension(extension)
    try:
        proof = decode_delegation(encoded_proof)
        proof.verify(now=now, tolerance=tolerance, operational_key=public_key)
    except InvalidDelegation as error:
        raise InvalidCertificate(f"the certificate claims {address}, but {error}") from error
    if proof.agent != address:
        raise InvalidCertificate(f"the certificate claims {address}, but its delegation is by {proof.agent}")
    return address


def verify_peer(
    chain: Sequence[bytes], expect: Address | None, *, now: float, tolerance: float = CLOCK_TOLERANCE
) -> Address:
    """As `peer_address`, and insist that it is `expect` unless that is None.

    Raises `InvalidCertificate`, or `IdentityMismatch` when the peer is, provably, somebody else.
    """
    address = peer_address(chain, now=now, tolerance=tolerance)
    if expect is not None and address != expect:
        raise IdentityMismatch(f"the peer is {address}, not {expect}")
    return address


_SIGNATURES_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_BOTH_SIDES = x509.ExtendedKeyUsage((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), tz=datetime.UTC)


def _read_leaf(certificate: bytes) -> tuple[bytes, bytes | None]:
    """Raw Ed25519 key and, if there is one, the value of the delegation extension."""
    if len(certificate) > MAX_CERTIFICATE_SIZE:
        raise InvalidCertificate(f"a certificate of {len(certificate)} bytes is too long")
    try:
        with warnings.catch_warnings():
            # The library only warns of serial numbers that are not positive; RFC 5280 forbids them.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            parsed = x509.load_der_x509_certificate(certificate)
        key = parsed.public_key()
        extensions = parsed.extensions
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        CryptographyDeprecationWarning,
    ) as error:
        raise InvalidCertificate(f"the peer's certificate is malformed: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidCertificate("the key of the peer's certificate is not an Ed25519 key")
    for extension in extensions:
        if extension.oid == DELEGATION_EXTENSION:
            return key.public_bytes_raw(), extension.value.public_bytes()
    return key.public_bytes_raw(), None


def _decode_extension(value: bytes) -> tuple[Address, bytes]:
    """Claimed address and encoded proof (spec 04 §4.3)."""
    try:
        fields = decode_cbor(_decode_octet_string(value))
        match fields:
            case {1: bytes(address), 2: bytes(proof)}:
                return Address(address), proof
            case _:
                raise InvalidCertificate("the delegation extension lacks the address or the proof")
    except (CborDecodeError, InvalidAddress) as error:
        raise InvalidCertificate(f"the delegation extension is malformed: {error}") from None


def _encode_octet_string(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((_OCTET_STRING, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((_OCTET_STRING, 0x80 | len(octets))) + octets + content


def _decode_octet_string(value: bytes) -> bytes:
    """Content of the DER OCTET STRING at the start of `value`; what follows it is ignored."""
    if len(value) < 2 or value[0] != _OCTET_STRING:
        raise InvalidCertificate("the delegation extension is not an OCTET STRING")
    size, begin = value[1], 2
    if size > 0x80:
        begin += size - 0x80
        size = int.from_bytes(value[2:begin], "big")
    content = value[begin : begin + size]
    # Comparing with our own encoding refuses lengths that are cut short or not in their DER form.
    if not value.startswith(_encode_octet_string(content)) or len(content) != size:
        raise InvalidCertificate("the length in the delegation extension is malformed")
    return content
