"""Handshake messages (RFC 8446 §4) as bytes and as values.

Encoders return whole messages with their four-byte header, as the transcript wants them; decoders take the body alone
and raise nothing but `TlsAlert`. What a message may say at this point of a handshake is judged by client and server.
"""

from __future__ import annotations

import functools

import attrs

from a2al_trio.quic.tls.codepoints import AlertDescription, ExtensionType, HandshakeType
from a2al_trio.quic.tls.errors import TlsAlert, TlsViolation
from a2al_trio.quic.tls.extensions import (
    TLS_1_3,
    PskOffer,
    decode_alpn,
    decode_extensions,
    decode_key_shares,
    decode_psk_offer,
    decode_server_name,
    encode_extension,
    encode_signature_algorithms,
)
from a2al_trio.quic.tls.reader import Reader, pack_vector

__all__ = [
    "HELLO_RETRY_RANDOM",
    "CertificateVerify",
    "ClientHello",
    "NewSessionTicket",
    "ServerHello",
    "decode_certificate",
    "decode_certificate_request",
    "decode_certificate_verify",
    "decode_client_hello",
    "decode_encrypted_extensions",
    "decode_new_session_ticket",
    "decode_server_hello",
    "encode_certificate",
    "encode_certificate_request",
    "encode_message",
    "encode_new_session_ticket",
    "encode_server_hello",
]

LEGACY_VERSION = b"\x03\x03"
HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
MAX_CERTIFICATES = 10
QUIC_EARLY_DATA = 0xFFFFFFFF  # RFC 9001 §4.6.1: QUIC limits 0-RTT by its own means


def encode_message(kind: HandshakeType, body: bytes) -> bytes:
    """Return `body` with the header of a handshake message."""
    return bytes((kind,)) + pack_vector(3, body)


@attrs.frozen
class ClientHello:
    """What a client opens with; fields are None or empty when the extension is absent."""

    random: bytes
    suites: tuple[int, ...]
    server_name: str | None
    alpn: tuple[bytes, ...]
    groups: tuple[int, ...]
    key_shares: dict[int, bytes]
    signature_schemes: tuple[int, ...]
    quic_parameters: bytes
    psk_offers: tuple[PskOffer, ...]
    binders_size: int
    """How many bytes at the end of the message are binders, which no binder covers."""
    psk_with_dhe: bool
    early_data: bool


def decode_client_hello(body: bytes) -> ClientHello:
    """Decode a ClientHello and check what every ClientHello over QUIC must have."""
    reader = Reader(body, "ClientHello")
    reader.take(2)  # legacy_version says nothing; supported_versions does
    random = reader.take(32)
    if reader.vector(1):
        raise TlsViolation("a ClientHello over QUIC has no legacy session ID")  # RFC 9001 §8.4
    suites = reader.numbers(2, 2)
    if reader.vector(1) != b"\0":
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "compression is offered")
    extensions = {} if reader.at_end else decode_extensions(reader)
    reader.finish()
    if TLS_1_3 not in Reader(extensions.get(ExtensionType.SUPPORTED_VERSIONS, b"\x02\0\0"), "versions").numbers(1, 2):
        raise TlsAlert(AlertDescription.PROTOCOL_VERSION, "the client does not offer TLS 1.3")
    for needed in _NEEDED_FROM_CLIENT:
        if needed not in extensions:
            raise TlsAlert(AlertDescription.MISSING_EXTENSION, f"the client sends no {needed.name.lower()}")
    if ExtensionType.ALPN not in extensions:
        raise TlsAlert(AlertDescription.NO_APPLICATION_PROTOCOL, "the client offers no application protocol")
    psk = extensions.get(ExtensionType.PRE_SHARED_KEY)
    if psk is not None and next(reversed(extensions)) != ExtensionType.PRE_SHARED_KEY:
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "pre_shared_key is not the last extension")
    if psk is not None and ExtensionType.PSK_KEY_EXCHANGE_MODES not in extensions:
        raise TlsAlert(AlertDescription.MISSING_EXTENSION, "pre_shared_key without psk_key_exchange_modes")
    psk_offers, binders_size = decode_psk_offer(psk) if psk is not None else ((), 0)
    groups = Reader(extensions[ExtensionType.SUPPORTED_GROUPS], "supported_groups").numbers(2, 2)
    key_shares = decode_key_shares(extensions[ExtensionType.KEY_SHARE])
    if not key_shares.keys() <= set(groups):
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a key share for a group that is not supported")
    server_name = extensions.get(ExtensionType.SERVER_NAME)
    modes = Reader(extensions.get(ExtensionType.PSK_KEY_EXCHANGE_MODES, b"\x01\0"), "PSK modes").vector(1, minimum=1)
    return ClientHello(
        random=random,
        suites=suites,
        server_name=decode_server_name(server_name) if server_name is not None else None,
        alpn=decode_alpn(extensions[ExtensionType.ALPN]),
        groups=groups,
        key_shares=key_shares,
        signature_schemes=Reader(extensions[ExtensionType.SIGNATURE_ALGORITHMS], "signature algorithms").numbers(2, 2),
        quic_parameters=extensions[ExtensionType.QUIC_TRANSPORT_PARAMETERS],
        psk_offers=psk_offers,
        binders_size=binders_size,
        psk_with_dhe=1 in modes,
        early_data=ExtensionType.EARLY_DATA in extensions,
    )


