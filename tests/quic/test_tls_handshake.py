"""Whole handshakes in memory: every suite, group and kind of certificate, and what each side learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls import (
    AlertDescription,
    CipherSuite,
    ClientAuthentication,
    ClientOffer,
    HandshakeComplete,
    KeysReady,
    Level,
    NamedGroup,
    PeerParameters,
    PeerRejected,
    ServerTls,
    TlsAlert,
)
from a2al_trio.quic.tls.codepoints import SignatureScheme
from tests.quic.tls_support import Pair, client_tls, credentials, server_tls

EVERY_SECRET = [(Level.HANDSHAKE, False), (Level.HANDSHAKE, True), (Level.ONE_RTT, False), (Level.ONE_RTT, True)]


def check_complete(pair: Pair) -> None:
    client, server = pair.client, pair.server
    assert client.engine.complete
    assert server.engine.complete
    assert client.of(HandshakeComplete) == server.of(HandshakeComplete) == [HandshakeComplete()]
    assert client.engine.alpn == server.engine.alpn == "test"
    assert client.of(PeerParameters) == [PeerParameters(b"server parameters")]
    assert pair.seen_by_server == [b"client parameters"]
    for level, sending in EVERY_SECRET:
        assert client.secrets()[level, sending] == server.secrets()[level, not sending]
    assert len(set(client.secrets().values())) == 4
    assert not client.engine.has_output
    assert not server.engine.has_output


@pytest.mark.parametrize("suite", list(CipherSuite))
@pytest.mark.parametrize("group", list(NamedGroup))
def test_every_suite_and_group(suite: CipherSuite, group: NamedGroup) -> None:
    pair = Pair(client_tls(suites=(suite,), groups=(group,), key_shares=(group,))).run()
    check_complete(pair)
    assert {event.suite for event in pair.client.events if isinstance(event, KeysReady)} == {suite}


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_every_kind_of_certificate_on_both_sides(kind: str) -> None:
    ours, theirs = credentials(kind, "client"), credentials(kind, "server")
    pair = Pair(
        client_tls(credentials=ours),
        server_tls(credentials=theirs, client_authentication=ClientAuthentication.REQUIRED),
    ).run()
    check_complete(pair)
    assert pair.client.engine.peer_certificates == theirs.chain
    assert pair.server.engine.peer_certificates == ours.chain


def test_server_keys_come_in_the_order_quic_needs_them() -> None:
    pair = Pair()
    pair.flight(pair.client, pair.server)
    order = [(e.level, e.sending) for e in pair.server.events if isinstance(e, KeysReady)]
    assert order == [(Level.HANDSHAKE, False), (Level.HANDSHAKE, True), (Level.ONE_RTT, True)]
    assert not pair.server.engine.complete
    pair.run()
    assert pair.server.events[-2:] == [pair.server.of(KeysReady)[-1], HandshakeComplete()]


@pytest.mark.parametrize("group", [NamedGroup.SECP256R1, NamedGroup.X25519MLKEM768])
@pytest.mark.parametrize("suite", list(CipherSuite))
def test_the_server_can_ask_for_another_group(group: NamedGroup, suite: CipherSuite) -> None:
    pair = Pair(client_tls(), server_tls(groups=(group,), suites=(suite,)))
    pair.flight(pair.client, pair.server)
    assert not pair.server.events, "a HelloRetryRequest tells nobody anything yet"
    pair.run()
    check_complete(pair)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_messages_may_come_in_pieces(piece: int) -> None:
    server = server_tls(client_authentication=ClientAuthentication.REQUIRED, groups=(NamedGroup.X25519MLKEM768,))
    check_complete(Pair(client_tls(credentials=credentials()), server).run(piece=piece))


def test_several_messages_may_come_at_once() -> None:
    pair = Pair()
    pair.flight(pair.client, pair.server)
    assert pair.tls_server.take_output(Level.EARLY) == b""
    pair.run()
    check_complete(pair)


class TestClientAuthentication:
    def test_a_required_certificate_must_be_shown(self) -> None:
        pair = Pair(client_tls(), server_tls(client_authentication=ClientAuthentication.REQUIRED))
        with pytest.raises(TlsAlert) as caught:
            pair.run()
        assert caught.value.quic_error_code == 0x174
        assert pair.client.engine.complete, "the client is done before the server has judged it"
        assert not pair.server.engine.complete

    def test_an_optional_certificate_may_be_left_out(self) -> None:
        pair = Pair(client_tls(), server_tls(client_authentication=ClientAuthentication.OPTIONAL)).run()
        check_complete(pair)
        assert pair.server.engine.peer_certificates == ()

    def test_a_server_that_does_not_ask_gets_none(self) -> None:
        pair = Pair(client_tls(credentials=credentials())).run()
        assert pair.server.engine.peer_certificates == ()

    def test_the_server_can_reject_the_client(self) -> None:
        def reject(chain: tuple[bytes, ...], server_name: str | None) -> None:
            assert (chain, server_name) == (credentials().chain, "example.test")
            raise PeerRejected("not an agent")

        server = server_tls(client_authentication=ClientAuthentication.REQUIRED, verify_peer=reject)
        pair = Pair(client_tls(credentials=credentials()), server)
        with pytest.raises(TlsAlert, match="not an agent") as caught:
            pair.run()
        assert caught.value.quic_error_code == 0x12A


def test_the_client_can_reject_the_server() -> None:
    def reject(chain: tuple[bytes, ...], server_name: str | None) -> None:
        raise PeerRejected("somebody else", AlertDescription.UNKNOWN_CA)

    pair = Pair(client_tls(verify_peer=reject))
    with pytest.raises(TlsAlert, match="somebody else") as caught:
        pair.run()
    assert caught.value.quic_error_code == 0x130
    assert not pair.client.engine.complete


class TestNegotiation:
    def test_the_server_chooses_the_protocol(self) -> None:
        pair = Pair(client_tls(alpn=("c", "b", "a")), server_tls(alpn=("x", "a", "b"))).run()
        assert pair.client.engine.alpn == pair.server.engine.alpn == "a"

    def test_no_common_protocol(self) -> None:
        with pytest.raises(TlsAlert) as caught:
            Pair(client_tls(alpn=("other",))).run()
        assert caught.value.quic_error_code == 0x178

    def test_no_common_suite(self) -> None:
        suites = (CipherSuite.AES_256_GCM_SHA384,)
        with pytest.raises(TlsAlert) as caught:
            Pair(client_tls(suites=suites), server_tls(suites=(CipherSuite.AES_128_GCM_SHA256,))).run()
        assert caught.value.alert is AlertDescription.HANDSHAKE_FAILURE

    def test_no_common_group(self) -> None:
        only = (NamedGroup.X25519,)
        with pytest.raises(TlsAlert) as caught:
            Pair(client_tls(groups=only), server_tls(groups=(NamedGroup.SECP256R1,))).run()
        assert caught.value.alert is AlertDescription.HANDSHAKE_FAILURE

    def test_credentials_are_chosen_by_server_name(self) -> None:
        names = []

        def select(name: str | None) -> object:
            names.append(name)
            return credentials("ed25519", str(name)) if name != "unknown" else None

        server = server_tls(select_credentials=select)
        pair = Pair(server=server, server_name="MixedCase").run()
        assert pair.client.engine.peer_certificates == credentials("ed25519", "MixedCase").chain
        assert pair.server.engine.server_name == "MixedCase"
        Pair(server=server, server_name=None).run()
        Pair(server=server, server_name="192.0.2.1").run()
        with pytest.raises(TlsAlert) as caught:
            Pair(server=server, server_name="unknown").run()
        assert caught.value.alert is AlertDescription.UNRECOGNIZED_NAME
        assert names == ["MixedCase", None, None, "unknown"], "an IP address is no server name"

    @pytest.mark.parametrize("name", ["", "höst", "x" * 256])
    def test_a_server_name_that_cannot_be_sent(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="server_name"):
            Pair(server_name=name)


def test_key_log_lines() -> None:
    lines: dict[str, list[str]] = {"client": [], "server": []}
    pair = Pair(client_tls(keylog=lines["client"].append), server_tls(keylog=lines["server"].append)).run()
    assert sorted(lines["client"]) == sorted(lines["server"])
    labels = [line.split()[0] for line in lines["client"]]
    assert labels == [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    ]
    assert pair.client.secrets()[Level.ONE_RTT, True].hex() == lines["client"][2].split()[2]


def test_the_same_entropy_gives_the_same_bytes() -> None:
    first, second = Pair(seed="x"), Pair(seed="x")
    hello = first.tls_client.take_output(Level.INITIAL)
    assert hello == second.tls_client.take_output(Level.INITIAL)
    for pair in (first, second):
        pair.tls_server.receive(Level.INITIAL, hello, 0)
    for level in (Level.INITIAL, Level.HANDSHAKE):
        assert first.tls_server.take_output(level) == second.tls_server.take_output(level)


def test_a_failure_of_the_parameter_callback_passes_through() -> None:
    class Unfit(Exception):
        pass

    pair = Pair()

    def raising(data: bytes) -> bytes:
        raise Unfit

    pair.tls_server._transport_parameters = raising
    with pytest.raises(Unfit):
        pair.run()


@given(st.integers(1, 2000), st.sampled_from(list(NamedGroup)))
def test_any_cut_of_the_flights_completes(piece: int, group: NamedGroup) -> None:
    server = server_tls(groups=(group,), client_authentication=ClientAuthentication.OPTIONAL)
    check_complete(Pair(client_tls(credentials=credentials()), server).run(piece=piece))


def test_a_server_suits_its_settings_to_what_the_client_offers() -> None:
    offers: list[ClientOffer] = []
    web = credentials("p256", "web")

    def adapt(offer: ClientOffer) -> ServerTls:
        offers.append(offer)
        return server_tls(alpn=("h3", "test"), credentials=web, groups=(NamedGroup.X25519,))

    asking = server_tls(
        credentials=credentials(name="agent"), client_authentication=ClientAuthentication.REQUIRED, adapt=adapt
    )
    retried = client_tls(
        alpn=("\u00e9", "test", "h3"),
        groups=(NamedGroup.SECP256R1, NamedGroup.X25519),
        key_shares=(NamedGroup.SECP256R1,),
    )
    pair = Pair(retried, asking).run()
    assert pair.client.engine.alpn == pair.server.engine.alpn == "h3"
    assert pair.client.engine.peer_certificates == web.chain
    assert [(offer.server_name, offer.alpn) for offer in offers] == [("example.test", ("test", "h3"))]
    assert SignatureScheme.ED25519 in offers[0].signature_schemes
