"""When 1-RTT keys change (RFC 9001 §6); packet_crypto.py holds the keys themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.packet_crypto import PacketKeys

__all__ = ["KeyUpdates"]


class KeyUpdates:
    """Moves a connection from one key phase to the next, for either side's reasons."""

    __slots__ = ("_connection", "count", "phase_ends")

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self.count = 0
        self.phase_ends = 1 << 62
        """The packet number from which on we ask for new keys (RFC 9001 §6.6)."""

    def begin(self) -> None:
        """The first 1-RTT keys are there, or new ones: count what they may protect."""
        connection = self._connection
        if connection.one_rtt is not None:
            limit = connection.one_rtt.send.suite.confidentiality_limit
            self.phase_ends = connection.application.next_number + (limit >> 1)

    def update(self, now: float) -> bool:
        """Move on to the next keys if that is allowed now."""
        connection = self._connection
        one_rtt, space = connection.one_rtt, connection.application
        if one_rtt is None or not connection.handshake_confirmed or not one_rtt.may_update(space.largest_acked):
            return False
        one_rtt.update(space.next_number)
        self._on_updated(now)
        return True

    def on_opened(self, keys: PacketKeys, number: int, now: float) -> None:
        """A 1-RTT packet opened; perhaps it brought a key update (RFC 9001 §6.2).

        Raises QuicTransportError when the peer moves on again although we have sent nothing since the last update,
        so that it cannot know that we followed: each update costs as much as many packets.
        """
        one_rtt, next_number = self._connection.one_rtt, self._connection.application.next_number
        if one_rtt is None:
            return
        first_sent = one_rtt.first_sent
        if one_rtt.opened(keys, number, next_number):
            if first_sent == next_number:
                raise QuicTransportError(TransportErrorCode.KEY_UPDATE_ERROR, "keys were updated twice unseen")
            self._on_updated(now)

    def _on_updated(self, now: float) -> None:
        self.count += 1
        self.begin()
        self._connection.timers.discard_keys_at = now + 3 * self._connection.probe_interval
