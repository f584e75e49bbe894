"""From the first packet to a confirmed handshake: connection IDs, discarded spaces, Retry and Version Negotiation.

RFC 9000 §7, §8.1, §17.2.5; RFC 9001 §4.9; RFC 9368.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.events import ConnectionReady
from a2al_trio.quic.migration import is_credible_move
from a2al_trio.quic.packet import LongHeader, PacketType, Retry, VersionNegotiation
from a2al_trio.quic.spaces import CryptoStream

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.transport_params import TransportParameters

__all__ = ["Establishment"]


class Establishment:
    """What happens to one connection before it is established."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._heard = False
        """Whether any packet of the peer was genuine."""

    # First packets

    def accepts_source(self, header: LongHeader) -> bool:
        """Whether the packet's Source Connection ID is the peer's; it never changes once seen (RFC 9000 §7.2)."""
        if self._connection.is_client and not self._heard:
            return True
        return header.source_cid == self._connection.handshake_peer_cid

    def on_long_packet(self, header: LongHeader, path: Path) -> None:
        """A genuine Initial, 0-RTT or Handshake packet arrived."""
        connection = self._connection
        if not self._heard:
            self._heard = True
            if connection.is_client:
                connection.handshake_peer_cid = header.source_cid
                connection.peer_cids.replace_first(header.source_cid)
                path.peer_cid = header.source_cid
                # The server may have taken another of our versions (RFC 9368 §2.3).
                connection.handshake.switch_version(header.version)
        if header.packet_type is PacketType.HANDSHAKE and not connection.is_client:
            path.validated = True
            self.discard_initial()

    def on_retry(self, retry: Retry) -> None:
        """Start again with the server's token (RFC 9000 §17.2.5.2)."""
        connection = self._connection
        handshake = connection.handshake
        if self._heard or handshake.retry_cid is not None or retry.version != connection.version:
            return
        if retry.source_cid == handshake.original_cid:
            return
        handshake.retry_cid = retry.source_cid
        connection.initial_token = retry.token
        connection.handshake_peer_cid = retry.source_cid
        connection.peer_cids.replace_first(retry.source_cid)
        connection.paths.current.peer_cid = retry.source_cid
        handshake.install_initial_keys(retry.source_cid, connection.version)
        self._send_again()

    def on_version_negotiation(self, packet: VersionNegotiation, now: float) -> None:
        """The server does not speak our version: choose one of its own (RFC 9000 §6.2, RFC 9368 §2.1)."""
        connection = self._connection
        handshake = connection.handshake
        if self._heard or handshake.negotiated_from is not None or connection.version in packet.versions:
            return
        if packet.source_cid != handshake.original_cid:
            return  # not from somebody who saw our packet
        chosen = next((version for version in connection.config.versions if version in packet.versions), None)
        if chosen is None:
            offers = ", ".join(f"{version:#010x}" for version in packet.versions)
            connection.ending.on_no_version(f"the server speaks none of our versions, only {offers}", now)
            return
        handshake.negotiated_from = packet.versions
        connection.version = chosen
        self._send_again()
        connection.early_keys = None
        connection.spaces[0].crypto = CryptoStream()
        handshake.install_initial_keys(handshake.original_cid, chosen)
        handshake.restart_client(now)

    def _send_again(self) -> None:
        connection = self._connection
        space = connection.spaces[0]
        connection.recovery.discard(space)
        space.crypto.send.rewind()
        connection.application.probes = 0
        for run in connection.application.sent:
            run.lost(run.first, run.last)
        connection.recovery.discard(connection.application)

    # Keys go

    def discard_initial(self) -> None:
        """Initial keys are of no more use (RFC 9001 §4.9.1)."""
        self._discard(0)

    def _discard(self, index: int) -> None:
        connection = self._connection
        space = connection.spaces[index]
        if not space.discarded:
            connection.recovery.discard(space)
            space.discard()
            connection.handshake_spaces_gone = connection.spaces[0].discarded and connection.spaces[1].discarded
        if index == 0:
            connection.handshake.forget_early_keys()

    # Parameters and completion

    def on_peer_parameters(self, parameters: TransportParameters) -> None:
        """The peer's parameters were checked and its limits are in effect; here is the rest."""
        connection = self._connection
        connection.ack_delay_unit = (1 << parameters.ack_delay_exponent) / 1_000_000
        connection.recovery.peer_max_ack_delay = parameters.max_ack_delay_ms / 1000
        if parameters.min_ack_delay_us is not None and connection.config.ack_frequency:
            minimum, maximum = parameters.min_ack_delay_us / 1_000_000, parameters.max_ack_delay_ms / 1000
            connection.ack_frequency.on_offer(minimum=minimum, maximum=maximum)
            connection.recovery.ack_frequency = connection.ack_frequency
        connection.local_cids.set_limit(parameters.active_connection_id_limit)
        connection.paths.set_peer_limit(parameters.max_udp_payload_size)
        if parameters.stateless_reset_token is not None:
            connection.peer_cids.set_first_token(parameters.stateless_reset_token)
            connection.watch_reset_tokens()
        if parameters.preferred_address is not None:
            preferred = parameters.preferred_address
            connection.peer_cids.adopt(preferred.connection_id, preferred.stateless_reset_token)

    def on_early_data_decided(self, *, accepted: bool) -> None:
        """The server took our 0-RTT data, or all of it goes again as 1-RTT data (RFC 9001 §4.6.2)."""
        connection = self._connection
        connection.early_keys = None
        if not accepted:
            space = connection.application
            for run in space.sent:
                run.lost(run.first, run.last)
            connection.recovery.discard(space)

    def on_handshake_complete(self, now: float) -> None:
        """TLS is done on our side (RFC 9001 §4.1.1)."""
        connection = self._connection
        parameters = connection.handshake.peer_parameters
        assert parameters is not None
        connection.ready = True
        connection.timers.on_established(parameters.max_idle_timeout_ms / 1000)
        connection.local_cids.replenish()
        connection.on_ready(ConnectionReady(connection), now)
        if not connection.is_client:
            connection.handshake_done_pending = True
            connection.recovery.peer_validated_address = True
            self.confirm(now)

    def confirm(self, now: float) -> None:
        """Both sides know that the handshake is complete (RFC 9001 §4.1.2)."""
        connection = self._connection
        if connection.handshake_confirmed:
            return
        connection.handshake_confirmed = True
        connection.recovery.handshake_confirmed = True
        connection.recovery.peer_validated_address = True
        self._discard(0)
        self._discard(1)
        connection.paths.enable_mtu_search()
        parameters = connection.handshake.peer_parameters
        preferred = parameters.preferred_address if parameters is not None else None
        if connection.is_client and preferred is not None:
            wanted = preferred.ipv6 if connection.peer_address.is_ipv6 else preferred.ipv4
            if wanted not in (None, connection.peer_address) and is_credible_move(connection.peer_address, wanted):
                connection.migration.move_to(wanted, None)
