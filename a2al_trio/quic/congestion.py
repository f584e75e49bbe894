"""The congestion controller port (RFC 9002 §7).

Controllers see runs, not packets: one `on_sent` per run of datagrams and one `on_acked` per ACK frame. Rounds and
recovery periods are therefore told apart by *send times*: a packet sent before a period began belongs to the one
before it. That is the same order as packet numbers give, and needs nothing remembered per packet.

A controller class is its own factory: `QuicConfig.congestion` takes any callable from the path's datagram size to a
controller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = [
    "CongestionController",
    "CongestionFactory",
    "RttSample",
    "initial_window",
    "minimum_window",
]


class RttSample(Protocol):
    """Round-trip times of a path, in seconds, as the path's RTT estimator keeps them."""

    @property
    def latest(self) -> float:
        """The most recent sample."""

    @property
    def smoothed(self) -> float:
        """The moving average of RFC 9002 §5.3."""

    @property
    def minimum(self) -> float:
        """The least sample seen."""


class CongestionController(Protocol):
    """Decides how many bytes may be in flight on one path, and how fast they may leave."""

    @property
    def window(self) -> int:
        """Bytes allowed in flight, never less than `minimum_window`."""

    @property
    def slow_start_threshold(self) -> int | None:
        """The window at which slow start ends, or None while it is unknown (or unused by the algorithm)."""

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """Bytes per second at which the window should be spread over a round trip."""

    def on_sent(self, now: float, sent_bytes: int, in_flight: int) -> None:
        """A run of packets left; `in_flight` counts it already."""

    def on_acked(self, now: float, acked_bytes: int, *, sent_at: float, in_flight: int, rtt: RttSample) -> None:
        """Packets were newly acknowledged.

        `sent_at` is when the newest of them left, `in_flight` no longer counts them.
        """

    def on_lost(self, now: float, lost_bytes: int, *, sent_at: float, in_flight: int) -> None:
        """Packets were declared lost.

        `sent_at` is when the newest of them left, `in_flight` no longer counts them.
        """

    def on_spurious_loss(self, now: float, late_bytes: int, *, lost_at: float) -> None:
        """Packets that were declared lost at `lost_at` were acknowledged after all; called after `on_lost`."""

    def on_ecn_ce(self, now: float, *, sent_at: float) -> None:
        """The path marked packets as congested; `sent_at` is when the newest acknowledged packet left."""

    def on_persistent_congestion(self, now: float) -> None:
        """Everything sent over a long period was lost (RFC 9002 §7.6); called after `on_lost`."""

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Sending stopped for lack of data although the window was open."""

    def set_max_datagram_size(self, size: int) -> None:
        """The path carries datagrams of `size` bytes from now on."""


CongestionFactory = Callable[[int], CongestionController]
"""Makes the controller of a new path from its datagram size in bytes."""


def initial_window(max_datagram_size: int) -> int:
    """The window of a new path: ten datagrams, within the bounds of RFC 9002 §7.2."""
    return min(10 * max_datagram_size, max(14720, 2 * max_datagram_size))


def minimum_window(max_datagram_size: int) -> int:
    """The least window any event may leave (RFC 9002 §7.2)."""
    return 2 * max_datagram_size
