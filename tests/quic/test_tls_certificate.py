"""Certificates by the rules of the web, pinning, and reading credentials from PEM."""

from __future__ import annotations

import datetime
import functools
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls import AlertDescription, ClientAuthentication, Credentials, PeerRejected, TlsAlert
from a2al_trio.quic.tls.certificate import TrustStore, pinned
from a2al_trio.quic.tls.loading import load_public_key
from tests.quic.tls_support import Pair, client_tls, credentials, self_signed, server_tls

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def clock() -> float:
    return NOW.timestamp()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A root that issues certificates."""

    def __init__(self, common_name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(common_name)
        builder = x509.CertificateBuilder(self.name, self.name, self.key.public_key(), 1, NOW - DAY, NOW + 3650 * DAY)
        key_id = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self.certificate = (
            builder.add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(key_id, False)
            .add_extension(usage, True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def issue(self, *names: x509.GeneralName, expires: datetime.datetime = NOW + 30 * DAY) -> Credentials:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder(self.name, name("leaf"), key.public_key(), 2, NOW - DAY, expires)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False
            )
            .sign(self.key, hashes.SHA256())
        )
        return Credentials((certificate.public_bytes(Encoding.DER),), key)


@functools.cache
def authority() -> Authority:
    return Authority("root")


def store() -> TrustStore:
    return TrustStore.from_pem(authority().pem, clock=clock)


HOST = x509.DNSName("example.test")


class TestServers:
    def connect(self, shown: Credentials, server_name: str | None = "example.test") -> Pair:
        client = client_tls(verify_peer=store().verify_server)
        return Pair(client, server_tls(credentials=shown), server_name=server_name).run()

    def test_a_host_with_a_certificate_for_its_name(self) -> None:
        assert self.connect(authority().issue(HOST)).client.engine.complete

    def test_an_address_with_a_certificate_for_it(self) -> None:
        shown = authority().issue(x509.IPAddress(ipaddress.ip_address("192.0.2.1")))
        assert self.connect(shown, "192.0.2.1").client.engine.complete

    @pytest.mark.parametrize(
        ("shown", "server_name"),
        [
            (lambda: authority().issue(HOST), "other.test"),
            (lambda: authority().issue(HOST), "192.0.2.1"),
            (lambda: authority().issue(HOST), None),
            (lambda: authority().issue(HOST), "in valid"),
            (lambda: authority().issue(HOST, expires=NOW - DAY / 2), "example.test"),
            (lambda: Authority("root").issue(HOST), "example.test"),
            (lambda: credentials("p256"), "example.test"),
        ],
    )
    def test_anything_else_is_refused(self, shown: object, server_name: str | None) -> None:
        with pytest.raises(TlsAlert) as caught:
            self.connect(shown(), server_name)  # type: ignore[operator]
        assert caught.value.alert in (AlertDescription.CERTIFICATE_UNKNOWN, AlertDescription.BAD_CERTIFICATE)


class TestClients:
    def connect(self, shown: Credentials) -> Pair:
        server = server_tls(client_authentication=ClientAuthentication.REQUIRED, verify_peer=store().verify_client)
        return Pair(client_tls(credentials=shown), server).run()

    def test_a_client_the_root_vouches_for(self) -> None:
        assert self.connect(authority().issue(x509.DNSName("client.test"))).server.engine.complete

    def test_any_other_client_is_refused(self) -> None:
        with pytest.raises(TlsAlert, match="client's certificate"):
            self.connect(credentials("p256"))


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_any_bytes_are_refused(chain: list[bytes]) -> None:
    for verify in (store().verify_server, store().verify_client):
        with pytest.raises(PeerRejected):
            verify(tuple(chain), "example.test")


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_certificate_is_refused(position: int, flip: int) -> None:
    damaged = bytearray(authority().issue(HOST).chain[0])
    damaged[position % len(damaged)] ^= flip
    with pytest.raises(PeerRejected):
        store().verify_server((bytes(damaged),), "example.test")


def with_bytes(der: bytes, old: bytes, new: bytes) -> bytes:
    assert der.count(old) >= 1
    return der.replace(old, new, 1)


@pytest.mark.parametrize(
    "der",
    [
        with_bytes(credentials().chain[0], bytes.fromhex("a003020102020101"), bytes.fromhex("a003020102020100")),
        with_bytes(credentials().chain[0], bytes.fromhex("a003020102020101"), bytes.fromhex("a0030201020201ff")),
        with_bytes(credentials().chain[0], bytes.fromhex("a003020102020101"), bytes.fromhex("a003020107020101")),
        credentials().chain[0] + b"\0",
        credentials().chain[0] + bytes(20_000),
        b"",
        b"\x30",
        b"\x30\x80\x30\x80\x02\x01\x01",
        b"\x30\xff" * 40,
    ],
)
def test_hostile_certificates_are_refused_without_a_warning(der: bytes) -> None:
    """A serial number that is not positive and an unknown version are where the parser does not fail like elsewhere."""
    with pytest.raises(PeerRejected):
        load_public_key(der)


def test_an_unknown_kind_of_key_is_named() -> None:
    unknown = with_bytes(
        credentials().chain[0], bytes.fromhex("300506032b6570032100"), bytes.fromhex("300506032b6579032100")
    )
    with pytest.raises(PeerRejected) as caught:
        load_public_key(unknown)
    assert caught.value.alert is AlertDescription.UNSUPPORTED_CERTIFICATE


def test_an_empty_bundle_is_the_users_mistake() -> None:
    with pytest.raises(ConfigurationError, match="does not load"):
        TrustStore.from_pem(b"", clock=clock)


class TestPinning:
    def test_the_pinned_certificate_is_accepted_and_no_other(self) -> None:
        client = client_tls(verify_peer=pinned(credentials("ed25519", "a").chain[0]))
        assert Pair(client, server_tls(credentials=credentials("ed25519", "a"))).run().client.engine.complete
        with pytest.raises(TlsAlert, match="pinned"):
            Pair(client, server_tls(credentials=credentials("ed25519", "b"))).run()

    def test_it_needs_a_certificate(self) -> None:
        with pytest.raises(ConfigurationError, match="at least one"):
            pinned()


class TestCredentials:
    def pem(self, kind: str) -> tuple[bytes, bytes]:
        ours = credentials(kind)
        certificate = x509.load_der_x509_certificate(ours.chain[0]).public_bytes(Encoding.PEM)
        return certificate, ours.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
    def test_pem_files_load(self, kind: str) -> None:
        loaded = Credentials.from_pem(*self.pem(kind))
        assert loaded.chain == credentials(kind).chain
        assert Pair(server=server_tls(credentials=loaded)).run().client.engine.complete

    def test_mistakes_are_named(self) -> None:
        certificate, key = self.pem("ed25519")
        with pytest.raises(ConfigurationError, match="does not belong"):
            Credentials.from_pem(certificate, self.pem("p256")[1])
        for bad in ((b"", key), (certificate, b"")):
            with pytest.raises(ConfigurationError, match="do not load"):
                Credentials.from_pem(*bad)
        with pytest.raises(ConfigurationError, match="Password"):
            Credentials.from_pem(certificate, key, b"password")
        with pytest.raises(ConfigurationError, match="empty"):
            Credentials((), credentials().private_key)
        other_curve = ec.generate_private_key(ec.SECP384R1())
        with pytest.raises(ConfigurationError, match="P-256"):
            Credentials((self_signed(other_curve),), other_curve)

    def test_settings_that_cannot_work_are_named(self) -> None:
        with pytest.raises(ConfigurationError, match="alpn"):
            client_tls(alpn=())
        with pytest.raises(ConfigurationError, match="key_shares"):
            client_tls(key_shares=())
        with pytest.raises(ConfigurationError, match="at least one key exchange"):
            client_tls(groups=())
        with pytest.raises(ConfigurationError, match="either credentials"):
            server_tls(credentials=None)
        with pytest.raises(ConfigurationError, match="verify_peer"):
            server_tls(client_authentication=ClientAuthentication.OPTIONAL, verify_peer=None)
