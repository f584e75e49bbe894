"""How often to acknowledge, as the sender of the data wants it (draft-ietf-quic-ack-frequency-11).

An ACK for every second packet is much more than a large window needs: a few in each round trip keep the sender going,
and cost both sides a fraction of the work. Each side that offers `min_ack_delay` may be asked by the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.tracked import Resend
from a2al_trio.quic.varint import encode_varint_row

if TYPE_CHECKING:
    from a2al_trio.quic.app_frames import PacketContent
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.frames import AckFrequencyFrame
    from a2al_trio.quic.paths import Path

__all__ = ["BULK", "MIN_ACK_DELAY", "AckFrequency"]

MIN_ACK_DELAY = 0.001
"""The shortest delay of ours that a peer may ask for, in seconds."""

MAX_DELAY_MICROSECONDS = (1 << 14) * 1000 - 1
ACKS_PER_ROUND_TRIP = 32
DELAYS_PER_ROUND_TRIP = 16
"""How many ACKs a window is worth, and which part of a round trip one may wait.

What waits to be acknowledged takes up room in the window: with half as many ACKs, two percent of the goodput are lost
where losses keep the window small.
"""
LARGE_WINDOW, SMALL_WINDOW = 128, 64
"""Datagrams in the window from which on it counts as large, and below which it no longer does."""

QUIET_ACKS = 32
"""So many ACKs in a row after which nothing waited to be sent tell that the application sends little at a time.

Twice as many are needed each time that this turned out wrong.
"""
MOST_QUIET_ACKS = 1 << 16
QUIET_PACKETS = 10
"""How many packets of such an application are worth an ACK; no window is smaller at first."""
FEW_STREAMS, MANY_STREAMS = 2, 16
SPARE_STREAMS = 2 * QUIET_PACKETS
"""With more streams after an ACK, or less room for new ones, ACKs are wanted for what they end. Unidirectional streams
do not count unless there are many."""
BULK = 4096
"""Who writes so many bytes at once is no such application."""


class _Request(NamedTuple):
    """What the peer was asked for; the delay is in seconds."""

    threshold: int
    delay: float
    reordering: int

    def is_like(self, other: _Request) -> bool:
        """Whether they differ so little that the peer need not hear of it."""
        return (
            self.reordering == other.reordering
            and self.threshold <= 2 * other.threshold
            and other.threshold <= 2 * self.threshold
            and self.delay <= 2 * other.delay
            and other.delay <= 2 * self.delay
        )


class AckFrequency:
    """Asks the peer of one connection for fewer acknowledgements, and obeys it."""

    __slots__ = (
        "_asked", "_connection", "_default", "_minimum", "_obeyed", "_quiet", "_quiet_acks", "_quiet_needed",
        "_sequence", "is_quiet", "pending",
    )  # fmt: skip

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._minimum = float("inf")
        self._default = self._quiet = self._asked = _Request(1, 0.0, 1)
        self._quiet_acks = 0
        self._quiet_needed = QUIET_ACKS
        self._sequence = 0
        self._obeyed = -1
        self.is_quiet = False
        """Whether the peer was asked for what suits small messages."""
        self.pending = False
        """Whether an ACK_FREQUENCY frame is to be sent."""

    # Asking

    def on_offer(self, *, minimum: float, maximum: float) -> None:
        """The peer may be asked for delays between these many seconds; `maximum` is what it does unasked."""
        self._minimum = minimum
        self._default = self._asked = _Request(1, maximum, 1)
        self._quiet = _Request(QUIET_PACKETS - 1, max(maximum, minimum), 1)

    def on_acked(self, path: Path) -> None:
        """Something was acknowledged: see whether another frequency would suit the path and the application."""
        streams = self._connection.streams
        if streams.order.levels or self._has_many_streams() or not streams.counts.has_room(SPARE_STREAMS):
            self._leave_quiet()
        elif self._quiet_acks < self._quiet_needed:
            self._quiet_acks += 1
        elif self.is_quiet:
            return
        self._ask(self._wanted(path))

    def _has_many_streams(self) -> bool:
        by_id = self._connection.streams.by_id
        if len(by_id) <= FEW_STREAMS:
            return False
        # Unidirectional ones often stay: HTTP/3 has six of them open all the time.
        return len(by_id) > MANY_STREAMS or sum(not stream_id & 2 for stream_id in by_id) > FEW_STREAMS

    def on_bulk(self) -> None:
        """The application writes more than a little: what suits small messages would hold it up."""
        self._leave_quiet()
        self._ask(self._default)

    def _leave_quiet(self) -> None:
        self._quiet_acks = 0
        if self.is_quiet:
            self._quiet_needed = min(2 * self._quiet_needed, MOST_QUIET_ACKS)

    def _ask(self, wanted: _Request) -> None:
        if not wanted.is_like(self._asked):
            self._asked = wanted
            self.is_quiet = wanted is self._quiet
            self.pending = True

    def _wanted(self, path: Path) -> _Request:
        if self._quiet_acks >= self._quiet_needed:
            return self._quiet
        delay = path.rtt.smoothed / DELAYS_PER_ROUND_TRIP
        if delay < self._minimum or path.congestion.slow_start_threshold is None:
            return self._default  # slow start lives by its ACKs, and short round trips by prompt ones
        count = path.congestion.window // path.mtu.size
        if count < SMALL_WINDOW or (count < LARGE_WINDOW and self._asked is self._default):
            return self._default
        return _Request(count // ACKS_PER_ROUND_TRIP, min(delay, self._default.delay), path.patience.packets)

    def add_frame(self, content: PacketContent) -> None:
        """Add the ACK_FREQUENCY frame that is due."""
        asked, self.pending = self._asked, False
        row = encode_varint_row((self._sequence, asked.threshold, int(asked.delay * 1_000_000), asked.reordering))
        self._sequence += 1
        content.add(b"\x40\xaf" + row, Resend(self._ask_again))

    def _ask_again(self) -> None:
        self.pending = True

    # Obeying

    def on_request(self, frame: AckFrequencyFrame) -> None:
        """Take ACK_FREQUENCY; raises QuicTransportError if it asks for what we did not offer."""
        self._check_offered(0xAF)
        if not MIN_ACK_DELAY * 1_000_000 <= frame.delay_microseconds <= MAX_DELAY_MICROSECONDS:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "a delay of ACKs out of bounds", 0xAF)
        if frame.sequence <= self._obeyed:
            return
        self._obeyed = frame.sequence
        self._connection.application.acks.set_frequency(
            packets=frame.threshold + 1, max_delay=frame.delay_microseconds / 1_000_000, reordering=frame.reordering
        )

    def on_immediate(self, now: float) -> None:
        """Take IMMEDIATE_ACK."""
        self._check_offered(0x1F)
        self._connection.application.acks.ack_now(now)

    def _check_offered(self, frame_type: int) -> None:
        if not self._connection.config.ack_frequency:
            raise QuicTransportError(TransportErrorCode.FRAME_ENCODING_ERROR, "unknown frame type", frame_type)
