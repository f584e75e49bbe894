"""What a user says about TLS: credentials, and the settings of the client and the server side."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls.codepoints import ClientAuthentication, NamedGroup
from a2al_trio.quic.tls.errors import PeerRejected
from a2al_trio.quic.tls.suites import CipherSuite
from a2al_trio.quic.tls.tickets import TicketKeys

__all__ = [
    "ClientAuthentication",
    "ClientOffer",
    "ClientTls",
    "Credentials",
    "KeyLog",
    "PeerRejected",
    "PrivateKey",
    "ServerTls",
    "VerifyPeer",
]

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey

VerifyPeer = Callable[[tuple[bytes, ...], str | None], None]
"""Judges the peer's certificates (DER, leaf first, never empty) and the server name; raises `PeerRejected`.

That the peer holds the leaf's key has been checked by then. On the server the name is what the client asked for.
"""

KeyLog = Callable[[str], None]
"""Takes one line of the NSS key log format, without the newline."""

DEFAULT_SUITES = tuple(CipherSuite)
DEFAULT_GROUPS = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.X25519MLKEM768)


@attrs.frozen
class Credentials:
    """A certificate chain (DER, leaf first) with the private key of its leaf: Ed25519, ECDSA P-256 or RSA."""

    chain: tuple[bytes, ...]
    private_key: PrivateKey = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.chain:
            raise ConfigurationError("Credentials.chain is empty: give at least the leaf certificate")
        key = self.private_key
        if isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, SECP256R1):
            raise ConfigurationError(f"Credentials.private_key: ECDSA keys must be on P-256, not {key.curve.name}")
        if not isinstance(key, PrivateKey):
            raise ConfigurationError("Credentials.private_key must be an Ed25519, ECDSA P-256 or RSA private key")

    @classmethod
    def from_pem(cls, certificates: bytes, private_key: bytes, password: bytes | None = None) -> Credentials:
        """Read a PEM chain (leaf first) and its PEM key; raises `ConfigurationError` when they do not load."""
        try:
            chain = x509.load_pem_x509_certificates(certificates)
            key = load_pem_private_key(private_key, password)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"the PEM certificates or key do not load: {error}") from error
        if chain[0].public_key() != key.public_key():
            raise ConfigurationError("the private key does not belong to the first certificate of the chain")
        if not isinstance(key, PrivateKey):
            raise ConfigurationError("the private key must be Ed25519, ECDSA P-256 or RSA")
        return cls(tuple(certificate.public_bytes(Encoding.DER) for certificate in chain), key)


def _check_common(name: str, alpn: tuple[str, ...], groups: tuple[NamedGroup, ...], suites: tuple[object, ...]) -> None:
    if not alpn or any(not 0 < len(protocol.encode()) < 256 for protocol in alpn):
        raise ConfigurationError(f"{name}.alpn: QUIC needs at least one protocol name of 1 to 255 bytes")
    if not groups or not suites:
        raise ConfigurationError(f"{name}: at least one key exchange group and one cipher suite are needed")


@attrs.frozen(kw_only=True)
class ClientTls:
    """How a client does TLS."""

    alpn: tuple[str, ...]
    """Application protocols we offer, preferred first."""
    verify_peer: VerifyPeer
    """Judges the server; `a2al_trio.quic.tls.certificate` has the rules of the web and pinning."""
    credentials: Credentials | None = None
    """What we show a server that asks for a certificate."""
    suites: tuple[CipherSuite, ...] = DEFAULT_SUITES
    groups: tuple[NamedGroup, ...] = DEFAULT_GROUPS
    """Key exchange groups we can do, preferred first."""
    key_shares: tuple[NamedGroup, ...] = (NamedGroup.X25519,)
    """Groups we guess the server will take; another of `groups` costs it a HelloRetryRequest and a round trip."""
    tickets: bool = False
    """Whether to ask for session tickets, to resume sessions with."""
    early_data: bool = False
    """Whether to send 0-RTT data when a session ticket allows it; such data can be replayed by an attacker."""
    keylog: KeyLog | None = None

    def __attrs_post_init__(self) -> None:
        _check_common("ClientTls", self.alpn, self.groups, self.suites)
        if not self.key_shares or not set(self.key_shares) <= set(self.groups):
            raise ConfigurationError("ClientTls.key_shares must name at least one of ClientTls.groups, and no others")


@attrs.frozen
class ClientOffer:
    """What a client's first message says of its wishes, for `ServerTls.adapt`."""

    server_name: str | None
    """The name it asks for (RFC 6066 §3), None if it names none."""
    alpn: tuple[str, ...]
    """The application protocols it speaks; names that are not ASCII are left out."""
    signature_schemes: tuple[int, ...]
    """The kinds of signature it takes, by their numbers of RFC 8446 §4.2.3."""


@attrs.frozen(kw_only=True)
class ServerTls:
    """How a server does TLS."""

    alpn: tuple[str, ...]
    """Application protocols we speak, preferred first."""
    credentials: Credentials | None = None
    """What we show every client; or use `select_credentials`."""
    select_credentials: Callable[[str | None], Credentials | None] | None = None
    """Chooses credentials by the server name the client asked for (None: it named none); None refuses the client."""
    client_authentication: ClientAuthentication = ClientAuthentication.NONE
    verify_peer: VerifyPeer | None = None
    """Judges a client that shows a certificate; needed unless `client_authentication` is NONE."""
    suites: tuple[CipherSuite, ...] = DEFAULT_SUITES
    groups: tuple[NamedGroup, ...] = DEFAULT_GROUPS
    """Key exchange groups we can do; the first one the client has sent a share for is taken."""
    tickets: TicketKeys | None = None
    """Keys of session tickets; None issues none and resumes nothing."""
    early_data: bool = False
    """Whether to accept 0-RTT data on resumption; needs `tickets`.

    Such data can be replayed by an attacker (RFC 8446 §8): what it asks for must do no harm when done twice, or wait
    until the connection is no longer early.
    """
    adapt: Callable[[ClientOffer], ServerTls] | None = None
    """Gives the settings for one client, in place of these; an `adapt` of its own is not asked."""
    keylog: KeyLog | None = None

    def __attrs_post_init__(self) -> None:
        _check_common("ServerTls", self.alpn, self.groups, self.suites)
        if (self.credentials is None) == (self.select_credentials is None):
            raise ConfigurationError("ServerTls: give either credentials or select_credentials")
        if self.client_authentication is not ClientAuthentication.NONE and self.verify_peer is None:
            raise ConfigurationError("ServerTls.verify_peer is needed to judge the certificates clients are asked for")
        if self.early_data and self.tickets is None:
            raise ConfigurationError("ServerTls.early_data needs ServerTls.tickets")
