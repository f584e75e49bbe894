"""Peers that break the rules: every wrong handshake ends with one alert, and nothing is kept without bound."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.packet_crypto import VERSION_1
from a2al_trio.quic.tls import (
    AlertDescription,
    ClientAuthentication,
    Level,
    NamedGroup,
    TlsAlert,
    TlsClient,
    TlsServer,
)
from a2al_trio.quic.tls.codepoints import ExtensionType, HandshakeType
from a2al_trio.quic.tls.extensions import decode_extensions, encode_extension
from a2al_trio.quic.tls.messages import (
    HELLO_RETRY_RANDOM,
    ServerHello,
    encode_certificate,
    encode_message,
    encode_server_hello,
)
from a2al_trio.quic.tls.reader import Reader, pack_vector
from tests.quic.tls_support import Pair, client_tls, credentials, drbg, server_tls

Extensions = dict[int, bytes]


def new_server() -> TlsServer:
    settings = server_tls(client_authentication=ClientAuthentication.REQUIRED)
    return TlsServer(settings, transport_parameters=lambda theirs: b"", entropy=drbg("server"), quic_version=VERSION_1)


def new_client() -> TlsClient:
    client = TlsClient(
        client_tls(),
        server_name="example.test",
        transport_parameters=b"parameters",
        entropy=drbg("client"),
        quic_version=VERSION_1,
    )
    client.start(0.0)
    return client


def join(extensions: Extensions) -> bytes:
    return pack_vector(2, b"".join(k.to_bytes(2, "big") + pack_vector(2, v) for k, v in extensions.items()))


def client_hello(change: Callable[[Extensions], None] = lambda extensions: None, **head: bytes) -> bytes:
    """A good ClientHello with its extensions or head changed."""
    reader = Reader(new_client().take_output(Level.INITIAL)[4:], "hello")
    parts = {
        "version": reader.take(2),
        "random": reader.take(32),
        "session_id": pack_vector(1, reader.vector(1)),
        "suites": pack_vector(2, reader.vector(2)),
        "compression": pack_vector(1, reader.vector(1)),
    }
    extensions = decode_extensions(reader)
    change(extensions)
    return encode_message(HandshakeType.CLIENT_HELLO, b"".join((parts | head).values()) + join(extensions))


def alert_of(raising: Callable[[], object]) -> AlertDescription:
    with pytest.raises(TlsAlert) as caught:
        raising()
    return caught.value.alert


def code_from_server(hello: bytes) -> int:
    with pytest.raises(TlsAlert) as caught:
        new_server().receive(Level.INITIAL, hello, 0.0)
    return caught.value.quic_error_code


class TestClientHello:
    def test_unchanged_it_is_accepted(self) -> None:
        server = new_server()
        server.receive(Level.INITIAL, client_hello(), 0.0)
        assert server.take_output(Level.HANDSHAKE)

    def test_unknown_extensions_groups_and_suites_are_ignored(self) -> None:
        def grease(extensions: Extensions) -> None:
            extensions[0x1A1A] = b"grease"
            extensions[ExtensionType.SUPPORTED_GROUPS] = bytes.fromhex("00060a0a001d0017")
            shares = extensions[ExtensionType.KEY_SHARE][2:] + bytes.fromhex("0a0a000100")
            extensions[ExtensionType.KEY_SHARE] = pack_vector(2, shares)

        server = new_server()
        server.receive(Level.INITIAL, client_hello(grease, suites=bytes.fromhex("00040a0a1301")), 0.0)
        assert server.take_output(Level.HANDSHAKE)

    @pytest.mark.parametrize(
        ("missing", "code"),
        [
            (ExtensionType.SUPPORTED_VERSIONS, 0x100 + AlertDescription.PROTOCOL_VERSION),
            (ExtensionType.SUPPORTED_GROUPS, 0x100 + AlertDescription.MISSING_EXTENSION),
            (ExtensionType.KEY_SHARE, 0x100 + AlertDescription.MISSING_EXTENSION),
            (ExtensionType.SIGNATURE_ALGORITHMS, 0x100 + AlertDescription.MISSING_EXTENSION),
            (ExtensionType.QUIC_TRANSPORT_PARAMETERS, 0x100 + AlertDescription.MISSING_EXTENSION),
            (ExtensionType.ALPN, 0x100 + AlertDescription.NO_APPLICATION_PROTOCOL),
        ],
    )
    def test_a_needed_extension_is_missing(self, missing: ExtensionType, code: int) -> None:
        assert code_from_server(client_hello(lambda extensions: extensions.__delitem__(missing))) == code

    @pytest.mark.parametrize(
        ("kind", "body", "alert"),
        [
            (ExtensionType.SUPPORTED_VERSIONS, "020303", AlertDescription.PROTOCOL_VERSION),
            (ExtensionType.SUPPORTED_VERSIONS, "0303", AlertDescription.DECODE_ERROR),
            (ExtensionType.SUPPORTED_GROUPS, "0000", AlertDescription.DECODE_ERROR),
            (ExtensionType.SUPPORTED_GROUPS, "00021a1a", AlertDescription.ILLEGAL_PARAMETER),
            (ExtensionType.SIGNATURE_ALGORITHMS, "00020403", AlertDescription.HANDSHAKE_FAILURE),
            (ExtensionType.SIGNATURE_ALGORITHMS, "0003040307", AlertDescription.DECODE_ERROR),
            (ExtensionType.KEY_SHARE, "0005001d000100", AlertDescription.ILLEGAL_PARAMETER),
            (ExtensionType.KEY_SHARE, "0004001d0000", AlertDescription.DECODE_ERROR),
            (ExtensionType.KEY_SHARE, "000a001d000100001d000100", AlertDescription.ILLEGAL_PARAMETER),
            (ExtensionType.KEY_SHARE, "0024001d0020" + "00" * 32, AlertDescription.ILLEGAL_PARAMETER),
            (ExtensionType.ALPN, "0000", AlertDescription.DECODE_ERROR),
            (ExtensionType.ALPN, "0003026833", AlertDescription.NO_APPLICATION_PROTOCOL),
            (ExtensionType.SERVER_NAME, "0000", AlertDescription.DECODE_ERROR),
            (ExtensionType.PRE_SHARED_KEY, "00", AlertDescription.MISSING_EXTENSION),
        ],
    )
    def test_a_bad_extension(self, kind: ExtensionType, body: str, alert: AlertDescription) -> None:
        hello = client_hello(lambda extensions: extensions.update({int(kind): bytes.fromhex(body)}))
        assert code_from_server(hello) == 0x100 + alert

    def test_a_short_psk_offer(self) -> None:
        def offer(extensions: Extensions) -> None:
            extensions[ExtensionType.PSK_KEY_EXCHANGE_MODES] = b"\x01\x01"
            extensions[ExtensionType.PRE_SHARED_KEY] = b"\0\0\0\0"

        assert code_from_server(client_hello(offer)) == 0x132

    def test_psk_is_not_last(self) -> None:
        def offer(extensions: Extensions) -> None:
            extensions[ExtensionType.PRE_SHARED_KEY] = b"\0\0\0\0"
            extensions[0x1A1A] = b""

        assert code_from_server(client_hello(offer)) == 0x12F

    def test_an_extension_comes_twice(self) -> None:
        hello = client_hello()
        body = bytearray(hello[4:])
        size_at = 2 + 32 + 1 + 2 + 6 + 2
        size = int.from_bytes(body[size_at : size_at + 2], "big")
        double = encode_extension(ExtensionType.ALPN, b"\0\x02\x01a")
        body[size_at : size_at + 2] = (size + len(double)).to_bytes(2, "big")
        assert code_from_server(encode_message(HandshakeType.CLIENT_HELLO, bytes(body) + double)) == 0x12F

    def test_too_many_extensions(self) -> None:
        hello = client_hello(lambda extensions: extensions.update({0x4000 + i: b"" for i in range(65)}))
        assert code_from_server(hello) == 0x12F

    def test_a_legacy_session_id_is_a_protocol_violation(self) -> None:
        assert code_from_server(client_hello(session_id=b"\x01x")) == 0x0A

    def test_compression_is_refused(self) -> None:
        assert code_from_server(client_hello(compression=b"\x02\0\x01")) == 0x12F

    def test_an_oversized_hello_is_refused_at_its_header(self) -> None:
        assert code_from_server(b"\x01\x00\x40\x01") == 0x132

    def test_small_order_points_are_refused_in_the_hybrid_group_too(self) -> None:
        key = NamedGroup.X25519MLKEM768.to_bytes(2, "big") + pack_vector(2, bytes(1184 + 32))

        def offer(extensions: Extensions) -> None:
            extensions[ExtensionType.KEY_SHARE] = pack_vector(2, key)

        assert code_from_server(client_hello(offer)) == 0x12F


class TestHelloRetry:
    def retried(self, **server: object) -> Pair:
        pair = Pair(server=server_tls(groups=(NamedGroup.SECP256R1,), **server))
        pair.flight(pair.client, pair.server)
        return pair

    def test_the_same_hello_again_is_refused(self) -> None:
        pair = self.retried()
        assert alert_of(lambda: pair.tls_server.receive(Level.INITIAL, client_hello(), 0.0)) is (
            AlertDescription.ILLEGAL_PARAMETER
        )

    def test_another_suite_is_refused(self) -> None:
        pair = self.retried()
        hello = client_hello(suites=bytes.fromhex("00021303"))
        assert alert_of(lambda: pair.tls_server.receive(Level.INITIAL, hello, 0.0)) is (
            AlertDescription.ILLEGAL_PARAMETER
        )

    @pytest.mark.parametrize(
        ("retry", "alert"),
        [
            (ServerHello(HELLO_RETRY_RANDOM, 0x1301, None, b""), AlertDescription.ILLEGAL_PARAMETER),
            (ServerHello(HELLO_RETRY_RANDOM, 0x1301, NamedGroup.X25519, b""), AlertDescription.ILLEGAL_PARAMETER),
            (ServerHello(HELLO_RETRY_RANDOM, 0x1301, 0x18, b""), AlertDescription.ILLEGAL_PARAMETER),
            (ServerHello(HELLO_RETRY_RANDOM, 0x1399, NamedGroup.SECP256R1, b""), AlertDescription.ILLEGAL_PARAMETER),
        ],
    )
    def test_a_retry_that_makes_no_sense(self, retry: ServerHello, alert: AlertDescription) -> None:
        assert alert_of(lambda: new_client().receive(Level.INITIAL, encode_server_hello(retry), 0.0)) is alert

    def test_a_cookie_comes_back(self) -> None:
        client = new_client()
        client.take_output(Level.INITIAL)
        retry = ServerHello(HELLO_RETRY_RANDOM, 0x1301, None, b"", cookie=b"crumbs")
        client.receive(Level.INITIAL, encode_server_hello(retry), 0.0)
        second = client.take_output(Level.INITIAL)
        assert encode_extension(ExtensionType.COOKIE, b"\0\x06crumbs") in second

    def test_a_second_retry_is_refused(self) -> None:
        client = new_client()
        retry = encode_server_hello(ServerHello(HELLO_RETRY_RANDOM, 0x1301, NamedGroup.SECP256R1, b""))
        client.receive(Level.INITIAL, retry, 0.0)
        assert alert_of(lambda: client.receive(Level.INITIAL, retry, 0.0)) is AlertDescription.UNEXPECTED_MESSAGE

    def test_the_suite_may_not_change_after_a_retry(self) -> None:
        client = new_client()
        retry = encode_server_hello(ServerHello(HELLO_RETRY_RANDOM, 0x1301, NamedGroup.SECP256R1, b""))
        client.receive(Level.INITIAL, retry, 0.0)
        hello = encode_server_hello(ServerHello(bytes(32), 0x1303, NamedGroup.SECP256R1, b"\x04" + bytes(64)))
        assert alert_of(lambda: client.receive(Level.INITIAL, hello, 0.0)) is AlertDescription.ILLEGAL_PARAMETER


class TestServerHello:
    GOOD = ServerHello(bytes(32), 0x1301, NamedGroup.X25519, b"\x09" + bytes(31))

    @pytest.mark.parametrize(
        ("change", "alert"),
        [
            ({"suite": 0x1304}, AlertDescription.ILLEGAL_PARAMETER),
            ({"group": NamedGroup.SECP256R1}, AlertDescription.ILLEGAL_PARAMETER),
            ({"group": None}, AlertDescription.ILLEGAL_PARAMETER),
            ({"public": bytes(32)}, AlertDescription.ILLEGAL_PARAMETER),
            ({"public": b"short"}, AlertDescription.ILLEGAL_PARAMETER),
            ({"public": b""}, AlertDescription.DECODE_ERROR),
            ({"psk_index": 0}, AlertDescription.ILLEGAL_PARAMETER),
            ({"cookie": b"x"}, AlertDescription.UNSUPPORTED_EXTENSION),
        ],
    )
    def test_a_bad_choice_is_refused(self, change: dict[str, object], alert: AlertDescription) -> None:
        hello = encode_server_hello(attrs.evolve(self.GOOD, **change))  # type: ignore[arg-type]
        assert alert_of(lambda: new_client().receive(Level.INITIAL, hello, 0.0)) is alert

    def test_tls_1_2_is_refused(self) -> None:
        hello = bytearray(encode_server_hello(self.GOOD))
        at = hello.index(bytes.fromhex("002b00020304"))
        hello[at + 5] = 3
        assert alert_of(lambda: new_client().receive(Level.INITIAL, bytes(hello), 0.0)) is (
            AlertDescription.PROTOCOL_VERSION
        )

    def test_handshake_data_may_not_follow_in_the_same_level(self) -> None:
        hello = encode_server_hello(self.GOOD) + b"\x08"
        assert alert_of(lambda: new_client().receive(Level.INITIAL, hello, 0.0)) is (
            AlertDescription.UNEXPECTED_MESSAGE
        )


class TestOrder:
    def test_initial_data_after_the_initial_level_is_a_protocol_violation(self) -> None:
        pair = Pair().run()
        for engine in (pair.tls_client, pair.tls_server):
            with pytest.raises(TlsAlert) as caught:
                engine.receive(Level.INITIAL, b"\x01", 0.0)
            assert caught.value.quic_error_code == 0x0A

    @pytest.mark.parametrize("kind", [k for k in HandshakeType if k is not HandshakeType.NEW_SESSION_TICKET])
    def test_nothing_but_tickets_comes_after_the_handshake(self, kind: HandshakeType) -> None:
        pair = Pair().run()
        message = encode_message(kind, b"\0")
        for engine in (pair.tls_client, pair.tls_server):
            with pytest.raises(TlsAlert) as caught:
                engine.receive(Level.ONE_RTT, message, 0.0)
            assert caught.value.quic_error_code == 0x10A

    def test_a_server_takes_no_tickets(self) -> None:
        pair = Pair().run()
        message = encode_message(HandshakeType.NEW_SESSION_TICKET, b"")
        assert alert_of(lambda: pair.tls_server.receive(Level.ONE_RTT, message, 0.0)) is (
            AlertDescription.UNEXPECTED_MESSAGE
        )

    def test_a_failed_handshake_stays_failed(self) -> None:
        server = new_server()
        first = alert_of(lambda: server.receive(Level.INITIAL, b"\x02", 0.0))
        assert first is AlertDescription.UNEXPECTED_MESSAGE
        assert alert_of(lambda: server.receive(Level.INITIAL, client_hello(), 0.0)) is first

    def test_a_client_cannot_skip_its_certificate(self) -> None:
        pair = Pair(client_tls(), server_tls(client_authentication=ClientAuthentication.REQUIRED))
        pair.flight(pair.client, pair.server)
        finished = encode_message(HandshakeType.FINISHED, bytes(32))
        assert alert_of(lambda: pair.tls_server.receive(Level.HANDSHAKE, finished, 0.0)) is (
            AlertDescription.UNEXPECTED_MESSAGE
        )


class TestCertificates:
    def server_waiting(self) -> TlsServer:
        server = new_server()
        server.receive(Level.INITIAL, client_hello(), 0.0)
        return server

    @pytest.mark.parametrize(
        ("message", "alert"),
        [
            (encode_certificate((b"x",) * 11), AlertDescription.BAD_CERTIFICATE),
            (
                encode_message(HandshakeType.CERTIFICATE, bytes.fromhex("0178000000")),
                AlertDescription.ILLEGAL_PARAMETER,
            ),
            (encode_message(HandshakeType.CERTIFICATE, bytes.fromhex("00000005000000")), AlertDescription.DECODE_ERROR),
            (
                encode_message(HandshakeType.CERTIFICATE, bytes.fromhex("0000000a0000017800040005000000")[:-1]),
                AlertDescription.UNSUPPORTED_EXTENSION,
            ),
            (bytes((HandshakeType.CERTIFICATE,)) + b"\x01\0\x01", AlertDescription.DECODE_ERROR),
        ],
    )
    def test_a_bad_certificate_message(self, message: bytes, alert: AlertDescription) -> None:
        assert alert_of(lambda: self.server_waiting().receive(Level.HANDSHAKE, message, 0.0)) is alert

    @pytest.mark.parametrize("junk", [b"junk", bytes(40), credentials().chain[0][:-1], b"\x30" * 60_000])
    def test_a_certificate_that_does_not_parse(self, junk: bytes) -> None:
        server = self.server_waiting()
        server.receive(Level.HANDSHAKE, encode_certificate((junk,)), 0.0)
        proof = encode_message(HandshakeType.CERTIFICATE_VERIFY, b"\x08\x07" + pack_vector(2, bytes(64)))
        assert alert_of(lambda: server.receive(Level.HANDSHAKE, proof, 0.0)) is AlertDescription.BAD_CERTIFICATE

    @pytest.mark.parametrize(
        ("scheme", "alert"),
        [
            ("0807", AlertDescription.DECRYPT_ERROR),
            ("0403", AlertDescription.ILLEGAL_PARAMETER),
            ("0804", AlertDescription.ILLEGAL_PARAMETER),
            ("0401", AlertDescription.ILLEGAL_PARAMETER),
            ("0000", AlertDescription.ILLEGAL_PARAMETER),
        ],
    )
    def test_a_proof_by_another_key_or_scheme(self, scheme: str, alert: AlertDescription) -> None:
        server = self.server_waiting()
        server.receive(Level.HANDSHAKE, encode_certificate(credentials().chain), 0.0)
        body = bytes.fromhex(scheme) + pack_vector(2, bytes(64))
        proof = encode_message(HandshakeType.CERTIFICATE_VERIFY, body)
        assert alert_of(lambda: server.receive(Level.HANDSHAKE, proof, 0.0)) is alert

    def test_the_certificate_of_another_with_an_own_key(self) -> None:
        """A stolen certificate is of no use without its key."""
        stolen = attrs.evolve(credentials("ed25519", "thief"), chain=credentials("ed25519", "victim").chain)
        with pytest.raises(TlsAlert) as caught:
            Pair(server=server_tls(credentials=stolen)).run()
        assert caught.value.alert is AlertDescription.DECRYPT_ERROR
        required = server_tls(client_authentication=ClientAuthentication.REQUIRED)
        with pytest.raises(TlsAlert) as caught:
            Pair(client_tls(credentials=stolen), required).run()
        assert caught.value.alert is AlertDescription.DECRYPT_ERROR


def test_a_man_in_the_middle_who_changes_the_hello_is_noticed() -> None:
    """Stripping a suite changes the transcript, and with it every secret and signature."""
    pair = Pair()
    pair.tls_client.take_output(Level.INITIAL)
    pair.tls_server.receive(Level.INITIAL, client_hello(suites=bytes.fromhex("00021303")), 0.0)
    pair.client.engine.receive(Level.INITIAL, pair.tls_server.take_output(Level.INITIAL), 0.0)
    with pytest.raises(TlsAlert) as caught:
        pair.client.engine.receive(Level.HANDSHAKE, pair.tls_server.take_output(Level.HANDSHAKE), 0.0)
    assert caught.value.alert is AlertDescription.DECRYPT_ERROR


# --- any bytes -----------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_any_bytes_at_the_start(pieces: list[bytes], at_server: bool) -> None:
    engine = new_server() if at_server else new_client()
    with contextlib.suppress(TlsAlert):
        for piece in pieces:
            engine.receive(Level.INITIAL, piece, 0.0)
    assert not engine.complete


@given(st.sampled_from([k.value for k in HandshakeType]), st.binary(max_size=300), st.booleans())
def test_any_body_in_every_message(kind: int, body: bytes, at_server: bool) -> None:
    pair = Pair(client_tls(credentials=credentials()), server_tls(client_authentication=ClientAuthentication.OPTIONAL))
    engines: list[tuple[Level, TlsServer | TlsClient]] = [
        (Level.INITIAL, new_server() if at_server else new_client()),
    ]
    pair.flight(pair.client, pair.server)
    if at_server:
        engines.append((Level.HANDSHAKE, pair.tls_server))
    else:
        pair.tls_client.receive(Level.INITIAL, pair.tls_server.take_output(Level.INITIAL), 0.0)
        engines.append((Level.HANDSHAKE, pair.tls_client))
    for level, engine in engines:
        try:
            engine.receive(level, bytes((kind,)) + pack_vector(3, body), 0.0)
        except TlsAlert:
            continue
        assert not engine.complete


@given(st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 255))
def test_one_damaged_byte_anywhere_never_completes_both_sides(flight: int, position: int, flip: int) -> None:
    settings = server_tls(client_authentication=ClientAuthentication.REQUIRED)
    pair = Pair(client_tls(credentials=credentials()), settings)
    steps = [
        (Level.INITIAL, pair.tls_client, pair.tls_server),
        (Level.INITIAL, pair.tls_server, pair.tls_client),
        (Level.HANDSHAKE, pair.tls_server, pair.tls_client),
        (Level.HANDSHAKE, pair.tls_client, pair.tls_server),
    ]
    try:
        for index, (level, sender, receiver) in enumerate(steps):
            data = bytearray(sender.take_output(level))
            if index == flight and data:
                data[position % len(data)] ^= flip
            receiver.receive(level, data, pair.now)
    except TlsAlert:
        pass
    assert not (pair.tls_client.complete and pair.tls_server.complete)
