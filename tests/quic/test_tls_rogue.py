"""Servers and clients that finish the cryptography and lie in the rest: each lie has its alert."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.packet_crypto import VERSION_1
from a2al_trio.quic.tls import (
    AlertDescription,
    CipherSuite,
    Credentials,
    EarlyDataDecided,
    Level,
    NamedGroup,
    SessionTicket,
    TicketKeys,
    TicketReceived,
    TlsAlert,
    TlsServer,
)
from a2al_trio.quic.tls.codepoints import ExtensionType, HandshakeType
from a2al_trio.quic.tls.extensions import (
    decode_psk_offer,
    decode_server_name,
    encode_alpn,
    encode_extension,
    encode_signature_algorithms,
)
from a2al_trio.quic.tls.groups import answer_share, offer_share
from a2al_trio.quic.tls.messages import (
    CertificateVerify,
    ClientHello,
    encode_certificate,
    encode_message,
)
from a2al_trio.quic.tls.reader import pack_vector
from a2al_trio.quic.tls.signatures import check_certificate_verify
from tests.quic.tls_support import End, Pair, client_tls, drbg, self_signed, server_tls

PARAMETERS = encode_extension(ExtensionType.QUIC_TRANSPORT_PARAMETERS, b"parameters")
PROTOCOL = encode_extension(ExtensionType.ALPN, encode_alpn(("test",)))


class RogueServer(TlsServer):
    """Sends extensions, and messages in place of its certificate, as it is told."""

    extensions: bytes | None = None
    instead_of_certificate: bytes | None = None

    def _send_encrypted_extensions(self, transport_parameters: bytes) -> None:
        if self.extensions is None:
            super()._send_encrypted_extensions(transport_parameters)
        else:
            message = encode_message(HandshakeType.ENCRYPTED_EXTENSIONS, pack_vector(2, self.extensions))
            self._send(Level.HANDSHAKE, message)

    def _send_certificate(self, credentials: Credentials, hello: ClientHello) -> None:
        if self.instead_of_certificate is None:
            super()._send_certificate(credentials, hello)
        else:
            self._send(Level.HANDSHAKE, self.instead_of_certificate)


def meet(rogue: dict[str, bytes], ticket: SessionTicket | None = None, **settings: Any) -> Pair:
    client = client_tls(tickets=True, early_data=True, alpn=("test", "other"))
    pair = Pair(client, server_tls(**settings), ticket=ticket, seed="rogue")
    server = RogueServer(
        server_tls(**settings), transport_parameters=lambda theirs: b"", entropy=drbg("rogue"), quic_version=VERSION_1
    )
    for name, value in rogue.items():
        setattr(server, name, value)
    pair.tls_server, pair.server = server, End(server)
    return pair.run()


def alert_to(rogue: dict[str, bytes], **settings: Any) -> AlertDescription:
    with pytest.raises(TlsAlert) as caught:
        meet(rogue, **settings)
    return caught.value.alert


class TestEncryptedExtensions:
    @pytest.mark.parametrize(
        ("extensions", "alert"),
        [
            (PARAMETERS, AlertDescription.NO_APPLICATION_PROTOCOL),
            (PROTOCOL, AlertDescription.MISSING_EXTENSION),
            (
                encode_extension(ExtensionType.ALPN, encode_alpn(("test", "other"))) + PARAMETERS,
                AlertDescription.ILLEGAL_PARAMETER,
            ),
            (
                encode_extension(ExtensionType.ALPN, encode_alpn(("never",))) + PARAMETERS,
                AlertDescription.ILLEGAL_PARAMETER,
            ),
            (PROTOCOL + PARAMETERS + b"\x4a\x4a\0\0", AlertDescription.UNSUPPORTED_EXTENSION),
            (PROTOCOL + PARAMETERS + b"\0\x2a\0\0", AlertDescription.UNSUPPORTED_EXTENSION),
            (PROTOCOL + PARAMETERS + b"\0\x33\0\0", AlertDescription.UNSUPPORTED_EXTENSION),
        ],
    )
    def test_a_lie(self, extensions: bytes, alert: AlertDescription) -> None:
        assert alert_to({"extensions": extensions}) is alert

    def test_early_data_accepted_for_another_protocol(self) -> None:
        keys = TicketKeys(drbg("keys"))
        first = meet({}, tickets=keys, early_data=True)
        (received,) = first.client.of(TicketReceived)
        assert isinstance(received, TicketReceived)
        other = encode_extension(ExtensionType.ALPN, encode_alpn(("other",)))
        early = encode_extension(ExtensionType.EARLY_DATA, b"")
        rogue = {"extensions": other + PARAMETERS + early}
        with pytest.raises(TlsAlert, match="other terms"):
            meet(rogue, received.ticket, tickets=keys, early_data=True)


class TestCertificateMessages:
    @pytest.mark.parametrize(
        ("message", "alert"),
        [
            (encode_certificate(()), AlertDescription.DECODE_ERROR),
            (
                encode_message(
                    HandshakeType.CERTIFICATE_REQUEST,
                    b"\x01x"
                    + pack_vector(
                        2, encode_extension(ExtensionType.SIGNATURE_ALGORITHMS, encode_signature_algorithms())
                    ),
                ),
                AlertDescription.ILLEGAL_PARAMETER,
            ),
            (encode_message(HandshakeType.CERTIFICATE_REQUEST, b"\0\0\0"), AlertDescription.MISSING_EXTENSION),
            (encode_message(HandshakeType.CERTIFICATE_REQUEST, b"\0\0\0\0"), AlertDescription.DECODE_ERROR),
            (encode_message(HandshakeType.FINISHED, bytes(32)), AlertDescription.UNEXPECTED_MESSAGE),
        ],
    )
    def test_a_lie(self, message: bytes, alert: AlertDescription) -> None:
        assert alert_to({"instead_of_certificate": message}) is alert


def test_a_ticket_of_another_hash_is_dropped_after_a_retry() -> None:
    """A HelloRetryRequest fixes the hash; a pre-shared key of another cannot be offered again."""
    sha384 = (CipherSuite.AES_256_GCM_SHA384,)
    client = client_tls(tickets=True, early_data=True)
    first = Pair(client, server_tls(tickets=TicketKeys(drbg("keys")), early_data=True, suites=sha384)).run()
    (received,) = first.client.of(TicketReceived)
    assert isinstance(received, TicketReceived)
    other = server_tls(groups=(NamedGroup.SECP256R1,), suites=(CipherSuite.AES_128_GCM_SHA256,))
    second = Pair(client, other, ticket=received.ticket, seed="second").run()
    assert second.server.engine.complete
    assert not second.client.engine.resumed
    assert second.client.of(EarlyDataDecided) == [EarlyDataDecided(False)]


class TestKeyShares:
    @pytest.mark.parametrize(
        ("group", "public"),
        [
            (NamedGroup.X25519, bytes(31)),
            (NamedGroup.X25519, bytes(32)),
            (NamedGroup.SECP256R1, b"\x02" + bytes(32)),
            (NamedGroup.SECP256R1, b"\x04" + bytes(64)),
            (NamedGroup.SECP256R1, b"\x04"),
            (NamedGroup.SECP256R1, b""),
            (NamedGroup.X25519MLKEM768, bytes(32)),
            (NamedGroup.X25519MLKEM768, bytes(1088 + 32)),
            (NamedGroup.X25519MLKEM768, b"\xff" * (1184 + 32)),
        ],
    )
    def test_shares_no_honest_peer_sends(self, group: NamedGroup, public: bytes) -> None:
        with pytest.raises(TlsAlert) as caught:
            offer_share(group, drbg("us")).complete(public)
        assert caught.value.alert is AlertDescription.ILLEGAL_PARAMETER
        with pytest.raises(TlsAlert) as caught:
            answer_share(group, public, drbg("us"))
        assert caught.value.alert is AlertDescription.ILLEGAL_PARAMETER

    @pytest.mark.parametrize("group", list(NamedGroup))
    def test_both_sides_get_the_same_secret(self, group: NamedGroup) -> None:
        ours = offer_share(group, drbg("us"))
        public, secret = answer_share(group, ours.public, drbg("them"))
        assert ours.complete(public) == secret


class TestProofs:
    """CertificateVerify with keys our own credentials cannot have."""

    DIGEST = bytes(32)
    CONTENT = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + DIGEST

    def alert(self, leaf: bytes, scheme: int, signature: bytes = b"") -> AlertDescription:
        with pytest.raises(TlsAlert) as caught:
            check_certificate_verify(leaf, CertificateVerify(scheme, signature), self.DIGEST, from_server=True)
        return caught.value.alert

    def test_p384_is_verified(self) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        proof = CertificateVerify(0x0503, key.sign(self.CONTENT, ec.ECDSA(hashes.SHA384())))
        check_certificate_verify(self_signed(key), proof, self.DIGEST, from_server=True)
        assert self.alert(self_signed(key), 0x0403, proof.signature) is AlertDescription.ILLEGAL_PARAMETER

    def test_rsa_is_verified_with_every_hash(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        for scheme, digest in ((0x0804, hashes.SHA256()), (0x0805, hashes.SHA384()), (0x0806, hashes.SHA512())):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            proof = CertificateVerify(scheme, key.sign(self.CONTENT, pss, digest))
            check_certificate_verify(self_signed(key), proof, self.DIGEST, from_server=True)

    def test_a_curve_without_a_scheme(self) -> None:
        leaf = self_signed(ec.generate_private_key(ec.SECP521R1()))
        assert self.alert(leaf, 0x0403) is AlertDescription.ILLEGAL_PARAMETER

    def test_a_kind_of_key_tls_does_not_use(self) -> None:
        leaf = self_signed(ed448.Ed448PrivateKey.generate())
        assert self.alert(leaf, 0x0807) is AlertDescription.UNSUPPORTED_CERTIFICATE

    def test_an_rsa_key_that_would_cost_too_much(self) -> None:
        assert self.alert(huge_rsa_leaf(), 0x0804) is AlertDescription.UNSUPPORTED_CERTIFICATE


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def huge_rsa_leaf() -> bytes:
    """A certificate with an RSA key of 16,384 bits and no valid signature, which nobody has to make first."""
    modulus = der(0x02, b"\0" + b"\xff" * 2048)
    rsa_algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    signature_algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    key = der(0x30, modulus + bytes.fromhex("0203010001"))
    dates = der(0x30, der(0x17, b"200101000000Z") + der(0x17, b"400101000000Z"))
    info = der(0x30, rsa_algorithm + der(0x03, b"\0" + key))
    body = bytes.fromhex("a003020102020101") + signature_algorithm + der(0x30, b"") + dates + der(0x30, b"") + info
    return der(0x30, der(0x30, body) + signature_algorithm + der(0x03, b"\0" + bytes(32)))


class TestLimits:
    def test_offers_of_pre_shared_keys_are_counted(self) -> None:
        identities = b"".join(pack_vector(2, b"x") + bytes(4) for _ in range(9))
        binders = pack_vector(1, bytes(32)) * 9
        with pytest.raises(TlsAlert, match="more than 8"):
            decode_psk_offer(pack_vector(2, identities) + pack_vector(2, binders))

    @pytest.mark.parametrize("body", [b"\x01\0\x01x", b"\0\0\x01\xff", b"\0\0\x02a\0"])
    def test_names_that_can_match_nothing(self, body: bytes) -> None:
        assert decode_server_name(pack_vector(2, body)) is None

    def test_keys_we_cannot_use_are_the_users_mistake(self) -> None:
        key: Any = ed448.Ed448PrivateKey.generate()
        with pytest.raises(ConfigurationError, match="Ed25519, ECDSA P-256 or RSA"):
            Credentials((self_signed(key),), key)
