"""What loss-based congestion controllers have in common (RFC 9002 §7): slow start, recovery, the use of the window."""

from __future__ import annotations

import attrs

from a2al_trio.quic.congestion import RttSample, initial_window, minimum_window

__all__ = ["LossBased", "WindowUse"]

SLOW_START_PACING_GAIN = 2.0
AVOIDANCE_PACING_GAIN = 1.25


@attrs.define
class WindowUse:
    """Tells whether the sender fills its window, so that an idle window does not grow (RFC 9002 §7.8).

    Pacing and batching keep `in_flight` below the window for most of a round, so what counts is the peak of this
    round trip or the last one.
    """

    _peak: int = 0
    _last_peak: int = 0
    _round_started_at: float = float("-inf")

    def on_sent(self, in_flight: int) -> None:
        """Note the bytes in flight after sending a run."""
        self._peak = max(self._peak, in_flight)

    def on_acked(self, now: float, sent_at: float) -> None:
        """Begin a new round when a packet sent in this one is acknowledged."""
        if sent_at >= self._round_started_at:
            self._round_started_at = now
            self._last_peak, self._peak = self._peak, 0

    def fills(self, window: int, *, slow_start: bool, datagram_size: int) -> bool:
        """Whether `window` is used enough to grow; doubling in slow start leaves half of it free at first."""
        peak = max(self._peak, self._last_peak)
        return 2 * peak >= window if slow_start else peak + max(window >> 3, datagram_size) >= window


