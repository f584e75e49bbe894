"""The server's side of the TLS 1.3 handshake (RFC 8446 §2, §4), as QUIC uses it (RFC 9001 §4, §8)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

import attrs

from a2al_trio.quic.tls.codepoints import (
    AlertDescription,
    ClientAuthentication,
    ExtensionType,
    HandshakeType,
    Level,
    NamedGroup,
)
from a2al_trio.quic.tls.config import ClientOffer, Credentials, ServerTls, VerifyPeer
from a2al_trio.quic.tls.engine import Engine
from a2al_trio.quic.tls.errors import TlsAlert
from a2al_trio.quic.tls.extensions import encode_alpn, encode_extension
from a2al_trio.quic.tls.groups import answer_share
from a2al_trio.quic.tls.key_schedule import KeySchedule, Transcript, binder, early_traffic_secret, resumption_psk
from a2al_trio.quic.tls.messages import (
    HELLO_RETRY_RANDOM,
    ClientHello,
    NewSessionTicket,
    ServerHello,
    decode_client_hello,
    encode_certificate,
    encode_certificate_request,
    encode_message,
    encode_new_session_ticket,
    encode_server_hello,
)
from a2al_trio.quic.tls.reader import pack_vector
from a2al_trio.quic.tls.tickets import SessionState

__all__ = ["TlsServer"]

MAX_CHAIN_IN_TICKET: Final = 16_384
"""Bytes of a client's certificates a ticket will carry; a client with more gets no ticket."""


@attrs.frozen
class _Resumption:
    """A session a client may resume, its binder checked."""

    state: SessionState
    ticket: bytes
    index: int
    claimed_age: float


def _offer(hello: ClientHello) -> ClientOffer:
    protocols = tuple(name.decode("ascii") for name in hello.alpn if name.isascii())
    return ClientOffer(hello.server_name, protocols, hello.signature_schemes)


