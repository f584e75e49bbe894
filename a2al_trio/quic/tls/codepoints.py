"""The TLS 1.3 numbers this implementation knows (RFC 8446 §B, RFC 9001 §8.2, IANA TLS registries)."""

from __future__ import annotations

import enum

__all__ = [
    "AlertDescription",
    "ClientAuthentication",
    "ExtensionType",
    "HandshakeType",
    "Level",
    "NamedGroup",
    "SignatureScheme",
]


class Level(enum.IntEnum):
    """The encryption levels of QUIC (RFC 9001 §2.1)."""

    INITIAL = 0
    EARLY = 1
    HANDSHAKE = 2
    ONE_RTT = 3


class HandshakeType(enum.IntEnum):
    """Handshake messages (RFC 8446 §4)."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24
    MESSAGE_HASH = 254


class ExtensionType(enum.IntEnum):
    """Extensions (RFC 8446 §4.2, RFC 9001 §8.2)."""

    SERVER_NAME = 0
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    ALPN = 16
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    KEY_SHARE = 51
    QUIC_TRANSPORT_PARAMETERS = 57


class NamedGroup(enum.IntEnum):
    """Key exchange groups; the hybrid one withstands quantum computers (draft-ietf-tls-ecdhe-mlkem)."""

    SECP256R1 = 0x0017
    X25519 = 0x001D
    X25519MLKEM768 = 0x11EC


class SignatureScheme(enum.IntEnum):
    """Signature algorithms of certificates and CertificateVerify (RFC 8446 §4.2.3)."""

    ECDSA_SECP256R1_SHA256 = 0x0403
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    RSA_PKCS1_SHA256 = 0x0401
    """Offered for the certificates of a chain only; never for CertificateVerify."""


class AlertDescription(enum.IntEnum):
    """Alerts (RFC 8446 §6); QUIC carries them as CRYPTO_ERROR, 0x100 plus the number (RFC 9001 §4.8)."""

    UNEXPECTED_MESSAGE = 10
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


class ClientAuthentication(enum.Enum):
    """Whether a server asks its clients for a certificate."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"
