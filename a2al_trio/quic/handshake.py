"""The TLS handshake inside a connection: CRYPTO data in and out, keys, transport parameters, version negotiation.

RFC 9001 §4, RFC 9000 §7; compatible version negotiation: RFC 9368.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from a2al_trio.quic.ack_frequency import MIN_ACK_DELAY
from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.packet_crypto import OneRttKeys, PacketKeys, initial_keys, packet_keys
from a2al_trio.quic.tls import (
    EarlyDataDecided,
    HandshakeComplete,
    KeysReady,
    Level,
    PeerParameters,
    TicketReceived,
    TlsAlert,
    TlsClient,
    TlsServer,
)
from a2al_trio.quic.transport_params import (
    TransportParameterError,
    TransportParameters,
    VersionInformation,
    decode_transport_parameters,
)

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.tls import ClientTls, ServerTls, SessionTicket, TlsEvent

__all__ = ["Handshake"]

_SPACE_OF_LEVEL = {Level.INITIAL: 0, Level.HANDSHAKE: 1, Level.ONE_RTT: 2}
_REMEMBERED = (
    "initial_max_data",
    "initial_max_stream_data_bidi_local",
    "initial_max_stream_data_bidi_remote",
    "initial_max_stream_data_uni",
    "initial_max_streams_bidi",
    "initial_max_streams_uni",
    "active_connection_id_limit",
    "max_datagram_frame_size",
)


@attrs.frozen
class Outcome:
    """What the handshake has settled."""

    alpn: str | None = None
    server_name: str | None = None
    peer_certificates: tuple[bytes, ...] = ()
    resumed: bool = False
    early_data_accepted: bool = False


class Handshake:
    """Runs a TLS engine for one connection and installs what it yields."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._client_tls: ClientTls | None = None
        self._server_name: str | None = None
        self.engine: TlsClient | TlsServer | None = None
        self._settled: Outcome | None = None
        self._send_one_rtt: PacketKeys | None = None
        self._receive_one_rtt: PacketKeys | None = None
        self.early_receive_keys: PacketKeys | None = None
        self.peer_parameters: TransportParameters | None = None
        self.original_cid = b""
        """The client's first Destination Connection ID."""
        self.retry_cid: bytes | None = None
        """The Source Connection ID of the Retry that was sent or received."""
        self.negotiated_from: tuple[int, ...] | None = None
        """Versions of the Version Negotiation packet that led here (client)."""
        self._remembered: TransportParameters | None = None
        """What the ticket's server allowed, while 0-RTT is tried (client)."""
        self.initial_receive: dict[int, PacketKeys] = {}
        """Initial keys by version: a client's first flight may use another one than the rest (RFC 9368 §5)."""

    @property
    def outcome(self) -> Outcome:
        """What is settled so far; of a failed handshake too."""
        engine = self.engine
        if engine is None:
            return self._settled or Outcome()
        return Outcome(
            engine.alpn, engine.server_name, engine.peer_certificates, engine.resumed, engine.early_data_accepted
        )

    def forget_early_keys(self) -> None:
        """Initial and 0-RTT packets are over."""
        self.initial_receive.clear()
        self.early_receive_keys = None

    # Initial keys

    def install_initial_keys(self, cid: bytes, version: int) -> None:
        """Derive the Initial keys of both directions from the client's Destination Connection ID."""
        connection = self._connection
        keys = initial_keys(cid, version)
        own, peer = (keys.client, keys.server) if connection.is_client else (keys.server, keys.client)
        connection.spaces[0].send_keys = own
        self.initial_receive[version] = peer

    def initial_keys_for(self, version: int) -> PacketKeys | None:
        """Return keys for a received Initial; a server's first answer may come in another of our versions."""
        keys = self.initial_receive.get(version)
        if keys is None and self._connection.is_client and version in self._connection.config.versions:
            own = initial_keys(self.retry_cid or self.original_cid, version)
            return own.server
        return keys

    def switch_version(self, version: int) -> None:
        """Continue in a compatible version (RFC 9369 §4.1)."""
        connection = self._connection
        if version == connection.version:
            return
        connection.version = version
        self.install_initial_keys(self.retry_cid or self.original_cid, version)
        if self.engine is not None:
            self.engine.quic_version = version

    # Starting

    def start_client(
        self, tls: ClientTls, *, server_name: str | None, ticket: SessionTicket | None, now: float
    ) -> None:
        """Make the ClientHello."""
        connection = self._connection
        self._client_tls, self._server_name = tls, server_name
        if ticket is not None and (ticket.quic_version != connection.version or not ticket.is_usable(now)):
            ticket = None
        self.engine = client = TlsClient(
            tls,
            server_name=server_name,
            transport_parameters=self._own_parameters(),
            entropy=connection.entropy,
            quic_version=connection.version,
            ticket=ticket,
        )
        if ticket is not None and ticket.early_data and tls.early_data:
            self._remembered = decode_transport_parameters(ticket.peer_parameters, from_server=True)
            self._apply_limits(self._remembered)
        client.start(now)
        self._drain(now)

    def restart_client(self, now: float) -> None:
        """Make another ClientHello, for another version."""
        assert self._client_tls is not None
        self.start_client(self._client_tls, server_name=self._server_name, ticket=None, now=now)

    def start_server(self, tls: ServerTls) -> None:
        """Wait for a ClientHello."""
        connection = self._connection
        config = connection.config
        context = repr((config.connection_window, config.stream_window, config.max_bidirectional_streams,
                        config.max_unidirectional_streams, config.max_datagram_frame_size)).encode()  # fmt: skip
        self.engine = TlsServer(
            tls,
            transport_parameters=self._answer_parameters,
            entropy=connection.entropy,
            quic_version=connection.version,
            early_data_context=context,
        )

    def receive(self, space_index: int, data: bytes, now: float) -> None:
        """Take handshake bytes in order; raises QuicTransportError or TlsAlert."""
        if self.engine is None:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "handshake data after the handshake", 0x06)
        try:
            self.engine.receive((Level.INITIAL, Level.HANDSHAKE, Level.ONE_RTT)[space_index], data, now)
        except TlsAlert:
            # What was said before the alert still has to leave, for its keys if nothing else.
            self._drain(now)
            raise
        self._drain(now)

    def _drain(self, now: float) -> None:
        engine = self.engine
        assert engine is not None
        while (event := engine.next_event()) is not None:
            self._on_event(event, now)
        if engine.has_output:
            for level, index in _SPACE_OF_LEVEL.items():
                output = engine.take_output(level)
                if output:
                    self._connection.spaces[index].crypto.send.write(output)
        if engine.complete and not self._connection.is_client:
            # A server hears no more of TLS; a client may yet get session tickets.
            self._settled = self.outcome
            self.engine = None

    def _on_event(self, event: TlsEvent, now: float) -> None:
        connection = self._connection
        match event:
            case KeysReady():
                self._install(event)
            case PeerParameters(data=data):
                self.take_parameters(self._decode(data))
            case EarlyDataDecided(accepted=accepted):
                connection.establishment.on_early_data_decided(accepted=accepted)
            case HandshakeComplete():
                self._activate_one_rtt()
                connection.establishment.on_handshake_complete(now)
            case TicketReceived(ticket=ticket):
                connection.reports.on_ticket(ticket)

    def _install(self, ready: KeysReady) -> None:
        connection = self._connection
        keys = packet_keys(ready.suite, ready.secret, connection.version)
        if ready.level is Level.HANDSHAKE:
            space = connection.spaces[1]
            if ready.sending:
                space.send_keys = keys
            else:
                space.receive_keys = keys
        elif ready.level is Level.EARLY:
            if ready.sending:
                connection.early_keys = keys
            else:
                self.early_receive_keys = keys
        elif ready.sending:
            self._send_one_rtt = keys
            if self.early_receive_keys is not None:
                self._answer_early_data(keys)
        else:
            self._receive_one_rtt = keys

    def _answer_early_data(self, keys: PacketKeys) -> None:
        """Server: the answer to 0-RTT data need not wait for the client's Finished (RFC 9001 §4.1.1, §5.7)."""
        # Nothing is received with these before the handshake is complete, which brings the real receiving keys.
        self._connection.one_rtt = OneRttKeys(keys, keys)
        self._connection.reports.on_early()

    def _activate_one_rtt(self) -> None:
        assert self._send_one_rtt is not None
        assert self._receive_one_rtt is not None
        connection = self._connection
        connection.one_rtt = OneRttKeys(self._send_one_rtt, self._receive_one_rtt)
        connection.key_updates.begin()
        self._send_one_rtt = self._receive_one_rtt = None
        connection.early_keys = None

    # Transport parameters

    def _decode(self, data: bytes) -> TransportParameters:
        try:
            return decode_transport_parameters(data, from_server=self._connection.is_client)
        except TransportParameterError as error:
            raise QuicTransportError(TransportErrorCode.TRANSPORT_PARAMETER_ERROR, str(error)) from None

    def _answer_parameters(self, client_parameters: bytes) -> bytes:
        """Server: take the client's parameters, choose the version, and return ours."""
        connection = self._connection
        self.take_parameters(self._decode(client_parameters))
        parameters = self.peer_parameters
        if parameters is not None and parameters.version_information is not None:
            offered = parameters.version_information.available
            chosen = next((version for version in connection.config.versions if version in offered), None)
            if chosen is not None:
                self.switch_version(chosen)
        return self._own_parameters()

    def _own_parameters(self) -> bytes:
        connection, config = self._connection, self._connection.config
        is_client = connection.is_client
        grease = (int.from_bytes(connection.entropy(2), "big"), connection.entropy(4)) if config.grease else None
        available = config.versions
        return TransportParameters(
            original_destination_connection_id=None if is_client else self.original_cid,
            max_idle_timeout_ms=int(config.idle_timeout * 1000),
            stateless_reset_token=None if is_client else connection.first_reset_token,
            max_udp_payload_size=config.max_udp_payload_size,
            initial_max_data=config.connection_window,
            initial_max_stream_data_bidi_local=config.stream_window,
            initial_max_stream_data_bidi_remote=config.stream_window,
            initial_max_stream_data_uni=config.stream_window,
            initial_max_streams_bidi=config.max_bidirectional_streams,
            initial_max_streams_uni=config.max_unidirectional_streams,
            max_ack_delay_ms=int(config.max_ack_delay * 1000) + 1,
            disable_active_migration=not config.active_migration,
            active_connection_id_limit=config.active_connection_id_limit,
            initial_source_connection_id=connection.source_cid,
            retry_source_connection_id=None if is_client else self.retry_cid,
            version_information=VersionInformation(connection.version, available),
            max_datagram_frame_size=config.max_datagram_frame_size,
            min_ack_delay_us=int(MIN_ACK_DELAY * 1_000_000) if config.ack_frequency else None,
            preferred_address=None if is_client else connection.preferred_address,
        ).encode(grease=grease)

    def take_parameters(self, parameters: TransportParameters) -> None:
        """Check the peer's parameters against the packets seen (RFC 9000 §7.3) and put them into effect."""
        connection = self._connection
        code = TransportErrorCode.TRANSPORT_PARAMETER_ERROR
        if parameters.initial_source_connection_id != connection.handshake_peer_cid:
            raise QuicTransportError(code, "initial_source_connection_id does not match")
        if connection.is_client:
            if parameters.original_destination_connection_id != self.original_cid:
                raise QuicTransportError(code, "original_destination_connection_id does not match")
            if parameters.retry_source_connection_id != self.retry_cid:
                raise QuicTransportError(code, "retry_source_connection_id does not match")
        self._check_versions(parameters.version_information)
        self.peer_parameters = parameters
        if self._remembered is not None:
            self._check_remembered(self._remembered, parameters)
        self._apply_limits(parameters)
        connection.establishment.on_peer_parameters(parameters)

    def _check_remembered(self, remembered: TransportParameters, parameters: TransportParameters) -> None:
        """A server that takes 0-RTT data keeps to the limits of the ticket (RFC 9000 §7.4.1)."""
        if self.engine is None or not self.engine.early_data_accepted:
            self._connection.streams.forget_peer_limits()
            self._connection.flow.send_limit = 0
        elif any(getattr(parameters, name) < getattr(remembered, name) for name in _REMEMBERED):
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "limits fell below those of the ticket")

    def _check_versions(self, information: VersionInformation | None) -> None:
        """Authenticate version negotiation (RFC 9368 §4)."""
        connection = self._connection
        code = TransportErrorCode.VERSION_NEGOTIATION_ERROR
        if information is None:
            if self.negotiated_from is not None:
                raise QuicTransportError(code, "no version information after a Version Negotiation packet")
            return
        if connection.is_client and information.chosen != connection.version:
            raise QuicTransportError(code, "server chose another version than it speaks")
        if not connection.is_client and information.chosen not in (connection.version, *self.initial_receive):
            raise QuicTransportError(code, "client chose another version than it speaks")
        if self.negotiated_from is not None:
            best = next((version for version in connection.config.versions if version in information.available), None)
            if best != connection.version:
                raise QuicTransportError(code, "version negotiation was tampered with")

    def _apply_limits(self, parameters: TransportParameters) -> None:
        connection = self._connection
        connection.flow.raise_send_limit(parameters.initial_max_data)
        connection.streams.set_peer_parameters(
            window_local=parameters.initial_max_stream_data_bidi_local,
            window_remote=parameters.initial_max_stream_data_bidi_remote,
            window_unidirectional=parameters.initial_max_stream_data_uni,
            counts=(parameters.initial_max_streams_bidi, parameters.initial_max_streams_uni),
        )
        connection.streams.writing.unblock()
        connection.datagrams.peer_limit = parameters.max_datagram_frame_size