_NEEDED_FROM_CLIENT = (
    ExtensionType.SUPPORTED_GROUPS,
    ExtensionType.KEY_SHARE,
    ExtensionType.SIGNATURE_ALGORITHMS,
    ExtensionType.QUIC_TRANSPORT_PARAMETERS,
)


@attrs.frozen
class ServerHello:
    """A ServerHello, or a HelloRetryRequest when `is_retry`."""

    random: bytes
    suite: int
    group: int | None
    public: bytes
    """The server's key share; empty in a HelloRetryRequest."""
    psk_index: int | None = None
    cookie: bytes | None = None

    @property
    def is_retry(self) -> bool:
        """Whether this asks for another ClientHello (§4.1.4)."""
        return self.random == HELLO_RETRY_RANDOM


def encode_server_hello(hello: ServerHello) -> bytes:
    """Return a ServerHello or HelloRetryRequest."""
    extensions = [encode_extension(ExtensionType.SUPPORTED_VERSIONS, TLS_1_3.to_bytes(2, "big"))]
    if hello.group is not None:
        share = hello.group.to_bytes(2, "big") + (b"" if hello.is_retry else pack_vector(2, hello.public))
        extensions.append(encode_extension(ExtensionType.KEY_SHARE, share))
    if hello.psk_index is not None:
        extensions.append(encode_extension(ExtensionType.PRE_SHARED_KEY, hello.psk_index.to_bytes(2, "big")))
    if hello.cookie is not None:
        extensions.append(encode_extension(ExtensionType.COOKIE, pack_vector(2, hello.cookie)))
    head = LEGACY_VERSION + hello.random + b"\0" + hello.suite.to_bytes(2, "big") + b"\0"
    return encode_message(HandshakeType.SERVER_HELLO, head + pack_vector(2, b"".join(extensions)))


def decode_server_hello(body: bytes) -> ServerHello:
    """Decode a ServerHello or HelloRetryRequest."""
    reader = Reader(body, "ServerHello")
    legacy_version, random, session_id = reader.take(2), reader.take(32), reader.vector(1)
    suite, compression = reader.number(2), reader.number(1)
    extensions = {} if reader.at_end else decode_extensions(reader)
    reader.finish()
    version = extensions.pop(ExtensionType.SUPPORTED_VERSIONS, b"")
    if legacy_version != LEGACY_VERSION or version != TLS_1_3.to_bytes(2, "big"):
        raise TlsAlert(AlertDescription.PROTOCOL_VERSION, "the server does not speak TLS 1.3")
    if session_id or compression:
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a session ID or compression we did not offer")
    is_retry = random == HELLO_RETRY_RANDOM
    group, public, psk_index, cookie = None, b"", None, None
    for kind, content in extensions.items():
        inner = Reader(content, f"extension {kind}")
        if kind == ExtensionType.KEY_SHARE:
            group = inner.number(2)
            public = b"" if is_retry else inner.vector(2, minimum=1)
        elif kind == ExtensionType.PRE_SHARED_KEY and not is_retry:
            psk_index = inner.number(2)
        elif kind == ExtensionType.COOKIE and is_retry:
            cookie = inner.vector(2, minimum=1)
        else:
            raise TlsAlert(AlertDescription.UNSUPPORTED_EXTENSION, f"extension {kind} in a ServerHello")
        inner.finish()
    return ServerHello(random, suite, group, public, psk_index, cookie)