@attrs.define
class _Recovery:
    """How a reduction of the window is spread over the round trip that follows it (PRR, RFC 9937).

    While more than the `target` window is in flight, what leaves stays in proportion to what arrives, so that sending
    slows down evenly rather than stopping. Below the target the target itself is the window: pacing does what
    PRR's bounds on bursts are for.
    """

    target: int
    window: int
    flight: int
    """Bytes in flight when the loss was found, lost ones included."""
    _delivered: int = 0
    _sent: int = 0

    def on_sent(self, size: int) -> None:
        """Bytes left."""
        self._sent += size

    def on_acked(self, acked_bytes: int, in_flight: int, datagram_size: int) -> None:
        """Bytes arrived: set the window, which makes room for whole datagrams only."""
        self._delivered += acked_bytes
        room = self._delivered * self.target // max(self.flight, 1) - self._sent
        self.window = max(self.target, in_flight - -room // datagram_size * datagram_size)


@attrs.define
class _Undo:
    """How things stood before the window was reduced, in case no packet was lost (RFC 9438 §4.9.2).

    `missing` counts the bytes declared lost since that have not arrived.
    """

    began_at: float
    window: float
    slow_start_threshold: int | None
    recovery_started_at: float
    growth: object
    missing: int = 0


@attrs.define
class LossBased:
    """A controller that takes losses for congestion; subclasses say how much to give way and how to grow again."""

    _max_datagram_size: int
    exact_window: float = attrs.field(init=False)
    """The window as the algorithm computes it; in recovery, where it will be afterwards. In bytes."""
    slow_start_threshold: int | None = None
    _recovery: _Recovery | None = None
    _recovery_started_at: float = float("-inf")
    _use: WindowUse = attrs.Factory(WindowUse)
    _undo: _Undo | None = None

    @exact_window.default
    def _initial_window(self) -> float:
        size = self._max_datagram_size
        return float(initial_window(size) // size * size)

    @property
    def window(self) -> int:
        """See `CongestionController`: whole datagrams, as the algorithms count them.

        The nearest number, which is the exact window on average. Cut off, a window of five would go unused by a tenth.
        """
        if self._recovery is not None:
            return self._recovery.window
        size = self._max_datagram_size
        return int(self.exact_window / size + 0.5) * size

    def _reduced_window(self) -> float:
        """Return the window after a congestion event, and begin a new epoch of growth."""
        raise NotImplementedError

    def _grow_in_avoidance(self, now: float, acked_bytes: int, rtt: RttSample) -> None:
        """Grow in congestion avoidance; the window is in use."""
        raise NotImplementedError

    def _grow_in_slow_start(self, now: float, acked_bytes: int, sent_at: float, rtt: RttSample) -> None:
        """Grow in slow start; the window is in use."""
        self.exact_window += acked_bytes

    def _growth(self) -> object:
        """Return what `_reduced_window` will change of how the window grows."""

    def _restore_growth(self, growth: object) -> None:
        """Take back what `_growth` returned."""

    def _on_unused(self, now: float) -> None:
        """Packets arrived while the window was not in use."""

    @property
    def _in_slow_start(self) -> bool:
        return self.slow_start_threshold is None or self.exact_window < self.slow_start_threshold

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """See `CongestionController`."""
        gain = SLOW_START_PACING_GAIN if self._in_slow_start else AVOIDANCE_PACING_GAIN
        return gain * self.exact_window / max(smoothed_rtt, 1e-6)

    def on_sent(self, now: float, sent_bytes: int, in_flight: int) -> None:
        """See `CongestionController`."""
        self._use.on_sent(in_flight)
        if self._recovery is not None:
            self._recovery.on_sent(sent_bytes)

    def on_acked(self, now: float, acked_bytes: int, *, sent_at: float, in_flight: int, rtt: RttSample) -> None:
        """See `CongestionController`."""
        self._use.on_acked(now, sent_at)
        if sent_at <= self._recovery_started_at:
            recovery = self._recovery
            if recovery is not None:
                if now == self._recovery_started_at:
                    recovery.flight += acked_bytes  # this ACK told of the loss: it was all in flight before
                recovery.on_acked(acked_bytes, in_flight, self._max_datagram_size)
            return
        self._recovery = None
        slow_start = self._in_slow_start
        if not self._use.fills(self.window, slow_start=slow_start, datagram_size=self._max_datagram_size):
            self._on_unused(now)
        elif slow_start:
            self._grow_in_slow_start(now, acked_bytes, sent_at, rtt)
        else:
            self._grow_in_avoidance(now, acked_bytes, rtt)

    def on_lost(self, now: float, lost_bytes: int, *, sent_at: float, in_flight: int) -> None:
        """See `CongestionController`."""
        if self._reduce(now, sent_at):
            target = self.window
            # One packet may leave at once, most likely to repeat what was lost (RFC 9002 §7.3.2).
            self._recovery = _Recovery(target, max(target, in_flight + self._max_datagram_size), in_flight + lost_bytes)
        if self._undo is not None:
            self._undo.missing += lost_bytes

    def on_spurious_loss(self, now: float, late_bytes: int, *, lost_at: float) -> None:
        """See `CongestionController`: when nothing is missing of what led to the last reduction, it is undone."""
        undo = self._undo
        if undo is None or lost_at < undo.began_at:
            return
        undo.missing -= late_bytes
        if undo.missing > 0:
            return
        self._undo = self._recovery = None
        self._recovery_started_at = undo.recovery_started_at
        if undo.window > self.exact_window:
            self.exact_window = undo.window
            self.slow_start_threshold = undo.slow_start_threshold
            self._restore_growth(undo.growth)

    def on_ecn_ce(self, now: float, *, sent_at: float) -> None:
        """See `CongestionController`."""
        self._reduce(now, sent_at)
        self._undo = None  # marks prove congestion, whatever becomes of the losses beside them

    def _reduce(self, now: float, sent_at: float) -> bool:
        """Give way, unless this is news of the same round trip as the last reduction; returns whether it did."""
        if sent_at <= self._recovery_started_at:
            return False
        self._undo = _Undo(now, self.exact_window, self.slow_start_threshold, self._recovery_started_at, self._growth())
        self._recovery = None
        self._recovery_started_at = now
        self.exact_window = max(self._reduced_window(), minimum_window(self._max_datagram_size))
        self.slow_start_threshold = int(self.exact_window)
        return True

    def on_persistent_congestion(self, now: float) -> None:
        """See `CongestionController`."""
        self.exact_window = minimum_window(self._max_datagram_size)
        self._recovery = None
        self._recovery_started_at = float("-inf")

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Nothing to do: `WindowUse` sees it."""

    def set_max_datagram_size(self, size: int) -> None:
        """See `CongestionController`."""
        self._max_datagram_size = size
        self.exact_window = max(self.exact_window, minimum_window(size))
