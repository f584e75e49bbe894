"""When 1-RTT keys change (RFC 9001 §6); packet_crypto.py holds the keys themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        """A 1-RTT packet opened; perhaps it brought a key update (RFC 9001 §6.2)."""
        connection = self._connection
        if connection.one_rtt is not None and connection.one_rtt.opened(
            keys, number, connection.application.next_number
        ):
            self._on_updated(now)

    def _on_updated(self, now: float) -> None:
        self.count += 1
        self.begin()
        self._connection.timers.discard_keys_at = now + 3 * self._connection.probe_interval