def decode_encrypted_extensions(body: bytes) -> dict[int, bytes]:
    """Decode EncryptedExtensions into `{type: body}`."""
    reader = Reader(body, "EncryptedExtensions")
    extensions = decode_extensions(reader)
    reader.finish()
    return extensions


@functools.lru_cache(maxsize=256)
def encode_certificate(chain: tuple[bytes, ...]) -> bytes:
    """Return the Certificate message of a handshake; an empty chain says that there is none to show."""
    entries = b"".join(pack_vector(3, certificate) + b"\0\0" for certificate in chain)
    return encode_message(HandshakeType.CERTIFICATE, b"\0" + pack_vector(3, entries))


def decode_certificate(body: bytes) -> tuple[bytes, ...]:
    """Decode a Certificate message of a handshake into its chain (DER, leaf first; may be empty)."""
    reader = Reader(body, "Certificate")
    if reader.vector(1):
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a certificate request context during the handshake")
    entries = Reader(reader.vector(3), "certificate list")
    reader.finish()
    chain = []
    while not entries.at_end:
        chain.append(entries.vector(3, minimum=1))
        if decode_extensions(entries):
            raise TlsAlert(AlertDescription.UNSUPPORTED_EXTENSION, "a certificate with an extension we did not offer")
        if len(chain) > MAX_CERTIFICATES:
            raise TlsAlert(AlertDescription.BAD_CERTIFICATE, f"more than {MAX_CERTIFICATES} certificates")
    return tuple(chain)


@functools.cache
def encode_certificate_request() -> bytes:
    """Return the CertificateRequest of a handshake, always the same."""
    schemes = encode_extension(ExtensionType.SIGNATURE_ALGORITHMS, encode_signature_algorithms())
    return encode_message(HandshakeType.CERTIFICATE_REQUEST, b"\0" + pack_vector(2, schemes))


def decode_certificate_request(body: bytes) -> tuple[int, ...]:
    """Decode a CertificateRequest into the signature schemes the server accepts."""
    reader = Reader(body, "CertificateRequest")
    if reader.vector(1):
        raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a certificate request context during the handshake")
    extensions = decode_extensions(reader)
    reader.finish()
    schemes = extensions.get(ExtensionType.SIGNATURE_ALGORITHMS)
    if schemes is None:
        raise TlsAlert(AlertDescription.MISSING_EXTENSION, "CertificateRequest without signature_algorithms")
    return Reader(schemes, "signature algorithms").numbers(2, 2)


@attrs.frozen
class CertificateVerify:
    """The proof that the peer holds the key of its certificate."""

    scheme: int
    signature: bytes


def decode_certificate_verify(body: bytes) -> CertificateVerify:
    """Decode a CertificateVerify message."""
    reader = Reader(body, "CertificateVerify")
    verify = CertificateVerify(reader.number(2), reader.vector(2))
    reader.finish()
    return verify


@attrs.frozen
class NewSessionTicket:
    """What a server hands out for resumption."""

    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes
    early_data: bool


def encode_new_session_ticket(new: NewSessionTicket) -> bytes:
    """Return a NewSessionTicket message."""
    early = encode_extension(ExtensionType.EARLY_DATA, QUIC_EARLY_DATA.to_bytes(4, "big")) if new.early_data else b""
    head = new.lifetime.to_bytes(4, "big") + new.age_add.to_bytes(4, "big") + pack_vector(1, new.nonce)
    return encode_message(HandshakeType.NEW_SESSION_TICKET, head + pack_vector(2, new.ticket) + pack_vector(2, early))


def decode_new_session_ticket(body: bytes) -> NewSessionTicket:
    """Decode a NewSessionTicket message; unknown extensions are ignored, as clients must (§4.6.1)."""
    reader = Reader(body, "NewSessionTicket")
    lifetime, age_add, nonce = reader.number(4), reader.number(4), reader.vector(1)
    ticket, extensions = reader.vector(2, minimum=1), decode_extensions(reader)
    reader.finish()
    early = extensions.get(ExtensionType.EARLY_DATA)
    if early is not None and early != QUIC_EARLY_DATA.to_bytes(4, "big"):
        raise TlsViolation("a session ticket limits 0-RTT data by TLS")  # RFC 9001 §4.6.1
    return NewSessionTicket(lifetime, age_add, nonce, ticket, early is not None)
