"""Certificates that honest code does not make, for tests of what must be refused.

`agent_certificate` is the honest start; `forge` puts any extension value next to any key.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from a2al_trio.cbor import encode as encode_cbor
from a2al_trio.identity import Address, SigningKey, issue_delegation
from a2al_trio.identity.certificate import DELEGATION_EXTENSION

NOW = 1_800_000_000
OWNER = SigningKey(bytes([1]) * 32)
VICTIM = Address.from_public_key(OWNER.public_key)
OPERATOR = SigningKey(bytes([2]) * 32)
ATTACKER = SigningKey(bytes([3]) * 32)


def proof_for(operational: SigningKey, *, owner: SigningKey = OWNER, expires_at: int = 0, scope: int = 1) -> bytes:
    """Encoded delegation by `owner` to `operational`."""
    proof = issue_delegation(owner, operational.public_key, issued_at=NOW - 1000, expires_at=expires_at, scope=scope)
    return proof.encode()


def extension(claim: bytes, proof: bytes | None) -> bytes:
    """Extension value that claims an address by a proof, of whatever contents."""
    return octet_string(encode_cbor({1: claim, 2: proof}))


def octet_string(content: bytes) -> bytes:
    """DER OCTET STRING of up to 64 KiB."""
    size = len(content)
    if size < 0x80:
        return bytes((4, size)) + content
    return (bytes((4, 0x81, size)) if size < 0x100 else b"\x04\x82" + size.to_bytes(2, "big")) + content


def forge(key: SigningKey, *extensions: bytes, critical: bool = False, serial: int = 7) -> bytes:
    """A certificate of `key` with delegation extensions of these values."""
    private_key = Ed25519PrivateKey.from_private_bytes(key.seed)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a2al")])
    begin = datetime.datetime.fromtimestamp(NOW, tz=datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, private_key.public_key(), serial, begin, begin + datetime.timedelta(days=1)
    )
    # The builder refuses a second extension of one kind; a stand-in kind is renamed in the DER afterwards.
    stand_in = x509.ObjectIdentifier("1.3.6.1.4.1.999999.2")
    for kind, value in zip((DELEGATION_EXTENSION, stand_in), extensions, strict=False):
        builder = builder.add_extension(x509.UnrecognizedExtension(kind, value), critical=critical)
    certificate = builder.sign(private_key, None).public_bytes(Encoding.DER)
    oid = bytes.fromhex("2b06010401bd843f")
    return certificate.replace(oid + b"\x02", oid + b"\x01")
