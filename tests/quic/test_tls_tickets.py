"""Session tickets: resumption, 0-RTT and its terms, replay, expiry, and tickets that are not ours."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.tls import (
    AlertDescription,
    CipherSuite,
    ClientAuthentication,
    ClientTls,
    EarlyDataDecided,
    KeysReady,
    Level,
    NamedGroup,
    PeerRejected,
    ServerTls,
    SessionTicket,
    TicketKeys,
    TicketReceived,
    TlsAlert,
    TlsServer,
)
from a2al_trio.quic.tls.codepoints import HandshakeType
from a2al_trio.quic.tls.messages import NewSessionTicket, encode_message, encode_new_session_ticket
from a2al_trio.quic.tls.tickets import FRESHNESS_WINDOW, REPLAY_TABLE_SIZE, SessionState
from tests.quic.tls_support import Pair, client_tls, credentials, drbg, server_tls

CLIENT = client_tls(credentials=credentials("ed25519", "client"), tickets=True, early_data=True)


def server_with_tickets(**settings: object) -> ServerTls:
    defaults: dict[str, object] = {
        "tickets": TicketKeys(drbg("tickets")),
        "early_data": True,
        "client_authentication": ClientAuthentication.REQUIRED,
    }
    return server_tls(**defaults | settings)


def ticket_of(pair: Pair) -> SessionTicket:
    (received,) = pair.client.of(TicketReceived)
    assert isinstance(received, TicketReceived)
    return received.ticket


def early_secrets(pair: Pair) -> tuple[bytes | None, bytes | None]:
    return pair.client.secrets().get((Level.EARLY, True)), pair.server.secrets().get((Level.EARLY, False))


@pytest.fixture
def server() -> ServerTls:
    return server_with_tickets()


class TestResumption:
    @pytest.mark.parametrize("suite", list(CipherSuite))
    def test_identities_and_early_keys_carry_over(self, suite: CipherSuite, server: ServerTls) -> None:
        client = attrs.evolve(CLIENT, suites=(suite,))
        first = Pair(client, server).run()
        second = Pair(client, server, ticket=ticket_of(first), now=1001.0, seed="second").run()
        assert second.client.engine.resumed
        assert second.server.engine.resumed
        assert second.client.engine.peer_certificates == credentials().chain
        assert second.server.engine.peer_certificates == credentials("ed25519", "client").chain
        assert second.client.of(EarlyDataDecided) == [EarlyDataDecided(True)]
        ours, theirs = early_secrets(second)
        assert ours is not None
        assert ours == theirs
        assert second.server.engine.early_data_accepted
        third = Pair(client, server, ticket=ticket_of(second), now=1002.0, seed="third").run()
        assert third.server.engine.resumed, "a resumed session hands out tickets too"

    def test_early_keys_are_there_before_anything_is_received(self, server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        second = Pair(CLIENT, server, ticket=ticket)
        assert [event.level for event in second.client.events if isinstance(event, KeysReady)] == [Level.EARLY]
        second.flight(second.client, second.server)
        levels = [(event.level, event.sending) for event in second.server.events if isinstance(event, KeysReady)]
        assert levels[0] == (Level.EARLY, False)

    def test_it_survives_a_hello_retry_without_early_data(self, server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        other = attrs.evolve(server, groups=(NamedGroup.SECP256R1,))
        second = Pair(CLIENT, other, ticket=ticket, seed="second").run()
        assert second.server.engine.resumed
        assert second.client.of(EarlyDataDecided) == [EarlyDataDecided(False)]
        assert not second.server.engine.early_data_accepted

    def test_the_callbacks_judge_resumed_peers_again(self, server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())

        def reject(chain: tuple[bytes, ...], server_name: str | None) -> None:
            raise PeerRejected("banned since")

        with pytest.raises(TlsAlert, match="banned since"):
            Pair(attrs.evolve(CLIENT, verify_peer=reject), server, ticket=ticket).run()
        with pytest.raises(TlsAlert, match="banned since"):
            Pair(CLIENT, attrs.evolve(server, verify_peer=reject), ticket=ticket).run()

    @pytest.mark.parametrize(
        "changes",
        [
            {"server_name": "another.test"},
            {"version": VERSION_2},
            {"now": 1000.0 + 86_400},
            {"now": 999.0},
            {"client": attrs.evolve(CLIENT, alpn=("other",)), "server": {"alpn": ("other",)}},
            {"client": attrs.evolve(CLIENT, suites=(CipherSuite.AES_256_GCM_SHA384,))},
        ],
    )
    def test_a_ticket_that_does_not_fit_is_not_offered(self, changes: dict[str, object], server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        client: ClientTls = changes.pop("client", CLIENT)  # type: ignore[assignment]
        server = attrs.evolve(server, **changes.pop("server", {}))  # type: ignore[arg-type]
        second = Pair(client, server, ticket=ticket, seed="second", **changes).run()  # type: ignore[arg-type]
        assert not second.client.engine.resumed
        assert not second.client.of(EarlyDataDecided)

    @pytest.mark.parametrize(
        "change",
        [
            {"tickets": None, "early_data": False},
            {"tickets": TicketKeys(drbg("others"))},
            {"suites": (CipherSuite.CHACHA20_POLY1305_SHA256,)},
        ],
    )
    def test_a_server_that_cannot_resume_does_a_full_handshake(
        self, change: dict[str, object], server: ServerTls
    ) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        second = Pair(CLIENT, attrs.evolve(server, **change), ticket=ticket, seed="second").run()  # type: ignore[arg-type]
        assert second.server.engine.complete
        assert not second.server.engine.resumed
        assert second.client.of(EarlyDataDecided) == [EarlyDataDecided(False)]

    def test_an_anonymous_session_does_not_stand_in_for_a_certificate(self) -> None:
        anonymous = server_with_tickets(client_authentication=ClientAuthentication.OPTIONAL)
        client = attrs.evolve(CLIENT, credentials=None)
        ticket = ticket_of(Pair(client, anonymous).run())
        strict = attrs.evolve(anonymous, client_authentication=ClientAuthentication.REQUIRED)
        with pytest.raises(TlsAlert) as caught:
            Pair(client, strict, ticket=ticket).run()
        assert caught.value.alert is AlertDescription.CERTIFICATE_REQUIRED

    def test_a_server_name_cannot_be_swapped_under_a_ticket(self, server: ServerTls) -> None:
        ticket = attrs.evolve(ticket_of(Pair(CLIENT, server).run()), server_name="another.test")
        second = Pair(CLIENT, server, ticket=ticket, server_name="another.test").run()
        assert not second.server.engine.resumed

    def test_a_stolen_ticket_is_of_no_use_without_its_key(self, server: ServerTls) -> None:
        ticket = attrs.evolve(ticket_of(Pair(CLIENT, server).run()), secret=bytes(32))
        with pytest.raises(TlsAlert) as caught:
            Pair(CLIENT, server, ticket=ticket).run()
        assert caught.value.alert is AlertDescription.DECRYPT_ERROR


class TestEarlyData:
    def second(self, server: ServerTls, *, now: float = 1001.0, **settings: object) -> Pair:
        ticket = ticket_of(Pair(CLIENT, server).run())
        return Pair(CLIENT, server, ticket=ticket, now=now, **settings)  # type: ignore[arg-type]

    def test_it_is_refused_when_the_context_has_changed(self, server: ServerTls) -> None:
        pair = self.second(server, context=b"smaller limits").run()
        assert pair.server.engine.resumed
        assert not pair.server.engine.early_data_accepted

    def test_it_is_refused_when_the_protocol_has_changed(self, server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        both = attrs.evolve(CLIENT, alpn=("new", "test"))
        pair = Pair(both, attrs.evolve(server, alpn=("new", "test")), ticket=ticket).run()
        assert pair.client.engine.alpn == "new"
        assert pair.client.of(EarlyDataDecided) == [EarlyDataDecided(False)]

    def test_it_is_not_tried_unless_both_sides_want_it(self, server: ServerTls) -> None:
        quiet = attrs.evolve(server, early_data=False)
        assert early_secrets(self.second(quiet).run()) == (None, None)
        ticket = ticket_of(Pair(CLIENT, server).run())
        shy = Pair(attrs.evolve(CLIENT, early_data=False), server, ticket=ticket).run()
        assert shy.server.engine.resumed
        assert early_secrets(shy) == (None, None)

    def test_a_replayed_hello_gets_no_early_data(self, server: ServerTls) -> None:
        pair = self.second(server)
        hello = pair.tls_client.take_output(Level.INITIAL)
        accepted = []
        for now in (1001.0, 1001.5, 1001.0 + 3 * FRESHNESS_WINDOW):
            replica = TlsServer(
                server,
                transport_parameters=lambda theirs: b"",
                entropy=drbg(f"replica {now}"),
                quic_version=VERSION_1,
                early_data_context=b"context",
            )
            replica.receive(Level.INITIAL, hello, now)
            assert replica.resumed
            accepted.append(replica.early_data_accepted)
        assert accepted == [True, False, False]

    def test_a_wrong_age_is_stale(self, server: ServerTls) -> None:
        ticket = attrs.evolve(ticket_of(Pair(CLIENT, server).run()), received_at=980.0)
        pair = Pair(CLIENT, server, ticket=ticket, now=1001.0).run()
        assert pair.server.engine.resumed
        assert not pair.server.engine.early_data_accepted

    def test_the_replay_table_is_bounded_and_empties(self) -> None:
        keys = TicketKeys(drbg("table"))
        state = state_of(issued_at=0.0)
        for index in range(REPLAY_TABLE_SIZE):
            assert keys.first_use(index.to_bytes(12, "big"), 0.0, state, 0.0)
        assert not keys.first_use(b"one too many", 0.0, state, 0.0)
        later = 2 * FRESHNESS_WINDOW
        assert keys.first_use(b"one too many", later, state, later)
        assert len(keys._used) == 1

    def test_a_client_refuses_early_data_it_did_not_send(self, server: ServerTls) -> None:
        ticket = ticket_of(Pair(CLIENT, server).run())
        pair = Pair(CLIENT, server, ticket=ticket)
        pair.tls_client._early_data_tried = False
        with pytest.raises(TlsAlert) as caught:
            pair.run()
        assert caught.value.alert is AlertDescription.UNSUPPORTED_EXTENSION

    def test_it_needs_tickets(self) -> None:
        with pytest.raises(ConfigurationError, match="early_data needs"):
            server_tls(early_data=True)


def state_of(*, issued_at: float) -> SessionState:
    return SessionState(
        suite=CipherSuite.AES_128_GCM_SHA256,
        alpn="test",
        server_name=None,
        quic_version=VERSION_1,
        secret=bytes(32),
        age_add=7,
        issued_at=issued_at,
        peer_certificates=(b"leaf", b"root"),
        early_data_context=b"context",
    )


class TestTicketKeys:
    def test_a_state_comes_back_as_it_was(self) -> None:
        keys = TicketKeys(drbg("keys"))
        state = state_of(issued_at=5.0)
        assert keys.open(keys.seal(state, 5.0), 6.0) == state

    def test_tickets_expire_and_keys_are_renewed(self) -> None:
        keys = TicketKeys(drbg("keys"), lifetime=100)
        early = keys.seal(state_of(issued_at=0.0), 0.0)
        late = keys.seal(state_of(issued_at=90.0), 90.0)
        assert keys.open(early, 99.0) is not None
        assert keys.open(early, 100.0) is None
        assert keys.open(late, 150.0) is not None, "the key before is kept for the tickets it sealed"
        assert keys.open(late, 190.0) is None
        assert keys.open(late, 1000.0) is None

    def test_no_two_tickets_are_alike(self) -> None:
        keys = TicketKeys(drbg("keys"))
        state = state_of(issued_at=0.0)
        assert keys.seal(state, 0.0) != keys.seal(state, 0.0)

    @pytest.mark.parametrize("lifetime", [0, 8 * 86_400])
    def test_a_lifetime_out_of_range_is_refused(self, lifetime: int) -> None:
        with pytest.raises(ConfigurationError, match="lifetime"):
            TicketKeys(drbg("keys"), lifetime=lifetime)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_no_ticket(self, data: bytes) -> None:
        keys = TicketKeys(drbg("keys"))
        keys.seal(state_of(issued_at=0.0), 0.0)
        assert keys.open(data, 1.0) is None

    @given(st.integers(0, 200), st.integers(1, 255))
    def test_a_changed_ticket_is_none(self, position: int, flip: int) -> None:
        keys = TicketKeys(drbg("keys"))
        ticket = bytearray(keys.seal(state_of(issued_at=0.0), 0.0))
        ticket[position % len(ticket)] ^= flip
        assert keys.open(bytes(ticket), 1.0) is None


class TestNewSessionTicket:
    def test_without_asking_a_client_gets_none(self, server: ServerTls) -> None:
        pair = Pair(client_tls(credentials=credentials()), server).run()
        assert not pair.client.of(TicketReceived)

    def test_more_can_be_issued_and_each_has_its_own_key(self, server: ServerTls) -> None:
        pair = Pair(CLIENT, server).run()
        for _ in range(20):
            pair.tls_server.issue_ticket(1000.0)
        pair.run()
        tickets = [event.ticket for event in pair.client.events if isinstance(event, TicketReceived)]
        assert len(tickets) == 8, "a client takes no more than that from one connection"
        assert len({ticket.secret for ticket in tickets}) == 8

    def test_a_long_certificate_chain_gets_no_ticket(self, server: ServerTls) -> None:
        pair = Pair(CLIENT, server)
        long = attrs.evolve(
            CLIENT, credentials=attrs.evolve(credentials(), chain=(*credentials().chain, bytes(20_000)))
        )
        pair = Pair(long, server).run()
        assert pair.server.engine.complete
        assert not pair.client.of(TicketReceived)

    def send(self, message: bytes) -> Pair:
        pair = Pair(CLIENT).run()
        pair.tls_client.receive(Level.ONE_RTT, message, 1000.0)
        pair.client.drain()
        return pair

    def test_a_lifetime_of_zero_means_do_not_keep(self) -> None:
        pair = self.send(encode_new_session_ticket(NewSessionTicket(0, 1, b"n", b"ticket", False)))
        assert not pair.client.of(TicketReceived)

    def test_no_ticket_lives_longer_than_a_week(self) -> None:
        pair = self.send(encode_new_session_ticket(NewSessionTicket(0xFFFFFFFF, 1, b"n", b"ticket", False)))
        assert ticket_of(pair).lifetime == 7 * 86_400

    def test_a_limit_on_early_data_is_a_protocol_violation(self) -> None:
        message = bytearray(encode_new_session_ticket(NewSessionTicket(10, 1, b"n", b"ticket", True)))
        message[-1] = 0
        with pytest.raises(TlsAlert) as caught:
            self.send(bytes(message))
        assert caught.value.quic_error_code == 0x0A

    @given(st.binary(max_size=100))
    def test_any_body(self, body: bytes) -> None:
        pair = Pair(client_tls(tickets=True)).run()
        try:
            pair.tls_client.receive(Level.ONE_RTT, encode_message(HandshakeType.NEW_SESSION_TICKET, body), 1000.0)
        except TlsAlert:
            return
        pair.client.drain()
        assert len(pair.client.of(TicketReceived)) <= 1