class TlsServer(Engine):
    """A server's handshake: pass on what the client sends.

    `transport_parameters` is called once, with what the client sent, and returns ours; it may set `quic_version` and
    may raise, which ends the handshake. `early_data_context` is whatever must not have changed since a ticket was
    issued for 0-RTT data under it to be accepted (RFC 9000 §7.4.1).
    """

    __slots__ = (
        "_client_secret",
        "_config",
        "_early_data_context",
        "_may_issue_tickets",
        "_resumption_secret",
        "_retried_for",
        "_tickets_issued",
        "_transport_parameters",
    )

    is_server = True

    def __init__(
        self,
        config: ServerTls,
        *,
        transport_parameters: Callable[[bytes], bytes],
        entropy: Callable[[int], bytes],
        quic_version: int,
        early_data_context: bytes = b"",
    ) -> None:
        super().__init__(entropy=entropy, quic_version=quic_version, keylog=config.keylog, first_level=Level.INITIAL)
        self._config = config
        self._transport_parameters = transport_parameters
        self._early_data_context = early_data_context
        self._retried_for: NamedGroup | None = None
        self._may_issue_tickets = False
        self._tickets_issued = 0
        self._resumption_secret = b""
        self._client_secret = b""
        self._expected = {HandshakeType.CLIENT_HELLO: self._on_client_hello}

    # --- ClientHello -----------------------------------------------------------------------------------------

    def _on_client_hello(self, message: bytes) -> None:
        hello = decode_client_hello(message[4:])
        offered_version = self.quic_version
        self._client_random = hello.random
        self.server_name = hello.server_name
        if self._config.adapt is not None and self._retried_for is None:
            self._config = self._config.adapt(_offer(hello))
        self.alpn = self._choose_alpn(hello)
        credentials = self._choose_credentials(hello)
        resumption = self._find_resumption(hello, message, offered_version)
        self._choose_suite(hello, resumption)
        group = self._choose_group(hello, message)
        if group is None:
            return
        self._may_issue_tickets = hello.psk_with_dhe
        ours = self._transport_parameters(hello.quic_parameters)
        if self._retried_for is None:
            self._transcript = Transcript(self._suite.hash_name)
        self._transcript.add(message)
        if resumption is not None:
            self._resume(hello, resumption)
        self._send_server_hello(group, hello.key_shares[group], resumption)
        self._send_encrypted_extensions(ours)
        if resumption is None:
            self._send_certificate(credentials, hello)
        self._send_finished()
        client_secret, server_secret = self._schedule.application_secrets(self._transcript.digest())
        self._client_secret = client_secret
        self._keys_ready(Level.ONE_RTT, server_secret, of_server=True)

    def _choose_alpn(self, hello: ClientHello) -> str:
        for protocol in self._config.alpn:
            if protocol.encode() in hello.alpn:
                return protocol
        raise TlsAlert(AlertDescription.NO_APPLICATION_PROTOCOL, "the client offers no protocol we speak")

    def _choose_credentials(self, hello: ClientHello) -> Credentials:
        if self._config.select_credentials is None:
            credentials = self._config.credentials
        else:
            credentials = self._config.select_credentials(hello.server_name)
        if credentials is None:
            raise TlsAlert(AlertDescription.UNRECOGNIZED_NAME, "the client asks for a name we do not serve")
        return credentials

    def _choose_suite(self, hello: ClientHello, resumption: _Resumption | None) -> None:
        if self._retried_for is not None:
            if self._suite not in hello.suites:
                raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the second ClientHello changes the cipher suites")
            return
        if resumption is not None:
            self._suite = resumption.state.suite
            return
        suite = next((suite for suite in self._config.suites if suite in hello.suites), None)
        if suite is None:
            raise TlsAlert(AlertDescription.HANDSHAKE_FAILURE, "the client offers no cipher suite we take")
        self._suite = suite

    def _choose_group(self, hello: ClientHello, message: bytes) -> NamedGroup | None:
        """Return the key exchange group; None when the client has first to send a share for it."""
        if self._retried_for is not None:
            if self._retried_for not in hello.key_shares or hello.early_data:
                raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the second ClientHello is not what we asked for")
            return self._retried_for
        groups = self._config.groups
        group = next((group for group in groups if group in hello.key_shares), None)
        if group is not None:
            return group
        group = next((group for group in groups if group in hello.groups), None)
        if group is None:
            raise TlsAlert(AlertDescription.HANDSHAKE_FAILURE, "the client offers no key exchange group we take")
        self._retried_for = group
        self._transcript = Transcript(self._suite.hash_name)
        self._transcript.add(message)
        self._transcript.fold()
        retry = ServerHello(HELLO_RETRY_RANDOM, self._suite, group, b"")
        self._send(Level.INITIAL, encode_server_hello(retry))
        return None

    # --- resumption ------------------------------------------------------------------------------------------

    def _find_resumption(self, hello: ClientHello, message: bytes, offered_version: int) -> _Resumption | None:
        """Return the first session the client offers that we can resume; a wrong binder ends the handshake."""
        keys = self._config.tickets
        if keys is None or not hello.psk_with_dhe:
            return None
        for index, offer in enumerate(hello.psk_offers):
            state = keys.open(offer.identity, self._now)
            if state is None or not self._may_resume(state, hello, offered_version):
                continue
            covered = message[: -hello.binders_size]
            if self._retried_for is None:
                digest = Transcript(state.suite.hash_name).digest_with(covered)
            else:
                digest = self._transcript.digest_with(covered)
            if not hmac.compare_digest(offer.binder, binder(state.suite, state.secret, digest)):
                raise TlsAlert(AlertDescription.DECRYPT_ERROR, "the client does not hold its ticket's key")
            age = ((offer.obfuscated_age - state.age_add) & 0xFFFFFFFF) / 1000
            return _Resumption(state, offer.identity, index, age)
        return None

    def _may_resume(self, state: SessionState, hello: ClientHello, offered_version: int) -> bool:
        """A session goes on only under the terms it began with; a name, for one, may stand for another identity."""
        return (
            state.suite in self._config.suites
            and state.suite in hello.suites
            and (self._retried_for is None or state.suite == self._suite)
            and state.server_name == hello.server_name
            and state.quic_version == offered_version
            and (
                self._config.client_authentication is not ClientAuthentication.REQUIRED or bool(state.peer_certificates)
            )
        )

    def _resume(self, hello: ClientHello, resumption: _Resumption) -> None:
        state, keys = resumption.state, self._config.tickets
        assert keys is not None
        self.resumed = True
        self.peer_certificates = state.peer_certificates
        if self.peer_certificates and self._config.verify_peer is not None:
            self._judge_peer()
        self.early_data_accepted = (
            hello.early_data
            and self._config.early_data
            and resumption.index == 0  # early data is always under the first key offered (RFC 8446 §4.2.10)
            and self._retried_for is None
            and state.alpn == self.alpn
            and state.early_data_context == self._early_data_context
            and keys.first_use(resumption.ticket, resumption.claimed_age, state, self._now)
        )
        if self.early_data_accepted:
            secret = early_traffic_secret(self._suite, state.secret, self._transcript.digest())
            self._keys_ready(Level.EARLY, secret, of_server=False)

    # --- our flight ------------------------------------------------------------------------------------------

    def _send_server_hello(self, group: NamedGroup, peer_public: bytes, resumption: _Resumption | None) -> None:
        public, shared_secret = answer_share(group, peer_public, self._entropy)
        index = None if resumption is None else resumption.index
        hello = ServerHello(self._entropy(32), self._suite, group, public, index)
        self._send(Level.INITIAL, encode_server_hello(hello))
        psk = None if resumption is None else resumption.state.secret
        self._schedule = KeySchedule(self._suite, shared_secret, self._transcript.digest(), psk)
        self._handshake_keys_ready()
        self._expected = {HandshakeType.FINISHED: self._on_finished}

    def _send_encrypted_extensions(self, transport_parameters: bytes) -> None:
        assert self.alpn is not None
        parts = [
            encode_extension(ExtensionType.ALPN, encode_alpn((self.alpn,))),
            encode_extension(ExtensionType.QUIC_TRANSPORT_PARAMETERS, transport_parameters),
        ]
        if self.server_name is not None:  # RFC 6066 §3: a server that used the name says so
            parts.append(encode_extension(ExtensionType.SERVER_NAME, b""))
        if self.early_data_accepted:
            parts.append(encode_extension(ExtensionType.EARLY_DATA, b""))
        self._send(Level.HANDSHAKE, encode_message(HandshakeType.ENCRYPTED_EXTENSIONS, pack_vector(2, b"".join(parts))))

    def _send_certificate(self, credentials: Credentials, hello: ClientHello) -> None:
        if self._config.client_authentication is not ClientAuthentication.NONE:
            self._send(Level.HANDSHAKE, encode_certificate_request())
            self._expected = {HandshakeType.CERTIFICATE: self._on_certificate}
        self._send(Level.HANDSHAKE, encode_certificate(credentials.chain))
        self._send_certificate_verify(credentials, hello.signature_schemes)

    # --- the client's flight ---------------------------------------------------------------------------------

    def _on_empty_certificate(self) -> None:
        if self._config.client_authentication is ClientAuthentication.REQUIRED:
            raise TlsAlert(AlertDescription.CERTIFICATE_REQUIRED, "the client shows no certificate")
        self._expected = {HandshakeType.FINISHED: self._on_finished}

    def _on_finished(self, message: bytes) -> None:
        self._check_peer_finished(message)
        self._keys_ready(Level.ONE_RTT, self._client_secret, of_server=False)
        self._expected = {}  # clients have nothing more to say; a KeyUpdate least of all (RFC 9001 §6)
        if self._config.tickets is not None:
            self._resumption_secret = self._schedule.resumption_secret(self._transcript.digest())
        self._finish()
        self.issue_ticket(self._now)

    @property
    def _verify_peer(self) -> VerifyPeer | None:
        return self._config.verify_peer

    # --- afterwards ------------------------------------------------------------------------------------------

    def issue_ticket(self, now: float) -> None:
        """Queue a session ticket at the 1-RTT level, if tickets are on and the client can use one.

        One is issued by itself when the handshake completes.
        """
        keys = self._config.tickets
        chain_size = sum(len(certificate) for certificate in self.peer_certificates)
        if keys is None or not self.complete or not self._may_issue_tickets or chain_size > MAX_CHAIN_IN_TICKET:
            return
        assert self.alpn is not None
        nonce = self._tickets_issued.to_bytes(8, "big")
        self._tickets_issued += 1
        state = SessionState(
            suite=self._suite,
            alpn=self.alpn,
            server_name=self.server_name,
            quic_version=self.quic_version,
            secret=resumption_psk(self._suite, self._resumption_secret, nonce),
            age_add=int.from_bytes(self._entropy(4), "big"),
            issued_at=now,
            peer_certificates=self.peer_certificates,
            early_data_context=self._early_data_context,
        )
        message = NewSessionTicket(keys.lifetime, state.age_add, nonce, keys.seal(state, now), self._config.early_data)
        self._queue(Level.ONE_RTT, encode_new_session_ticket(message))
