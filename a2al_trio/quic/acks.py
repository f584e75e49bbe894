"""Which packets of a space arrived and when to acknowledge them (RFC 9000 §13.2)."""

from __future__ import annotations

import attrs

from a2al_trio.quic.ranges import RangeSet

__all__ = ["ELICITING_THRESHOLD", "MAX_RANGES", "AckTracker"]

MAX_RANGES = 256
"""Ranges kept; below the lowest, packets count as seen (RFC 9000 §13.2.3 lets us drop old ranges)."""

ELICITING_THRESHOLD = 2
"""Ack-eliciting packets after which an ACK is due at once, unless the peer wants another number (RFC 9000 §13.2.2)."""

RECENTLY = 0.2
"""The share of `max_delay` within which an ACK counts as sent recently."""
PROMPT_PACKETS = 64
PROMPT_DELAY = 0.001
"""For so many packets after a gap, an ACK is held back no longer than this, in seconds.

Where packets get lost the sender's window is small, and much of it would wait for an ACK.
"""


@attrs.define(eq=False)
class AckTracker:
    """Received packet numbers of one space; `due_at` is when an ACK must leave, infinite if none is owed.

    `max_delay` is how long one may be held back, 0 in Initial and Handshake.
    """

    max_delay: float
    received: RangeSet = attrs.field(factory=RangeSet, init=False)
    largest: int = attrs.field(default=-1, init=False)
    largest_at: float = attrs.field(default=0.0, init=False)
    threshold: int = attrs.field(default=ELICITING_THRESHOLD, init=False)
    reordering: int = attrs.field(default=1, init=False)
    """How far behind the largest a missing packet is when the peer wants to know at once; 0 is never."""
    floor: int = attrs.field(default=0, init=False)
    due_at: float = attrs.field(default=float("inf"), init=False)
    ecn_counts: list[int] = attrs.field(factory=lambda: [0, 0, 0, 0], init=False)
    _eliciting: int = attrs.field(default=0, init=False)
    _acked_at: float = attrs.field(default=float("-inf"), init=False)
    _prompt_left: int = attrs.field(default=0, init=False)
    _has_gap: bool = attrs.field(default=False, init=False)
    _reported: int = attrs.field(default=-1, init=False)

    def is_duplicate(self, number: int) -> bool:
        """Whether the packet was seen before, or is too old to tell."""
        return number <= self.largest and (number < self.floor or number in self.received)

    def on_received(self, first: int, last: int, *, eliciting: int, ecn: int, now: float) -> None:
        """Note packets `first` to `last`, none of them a duplicate, `eliciting` of them ack-eliciting."""
        self.ecn_counts[ecn] += last - first + 1
        received = self.received
        received.add(first, last + 1)
        in_order = first == self.largest + 1
        if not in_order and len(received) > MAX_RANGES:
            self.floor = received.drop_first()[1]
        if last > self.largest:
            self.largest = last
            self.largest_at = now
        if eliciting:
            self._eliciting += eliciting
            # Reordering, loss and congestion marks are news the sender waits for (RFC 9000 §13.2.1).
            if ecn == 3 or ((self._has_gap or not in_order) and self._is_gap_due()):
                self.due_at = now
                if self.reordering == 1:
                    self._prompt_left = PROMPT_PACKETS
            elif self._eliciting >= self.threshold:
                self.due_at = now
            else:
                delay = min(self.max_delay, PROMPT_DELAY) if self._prompt_left > 0 else self.max_delay
                self.due_at = min(self.due_at, now + delay)
            if self._prompt_left > 0:
                self._prompt_left -= eliciting

    def on_next(self, ecn: int, now: float) -> None:
        """Note the packet after the largest, which is ack-eliciting: `on_received` for the usual case."""
        number = self.largest + 1
        if self._has_gap or self._prompt_left > 0 or ecn == 3 or not number:
            self.on_received(number, number, eliciting=1, ecn=ecn, now=now)
            return
        self.ecn_counts[ecn] += 1
        self.received.grow()
        self.largest = number
        self.largest_at = now
        self._eliciting += 1
        if self._eliciting >= self.threshold:
            self.due_at = now
        elif now + self.max_delay < self.due_at:
            self.due_at = now + self.max_delay

    def _is_gap_due(self) -> bool:
        """Whether what is missing is news for a peer that puts up with `reordering` (ack-frequency-11 §6.2)."""
        if self.reordering <= 1:
            return self.reordering == 1
        # What lies that far below the last ACK is known to the peer as lost.
        missing, known = -1, self._reported - self.reordering
        above = self.largest + 1
        for start, stop in reversed(self.received):
            if above <= known + 1:
                break
            if stop < above:
                missing = max(stop, known + 1)
            above = start
        self._has_gap = missing >= 0
        return missing >= 0 and self.largest - missing >= self.reordering

    def set_frequency(self, *, packets: int, max_delay: float, reordering: int) -> None:
        """Owe an ACK from now on after so many ack-eliciting packets or seconds, or when that much is reordered."""
        self.threshold, self.max_delay, self.reordering = packets, max_delay, reordering
        self._has_gap = False
        self._prompt_left = 0

    def ack_now(self, now: float) -> None:
        """Owe an ACK at once, if there is anything to acknowledge."""
        if self.received:
            self.due_at = now

    def ack_soon(self) -> None:
        """Owe an ACK of what is not acknowledged yet as soon as anything may be sent."""
        if self._eliciting:
            self.due_at = float("-inf")

    def on_ack_sent(self, now: float) -> None:
        """An ACK of everything received left."""
        self._acked_at = now
        self._reported = self.largest
        self.owe_nothing()

    def owe_nothing(self) -> None:
        """Nothing that was received so far needs an ACK any more."""
        self._eliciting = 0
        self.due_at = float("inf")

    def is_worth_adding(self, now: float) -> bool:
        """Whether an ACK should ride along in a packet that leaves anyway.

        It should "if one has not been sent recently" (RFC 9000 §13.2.1): where packets go back and forth within a few
        milliseconds, every second one carries it.
        """
        eliciting = self._eliciting
        return eliciting >= self.threshold or (eliciting > 0 and now - self._acked_at >= self.max_delay * RECENTLY)

    def forget_to(self, largest: int) -> None:
        """The peer knows of our ACK up to `largest`: do not repeat those ranges (RFC 9000 §13.2.4)."""
        if largest >= self.floor:
            self.received.drop_below(largest)
            self.floor = largest
