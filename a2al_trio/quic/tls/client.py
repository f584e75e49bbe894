"""The client's side of the TLS 1.3 handshake (RFC 8446 §2, §4), as QUIC uses it (RFC 9001 §4, §8)."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Final

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls.codepoints import AlertDescription, ExtensionType, HandshakeType, Level, NamedGroup
from a2al_trio.quic.tls.config import ClientTls, VerifyPeer
from a2al_trio.quic.tls.engine import Engine
from a2al_trio.quic.tls.errors import TlsAlert
from a2al_trio.quic.tls.events import EarlyDataDecided, PeerParameters, TicketReceived
from a2al_trio.quic.tls.extensions import (
    TLS_1_3,
    decode_alpn,
    encode_alpn,
    encode_extension,
    encode_key_shares,
    encode_numbers,
    encode_server_name,
    encode_signature_algorithms,
)
from a2al_trio.quic.tls.groups import OfferedShare, offer_share
from a2al_trio.quic.tls.key_schedule import KeySchedule, Transcript, binder, early_traffic_secret, resumption_psk
from a2al_trio.quic.tls.messages import (
    LEGACY_VERSION,
    ServerHello,
    decode_certificate_request,
    decode_encrypted_extensions,
    decode_new_session_ticket,
    decode_server_hello,
    encode_certificate,
    encode_message,
)
from a2al_trio.quic.tls.reader import pack_vector
from a2al_trio.quic.tls.signatures import choose_scheme
from a2al_trio.quic.tls.suites import CipherSuite
from a2al_trio.quic.tls.tickets import SessionTicket

__all__ = ["TlsClient"]

MAX_TICKETS: Final = 8
"""Tickets taken from one connection; a server may send as many as it likes, and the rest is ignored."""
MAX_LIFETIME: Final = 7 * 86_400
"""Seconds no ticket may outlive, whatever the server says (RFC 8446 §4.6.1)."""


@functools.lru_cache(maxsize=64)
def _fixed_extensions(groups: tuple[NamedGroup, ...], alpn: tuple[str, ...]) -> bytes:
    """The extensions that depend on settings alone."""
    return b"".join(
        (
            encode_extension(ExtensionType.SUPPORTED_VERSIONS, pack_vector(1, TLS_1_3.to_bytes(2, "big"))),
            encode_extension(ExtensionType.SUPPORTED_GROUPS, encode_numbers(2, groups)),
            encode_extension(ExtensionType.SIGNATURE_ALGORITHMS, encode_signature_algorithms()),
            encode_extension(ExtensionType.ALPN, encode_alpn(alpn)),
        )
    )


def _indication(server_name: str | None) -> bytes:
    """The server_name extension; an IP address has none (RFC 6066 §3)."""
    if server_name is None:
        return b""
    if not server_name.isascii() or not 0 < len(server_name) < 256:
        raise ConfigurationError("server_name must be 1 to 255 ASCII characters; encode other names with IDNA first")
    try:
        ipaddress.ip_address(server_name)
    except ValueError:
        return encode_extension(ExtensionType.SERVER_NAME, encode_server_name(server_name))
    return b""


class TlsClient(Engine):
    """A client's handshake. Call `start`, then pass on what the server sends.

    `transport_parameters` is the body of the extension. A `ticket` that does not fit the settings or has expired is
    not offered. Raises `ConfigurationError` for a `server_name` that cannot be sent.
    """

    __slots__ = (
        "_certificate_schemes",
        "_config",
        "_early_data_tried",
        "_hello",
        "_indication",
        "_peer_parameters",
        "_resumption_secret",
        "_retried",
        "_shares",
        "_ticket",
        "_tickets_taken",
        "_transport_parameters",
    )

    is_server = False

    def __init__(
        self,
        config: ClientTls,
        *,
        server_name: str | None,
        transport_parameters: bytes,
        entropy: Callable[[int], bytes],
        quic_version: int,
        ticket: SessionTicket | None = None,
    ) -> None:
        super().__init__(entropy=entropy, quic_version=quic_version, keylog=config.keylog, first_level=Level.INITIAL)
        self.server_name = server_name
        self._config = config
        self._indication = _indication(server_name)
        self._transport_parameters = transport_parameters
        self._ticket = ticket
        self._shares: dict[NamedGroup, OfferedShare] = {}
        self._early_data_tried = False
        self._retried = False
        self._hello = b""
        self._peer_parameters = b""
        self._certificate_schemes: tuple[int, ...] | None = None  # what a CertificateRequest asks for
        self._resumption_secret = b""
        self._tickets_taken = 0

    def start(self, now: float) -> None:
        """Make the ClientHello."""
        self._now = now
        self._client_random = self._entropy(32)
        if self._ticket is not None and not self._fits(self._ticket):
            self._ticket = None
        ticket = self._ticket
        self._early_data_tried = ticket is not None and ticket.early_data and self._config.early_data
        self._shares = {group: offer_share(group, self._entropy) for group in self._config.key_shares}
        self._hello = self._client_hello(None, None)
        self._queue(Level.INITIAL, self._hello)
        self._expected = {HandshakeType.SERVER_HELLO: self._on_server_hello}
        if self._early_data_tried:
            assert ticket is not None
            self._suite = ticket.suite
            transcript = Transcript(ticket.suite.hash_name)
            secret = early_traffic_secret(ticket.suite, ticket.secret, transcript.digest_with(self._hello))
            self._keys_ready(Level.EARLY, secret, of_server=False)

    def _fits(self, ticket: SessionTicket) -> bool:
        return (
            ticket.is_usable(self._now)
            and ticket.suite in self._config.suites
            and ticket.alpn in self._config.alpn
            and ticket.server_name == self.server_name
            and ticket.quic_version == self.quic_version
        )

    # --- ClientHello -----------------------------------------------------------------------------------------

    def _client_hello(self, retry: ServerHello | None, transcript: Transcript | None) -> bytes:
        """Return a ClientHello: the first, or the one that answers `retry` after `transcript`."""
        shares = encode_key_shares((group, share.public) for group, share in self._shares.items())
        ticket = self._ticket
        parts = [
            self._indication,
            _fixed_extensions(self._config.groups, self._config.alpn),
            encode_extension(ExtensionType.KEY_SHARE, pack_vector(2, shares)),
            encode_extension(ExtensionType.QUIC_TRANSPORT_PARAMETERS, self._transport_parameters),
        ]
        if retry is not None and retry.cookie is not None:
            parts.append(encode_extension(ExtensionType.COOKIE, pack_vector(2, retry.cookie)))
        if ticket is not None or self._config.tickets:  # only with this does a server send tickets (§4.2.9)
            parts.append(encode_extension(ExtensionType.PSK_KEY_EXCHANGE_MODES, b"\x01\x01"))
        if self._early_data_tried and retry is None:
            parts.append(encode_extension(ExtensionType.EARLY_DATA, b""))
        if ticket is not None:
            parts.append(self._psk_extension(ticket))
        head = LEGACY_VERSION + self._client_random + b"\0" + encode_numbers(2, self._config.suites) + b"\x01\0"
        message = encode_message(HandshakeType.CLIENT_HELLO, head + pack_vector(2, b"".join(parts)))
        if ticket is None:
            return message
        covered = message[: -(ticket.suite.hash_size + 3)]
        if transcript is None:
            transcript = Transcript(ticket.suite.hash_name)
        proof = binder(ticket.suite, ticket.secret, transcript.digest_with(covered))
        return covered + pack_vector(2, pack_vector(1, proof))

    def _psk_extension(self, ticket: SessionTicket) -> bytes:
        """The pre_shared_key extension with zeros where the binder will be (§4.2.11)."""
        age = (int((self._now - ticket.received_at) * 1000) + ticket.age_add) & 0xFFFFFFFF
        identity = pack_vector(2, ticket.ticket) + age.to_bytes(4, "big")
        binders = pack_vector(1, bytes(ticket.suite.hash_size))
        return encode_extension(ExtensionType.PRE_SHARED_KEY, pack_vector(2, identity) + pack_vector(2, binders))

    # --- ServerHello -----------------------------------------------------------------------------------------

    def _on_server_hello(self, message: bytes) -> None:
        hello = decode_server_hello(message[4:])
        if hello.suite not in self._config.suites or (self._retried and hello.suite != self._suite):
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, f"cipher suite {hello.suite:#06x} is not to be chosen")
        self._suite = CipherSuite(hello.suite)
        if not self._retried:
            self._transcript = Transcript(self._suite.hash_name)
            self._transcript.add(self._hello)
        if hello.is_retry:
            self._on_hello_retry(hello, message)
            return
        share = next((share for group, share in self._shares.items() if group == hello.group), None)
        if share is None:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the server chose a group without a key share of ours")
        psk = self._accepted_psk(hello)
        self._transcript.add(message)
        self._schedule = KeySchedule(self._suite, share.complete(hello.public), self._transcript.digest(), psk)
        self._shares.clear()
        self._hello = b""
        self._handshake_keys_ready()
        self._expected = {HandshakeType.ENCRYPTED_EXTENSIONS: self._on_encrypted_extensions}

    def _accepted_psk(self, hello: ServerHello) -> bytes | None:
        if hello.psk_index is None:
            return None
        ticket = self._ticket
        if ticket is None or hello.psk_index != 0 or ticket.suite.hash_name != self._suite.hash_name:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the server chose a pre-shared key we did not offer")
        self.resumed = True
        return ticket.secret

    def _on_hello_retry(self, retry: ServerHello, message: bytes) -> None:
        """Answer a HelloRetryRequest (§4.1.4)."""
        if self._retried:
            raise TlsAlert(AlertDescription.UNEXPECTED_MESSAGE, "a second HelloRetryRequest")
        self._retried = True
        if retry.group is None and retry.cookie is None:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a HelloRetryRequest that changes nothing")
        if retry.group is not None:
            if retry.group not in self._config.groups or retry.group in self._shares:
                raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "a HelloRetryRequest for a group it cannot ask for")
            group = NamedGroup(retry.group)
            self._shares = {group: offer_share(group, self._entropy)}
        self._transcript.fold()
        self._transcript.add(message)
        if self._ticket is not None and self._ticket.suite.hash_name != self._suite.hash_name:
            self._ticket = None
        self._send(Level.INITIAL, self._client_hello(retry, self._transcript))
        self._decide_early_data(False)

    def _decide_early_data(self, accepted: bool) -> None:
        if self._early_data_tried:
            self._early_data_tried = False
            self.early_data_accepted = accepted
            self._events.append(EarlyDataDecided(accepted))

    # --- the server's encrypted flight -----------------------------------------------------------------------

    def _on_encrypted_extensions(self, message: bytes) -> None:
        extensions = decode_encrypted_extensions(message[4:])
        for kind in extensions:
            if kind not in _MAY_ANSWER or (kind == ExtensionType.EARLY_DATA and not self._early_data_tried):
                raise TlsAlert(AlertDescription.UNSUPPORTED_EXTENSION, f"extension {kind} answers nothing we sent")
        if ExtensionType.ALPN not in extensions:  # RFC 9001 §8.1
            raise TlsAlert(AlertDescription.NO_APPLICATION_PROTOCOL, "the server chose no application protocol")
        chosen = decode_alpn(extensions[ExtensionType.ALPN])
        self.alpn = next((name for name in self._config.alpn if chosen == (name.encode(),)), None)
        if self.alpn is None:
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "the server chose a protocol we did not offer")
        if ExtensionType.QUIC_TRANSPORT_PARAMETERS not in extensions:  # RFC 9001 §8.2
            raise TlsAlert(AlertDescription.MISSING_EXTENSION, "the server sends no transport parameters")
        self._peer_parameters = extensions[ExtensionType.QUIC_TRANSPORT_PARAMETERS]
        self._transcript.add(message)
        accepted = ExtensionType.EARLY_DATA in extensions
        ticket = self._ticket
        if accepted and (ticket is None or not self.resumed or (ticket.suite, ticket.alpn) != (self._suite, self.alpn)):
            raise TlsAlert(AlertDescription.ILLEGAL_PARAMETER, "0-RTT accepted under other terms than it was sent")
        self._events.append(PeerParameters(self._peer_parameters))
        self._decide_early_data(accepted)
        if self.resumed:
            assert ticket is not None
            self.peer_certificates = ticket.peer_certificates
            self._judge_peer()
            self._expected = {HandshakeType.FINISHED: self._on_finished}
        else:
            self._expected = {
                HandshakeType.CERTIFICATE_REQUEST: self._on_certificate_request,
                HandshakeType.CERTIFICATE: self._on_certificate,
            }

    def _on_certificate_request(self, message: bytes) -> None:
        self._certificate_schemes = decode_certificate_request(message[4:])
        self._transcript.add(message)
        self._expected = {HandshakeType.CERTIFICATE: self._on_certificate}

    def _on_empty_certificate(self) -> None:
        raise TlsAlert(AlertDescription.DECODE_ERROR, "the server shows no certificate")

    def _on_finished(self, message: bytes) -> None:
        self._check_peer_finished(message)
        client_secret, server_secret = self._schedule.application_secrets(self._transcript.digest())
        if self._certificate_schemes is not None:
            self._send_certificate(self._certificate_schemes)
        self._send_finished()
        if self._config.tickets:
            self._resumption_secret = self._schedule.resumption_secret(self._transcript.digest())
        self._keys_ready(Level.ONE_RTT, client_secret, of_server=False)
        self._keys_ready(Level.ONE_RTT, server_secret, of_server=True)
        self._expected = {HandshakeType.NEW_SESSION_TICKET: self._on_new_session_ticket}
        self._finish()

    def _send_certificate(self, schemes: tuple[int, ...]) -> None:
        """Show our certificate, or an empty one if we have none the server could check (§4.4.2)."""
        credentials = self._config.credentials
        if credentials is None or choose_scheme(credentials.private_key, schemes) is None:
            self._send(Level.HANDSHAKE, encode_certificate(()))
            return
        self._send(Level.HANDSHAKE, encode_certificate(credentials.chain))
        self._send_certificate_verify(credentials, schemes)

    @property
    def _verify_peer(self) -> VerifyPeer:
        return self._config.verify_peer

    # --- afterwards ------------------------------------------------------------------------------------------

    def _on_new_session_ticket(self, message: bytes) -> None:
        new = decode_new_session_ticket(message[4:])
        if not self._config.tickets or not new.lifetime or self._tickets_taken >= MAX_TICKETS:
            return
        self._tickets_taken += 1
        assert self.alpn is not None
        ticket = SessionTicket(
            server_name=self.server_name,
            ticket=new.ticket,
            secret=resumption_psk(self._suite, self._resumption_secret, new.nonce),
            suite=self._suite,
            alpn=self.alpn,
            quic_version=self.quic_version,
            peer_certificates=self.peer_certificates,
            peer_parameters=self._peer_parameters,
            age_add=new.age_add,
            received_at=self._now,
            lifetime=min(new.lifetime, MAX_LIFETIME),
            early_data=new.early_data,
        )
        self._events.append(TicketReceived(ticket))


_MAY_ANSWER = frozenset(
    {
        ExtensionType.SERVER_NAME,
        ExtensionType.SUPPORTED_GROUPS,
        ExtensionType.ALPN,
        ExtensionType.EARLY_DATA,
        ExtensionType.QUIC_TRANSPORT_PARAMETERS,
    }
)
