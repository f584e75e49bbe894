"""Figures of a connection for users and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore

__all__ = ["ConnectionStats", "take_stats"]


@attrs.frozen(kw_only=True)
class ConnectionStats:
    """A snapshot. Times in seconds, sizes in bytes, counts since the connection began."""

    smoothed_rtt: float
    latest_rtt: float
    minimum_rtt: float
    rtt_variation: float
    congestion_window: int
    bytes_in_flight: int
    datagram_size: int
    """Size of full datagrams on the current path."""
    packets_sent: int
    packets_received: int
    packets_lost: int
    packets_late: int
    """How many of the lost ones arrived after all."""
    bytes_sent: int
    bytes_received: int
    """UDP payload bytes."""
    undecryptable_packets: int
    """Packets dropped because they did not decrypt or came without keys for them."""
    open_streams: int
    key_updates: int
    path_changes: int
    ecn_capable: bool
    """Whether the path proved to carry ECN marks."""


def take_stats(connection: QuicConnectionCore) -> ConnectionStats:
    """Return the figures as of now."""
    path = connection.paths.current
    return ConnectionStats(
        smoothed_rtt=path.rtt.smoothed,
        latest_rtt=path.rtt.latest,
        minimum_rtt=path.rtt.minimum,
        rtt_variation=path.rtt.variation,
        congestion_window=path.congestion.window,
        bytes_in_flight=path.in_flight,
        datagram_size=path.mtu.size,
        packets_sent=sum(space.next_number for space in connection.spaces),
        packets_received=connection.intake.packets,
        packets_lost=connection.recovery.lost_packets,
        packets_late=connection.recovery.late_packets,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        undecryptable_packets=connection.intake.undecryptable,
        open_streams=len(connection.streams),
        key_updates=connection.key_updates.count,
        path_changes=connection.paths.changes,
        ecn_capable=path.ecn.is_capable,
    )
