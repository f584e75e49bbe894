"""Our TLS against aioquic's, in memory: both roles, all suites and kinds of certificate, resumption and 0-RTT."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from aioquic import tls as peer_tls
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from cryptography import x509

from a2al_trio.quic.packet_crypto import VERSION_1
from a2al_trio.quic.tls import (
    CipherSuite,
    ClientAuthentication,
    EarlyDataDecided,
    Engine,
    Level,
    NamedGroup,
    SessionTicket,
    TicketKeys,
    TicketReceived,
    TlsClient,
    TlsServer,
)
from tests.quic.tls_support import client_tls, credentials, drbg, server_tls

LEVELS = {
    peer_tls.Epoch.INITIAL: Level.INITIAL,
    peer_tls.Epoch.HANDSHAKE: Level.HANDSHAKE,
    peer_tls.Epoch.ONE_RTT: Level.ONE_RTT,
}
EARLY_DATA = 0xFFFFFFFF


def peer_context(*, is_client: bool, kind: str | None) -> Any:
    context = peer_tls.Context(
        is_client=is_client,
        alpn_protocols=["test"],
        verify_mode=ssl.CERT_NONE,
        max_early_data=None if is_client else EARLY_DATA,
        server_name="example.test" if is_client else None,
    )
    context.handshake_extensions = [(peer_tls.ExtensionType.QUIC_TRANSPORT_PARAMETERS, b"peer parameters")]
    if kind is not None:
        theirs = credentials(kind, "aioquic")
        context.certificate = x509.load_der_x509_certificate(theirs.chain[0])
        context.certificate_private_key = theirs.private_key
    return context


def converse(ours: Engine, peer: Any, *, now: float, peer_starts: bool) -> None:
    buffers = {epoch: Buffer(capacity=8192) for epoch in LEVELS}
    if peer_starts:
        peer.handle_message(b"", buffers)
    for _ in range(4):
        for epoch, buffer in buffers.items():
            data = buffer.data
            buffer.seek(0)
            if data:
                ours.receive(LEVELS[epoch], data, now)
        for level in LEVELS.values():
            if output := ours.take_output(level):
                peer.handle_message(output, buffers)


@pytest.mark.parametrize("suite", list(CipherSuite))
@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
@pytest.mark.parametrize("group", [NamedGroup.X25519, NamedGroup.SECP256R1])
def test_our_client_handshakes_and_resumes(suite: CipherSuite, kind: str, group: NamedGroup) -> None:
    tickets: dict[bytes, Any] = {}
    ticket: SessionTicket | None = None
    for attempt in ("first", "second"):
        settings = client_tls(suites=(suite,), groups=(group,), key_shares=(group,), tickets=True, early_data=True)
        client = TlsClient(
            settings,
            server_name="example.test",
            transport_parameters=b"parameters",
            entropy=drbg(attempt),
            quic_version=VERSION_1,
            ticket=ticket,
        )
        client.start(1000.0)
        peer = peer_context(is_client=False, kind=kind)
        peer.new_session_ticket_cb = lambda new: tickets.update({new.ticket: new})
        peer.get_session_ticket_cb = tickets.get
        converse(client, peer, now=1000.0, peer_starts=False)
        assert client.complete
        assert peer.state is peer_tls.State.SERVER_POST_HANDSHAKE
        assert client.alpn == peer.alpn_negotiated == "test"
        assert client.peer_certificates == credentials(kind, "aioquic").chain
        events = list(iter(client.next_event, None))
        ticket = next(event.ticket for event in events if isinstance(event, TicketReceived))
        if attempt == "second":
            assert client.resumed
            assert EarlyDataDecided(True) in events


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
@pytest.mark.parametrize("authentication", list(ClientAuthentication))
def test_our_server_handshakes_and_resumes(kind: str, authentication: ClientAuthentication) -> None:
    settings = server_tls(
        credentials=credentials(kind), client_authentication=authentication, tickets=TicketKeys(drbg("tickets")),
        early_data=True,
    )  # fmt: skip
    tickets: list[Any] = []
    for attempt in ("first", "second"):
        server = TlsServer(
            settings, transport_parameters=lambda theirs: b"ours", entropy=drbg(attempt), quic_version=VERSION_1
        )
        shows_certificate = authentication is not ClientAuthentication.NONE
        peer = peer_context(is_client=True, kind="ed25519" if shows_certificate else None)
        peer.new_session_ticket_cb = tickets.append
        peer.session_ticket = tickets[-1] if tickets else None
        converse(server, peer, now=1000.0, peer_starts=True)
        assert server.complete
        assert peer.state is peer_tls.State.CLIENT_POST_HANDSHAKE
        expected = credentials("ed25519", "aioquic").chain if shows_certificate else ()
        assert server.peer_certificates == expected
        assert server.resumed == server.early_data_accepted == (attempt == "second")
