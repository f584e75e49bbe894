"""Figures of a connection for users and logs."""

from __future__ import annotations

import attrs

__all__ = ["ConnectionStats"]


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
