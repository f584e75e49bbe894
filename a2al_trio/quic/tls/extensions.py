"""The bodies of TLS extensions (RFC 8446 §4.2, RFC 6066 §3, RFC 7301) and the block they travel in."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from a2al_trio.quic.tls.codepoints import AlertDescription, ExtensionType, SignatureScheme
from a2al_trio.quic.tls.errors import TlsAlert
from a2al_trio.quic.tls.reader import Reader, pack_vector

__all__ = [
    "TLS_1_3",
    "VERIFIABLE_SCHEMES",
    "PskOffer",
    "decode_alpn",
    "decode_extensions",
    "decode_key_shares",
    "decode_psk_offer",
    "decode_server_name",
    "encode_alpn",
    "encode_extension",
    "encode_key_shares",
    "encode_numbers",
    "encode_server_name",
    "encode_signature_algorithms",
]

TLS_1_3 = 0x0304
MAX_EXTENSIONS = 64
MAX_PSK_IDENTITIES = 8

VERIFIABLE_SCHEMES = (
    SignatureScheme.ED25519,
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.ECDSA_SECP384R1_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA512,
)
"""What we accept in CertificateVerify, preferred first."""


@attrs.frozen
class PskOffer:
    """One pre-shared key a client offers: a ticket, its age as the client sees it, and the proof of the key."""

    identity: bytes
    obfuscated_age: int
    binder: bytes


def encode_extension(kind: ExtensionType, body: bytes) -> bytes:
    """Return one extension with its header."""
    return kind.to_bytes(2, "big") + pack_vector(2, body)


def decode_extensions(reader: Reader) -> dict[int, bytes]:
    """Read an extension block into `{type: body}`, in order; a type that comes twice is an illegal_parameter."""
    inner = Reader(reader.vector(2), "extension block")
    found: dict[int, bytes] = {}
    while not inner.at_end:
        kind = inner.number(2)
        if kind in found:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"extension {kind} is there twice")
        if len(found) >= MAX_EXTENSIONS:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"more than {MAX_EXTENSIONS} extensions")
        found[kind] = inner.vector(2)
    return found


def encode_numbers(length_size: int, values: Iterable[int]) -> bytes:
    """Return a vector of 16-bit numbers."""
    return pack_vector(length_size, b"".join(value.to_bytes(2, "big") for value in values))


def encode_signature_algorithms() -> bytes:
    """Return the signature_algorithms body: what we verify, and RSA PKCS#1 inside certificate chains (§4.2.3)."""
    return encode_numbers(2, (*VERIFIABLE_SCHEMES, SignatureScheme.RSA_PKCS1_SHA256))


def encode_alpn(protocols: Iterable[str]) -> bytes:
    """Return the application_layer_protocol_negotiation body."""
    return pack_vector(2, b"".join(pack_vector(1, protocol.encode()) for protocol in protocols))


def decode_alpn(body: bytes) -> tuple[bytes, ...]:
    """Read the names of an application_layer_protocol_negotiation extension."""
    reader = Reader(body, "ALPN extension")
    names = Reader(reader.vector(2, minimum=2), "ALPN list")
    reader.finish()
    protocols = []
    while not names.at_end:
        protocols.append(names.vector(1, minimum=1))
    return tuple(protocols)


def encode_server_name(name: str) -> bytes:
    """Return the server_name body for one host name."""
    return pack_vector(2, b"\0" + pack_vector(2, name.encode("ascii")))


def decode_server_name(body: bytes) -> str | None:
    """Read the host name a client asks for; None if it is not text (such a name can match nothing)."""
    reader = Reader(body, "server_name extension")
    names = Reader(reader.vector(2, minimum=4), "server name list")
    reader.finish()
    if names.number(1) != 0:
        return None
    name = names.vector(2, minimum=1)
    return name.decode("ascii") if name.isascii() and b"\0" not in name else None


def encode_key_shares(shares: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the entries of a key_share extension, without the client's outer length."""
    return b"".join(group.to_bytes(2, "big") + pack_vector(2, public) for group, public in shares)


def decode_key_shares(body: bytes) -> dict[int, bytes]:
    """Read a client's key_share extension into `{group: public}`; a group twice is an illegal_parameter (§4.2.8)."""
    reader = Reader(body, "key_share extension")
    entries = Reader(reader.vector(2), "key share list")
    reader.finish()
    shares: dict[int, bytes] = {}
    while not entries.at_end:
        group = entries.number(2)
        if group in shares:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"two key shares for group {group:#x}")
        shares[group] = entries.vector(2, minimum=1)
    return shares


def decode_psk_offer(body: bytes) -> tuple[tuple[PskOffer, ...], int]:
    """Read a client's pre_shared_key extension: the offers, and how many bytes its binders take (§4.2.11)."""
    reader = Reader(body, "pre_shared_key extension")
    identities = Reader(reader.vector(2, minimum=7), "PSK identity list")
    binders_at = reader.offset
    binders = Reader(reader.vector(2, minimum=33), "PSK binder list")
    reader.finish()
    offers = []
    while not identities.at_end:
        identity, age = identities.vector(2, minimum=1), identities.number(4)
        offers.append(PskOffer(identity, age, binders.vector(1, minimum=32)))
        if len(offers) > MAX_PSK_IDENTITIES:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"more than {MAX_PSK_IDENTITIES} pre-shared keys")
    binders.finish()
    return tuple(offers), len(body) - binders_at
