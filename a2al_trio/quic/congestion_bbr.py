"""A model-based controller in the manner of BBR: paces at the measured bottleneck rate, whatever a few losses say.

The model is the greatest delivery rate of the last ten rounds and the least round-trip time of the last ten seconds
(draft-cardwell-iccrg-bbr-congestion-control). Delivery rates are sampled per run of packets. Losses matter only when
a round loses more than LOSS_TOLERANCE of what it carried: radio links lose a few percent without being congested.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

import attrs

from a2al_trio.quic.congestion import RttSample, initial_window

__all__ = ["Bbr"]

STARTUP_GAIN = 2.885
DRAIN_GAIN = 1 / STARTUP_GAIN
PROBE_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
WINDOW_GAIN = 2.0
BANDWIDTH_ROUNDS = 10
MIN_RTT_SECONDS = 10.0
PROBE_RTT_SECONDS = 0.2
FULL_PIPE_GROWTH = 1.25
FULL_PIPE_ROUNDS = 3
LOSS_TOLERANCE = 0.1
LOSS_DATAGRAMS = 8
"""Fewer losses in a round say nothing about their rate."""
LOSS_REDUCTION = 0.7
SENT_RUNS_LIMIT = 8192
INFINITE = float("inf")


class Mode(Enum):
    """What the controller is busy with."""

    STARTUP = "startup"
    DRAIN = "drain"
    PROBE_BANDWIDTH = "probe bandwidth"
    PROBE_RTT = "probe rtt"


class SentRun(NamedTuple):
    """The delivery state at the moment a run left."""

    sent_at: float
    delivered: int
    delivered_at: float
    first_sent_at: float
    app_limited: bool


@attrs.define
class Bbr:
    """A BBR-like controller; better than loss-based ones on links that lose packets at random."""

    _max_datagram_size: int
    window: int = attrs.field(init=False)
    mode: Mode = Mode.STARTUP
    bandwidth: float = 0.0
    """The model's bottleneck rate in bytes per second; 0 until the first sample."""
    minimum_rtt: float = INFINITE
    _minimum_rtt_at: float = 0.0
    _runs: deque[SentRun] = attrs.Factory(lambda: deque(maxlen=SENT_RUNS_LIMIT))
    _samples: deque[tuple[int, float]] = attrs.Factory(deque)
    _delivered: int = 0
    _delivered_at: float = 0.0
    _first_sent_at: float = 0.0
    _app_limited_until: int = 0
    _round: int = 0
    _round_ends_at_delivered: int = 0
    _round_delivered: int = 0
    _round_lost: int = 0
    _full_bandwidth: float = 0.0
    _full_rounds: int = 0
    _cycle: int = 0
    _cycle_started_at: float = 0.0
    _probe_rtt_until: float | None = None
    _window_before_probe: int = 0
    _window_cap: float = INFINITE

    @window.default
    def _initial_window(self) -> int:
        return initial_window(self._max_datagram_size)

    @property
    def slow_start_threshold(self) -> int | None:
        """BBR has none."""
        return None

    def pacing_rate(self, smoothed_rtt: float) -> float:
        """See `CongestionController`."""
        if self.bandwidth == 0.0:
            return STARTUP_GAIN * self.window / max(smoothed_rtt, 1e-6)
        match self.mode:
            case Mode.STARTUP:
                gain = STARTUP_GAIN
            case Mode.DRAIN:
                gain = DRAIN_GAIN
            case Mode.PROBE_BANDWIDTH:
                gain = PROBE_GAINS[self._cycle]
            case Mode.PROBE_RTT:
                gain = 1.0
        return gain * self.bandwidth

    def on_sent(self, now: float, sent_bytes: int, in_flight: int) -> None:
        """See `CongestionController`."""
        if in_flight <= sent_bytes:
            # The pipe was empty: rates are measured from here, not across the pause.
            self._first_sent_at = self._delivered_at = now
        app_limited = self._app_limited_until > self._delivered
        self._runs.append(SentRun(now, self._delivered, self._delivered_at, self._first_sent_at, app_limited))

    def on_acked(self, now: float, acked_bytes: int, *, sent_at: float, in_flight: int, rtt: RttSample) -> None:
        """See `CongestionController`."""
        self._delivered += acked_bytes
        self._delivered_at = now
        self._round_delivered += acked_bytes
        run = self._take_run(sent_at)
        if run is not None:
            self._first_sent_at = run.sent_at
            new_round = run.delivered >= self._round_ends_at_delivered
            if new_round:
                self._round += 1
                self._round_ends_at_delivered = self._delivered
            self._sample_bandwidth(now, run)
            if new_round:
                self._end_round(app_limited=run.app_limited)
        self._update_minimum_rtt(now, rtt, in_flight)
        self._update_mode(now, in_flight)
        self._update_window(acked_bytes)

    def _take_run(self, sent_at: float) -> SentRun | None:
        run = None
        while self._runs and self._runs[0].sent_at <= sent_at:
            run = self._runs.popleft()
        return run

    def _sample_bandwidth(self, now: float, run: SentRun) -> None:
        elapsed = max(now - run.delivered_at, run.sent_at - run.first_sent_at)
        if elapsed <= 0.0:
            return
        rate = (self._delivered - run.delivered) / elapsed
        if run.app_limited and rate < self.bandwidth:
            return
        # A deque of falling rates: its head is the maximum of the last rounds.
        while self._samples and self._samples[-1][1] <= rate:
            self._samples.pop()
        self._samples.append((self._round, rate))
        while self._samples[0][0] <= self._round - BANDWIDTH_ROUNDS:
            self._samples.popleft()
        self.bandwidth = self._samples[0][1]

    def _end_round(self, *, app_limited: bool) -> None:
        carried = self._round_delivered + self._round_lost
        if self._round_lost > max(LOSS_TOLERANCE * carried, LOSS_DATAGRAMS * self._max_datagram_size):
            self._window_cap = max(self.window * LOSS_REDUCTION, self._least_window())
            self._full_rounds = FULL_PIPE_ROUNDS
        elif self._window_cap < INFINITE:
            self._window_cap *= 1.1
            if self._window_cap > 2 * self._target_window():
                self._window_cap = INFINITE
        self._round_delivered = self._round_lost = 0
        if self.mode is not Mode.STARTUP or app_limited:
            return
        if self.bandwidth >= self._full_bandwidth * FULL_PIPE_GROWTH:
            self._full_bandwidth = self.bandwidth
            self._full_rounds = 0
        else:
            self._full_rounds += 1

    def _update_minimum_rtt(self, now: float, rtt: RttSample, in_flight: int) -> None:
        expired = now > self._minimum_rtt_at + MIN_RTT_SECONDS
        if rtt.latest <= self.minimum_rtt:
            self.minimum_rtt, self._minimum_rtt_at = rtt.latest, now
        elif expired and self.mode is Mode.PROBE_BANDWIDTH:
            self.mode = Mode.PROBE_RTT
            self._probe_rtt_until = None
            self._window_before_probe = self.window
        if self.mode is Mode.PROBE_RTT:
            self._probe_rtt(now, rtt, in_flight)

    def _probe_rtt(self, now: float, rtt: RttSample, in_flight: int) -> None:
        # The small window, not the path, now limits the delivery rate.
        self.on_app_limited(now, in_flight)
        if self._probe_rtt_until is None:
            if in_flight <= self._probe_window():
                self._probe_rtt_until = now + PROBE_RTT_SECONDS
                self.minimum_rtt = rtt.latest
        elif now >= self._probe_rtt_until:
            self._minimum_rtt_at = now
            self.window = self._window_before_probe
            self._begin_probing_bandwidth(now)

    def _probe_window(self) -> int:
        """Half the bandwidth-delay product: no queue remains, and the path is not left idle."""
        return max(int(self._bandwidth_delay() / 2), self._least_window())

    def _update_mode(self, now: float, in_flight: int) -> None:
        if self.mode is Mode.STARTUP and self._full_rounds >= FULL_PIPE_ROUNDS:
            self.mode = Mode.DRAIN
        if self.mode is Mode.DRAIN and in_flight <= self._bandwidth_delay():
            self._begin_probing_bandwidth(now)
        if self.mode is Mode.PROBE_BANDWIDTH and now - self._cycle_started_at > self.minimum_rtt:
            self._cycle = (self._cycle + 1) % len(PROBE_GAINS)
            self._cycle_started_at = now

    def _begin_probing_bandwidth(self, now: float) -> None:
        self.mode = Mode.PROBE_BANDWIDTH
        self._cycle = 2
        self._cycle_started_at = now

    def _bandwidth_delay(self) -> float:
        return self.bandwidth * self.minimum_rtt if self.minimum_rtt < INFINITE else 0.0

    def _least_window(self) -> int:
        return 4 * self._max_datagram_size

    def _target_window(self) -> float:
        """Twice the bandwidth-delay product, and room for the bursts that batching makes."""
        gain = STARTUP_GAIN if self.mode is Mode.STARTUP else WINDOW_GAIN
        return gain * self._bandwidth_delay() + 10 * self._max_datagram_size

    def _update_window(self, acked_bytes: int) -> None:
        if self.mode is Mode.PROBE_RTT:
            self.window = self._probe_window()
            return
        target = min(self._target_window(), self._window_cap)
        if self._full_rounds < FULL_PIPE_ROUNDS:
            # The model is still growing: never take back what was given.
            self.window = max(self.window, int(min(target, self.window + acked_bytes)))
        else:
            self.window = max(int(min(target, self.window + acked_bytes)), self._least_window())

    def on_lost(self, now: float, lost_bytes: int, *, sent_at: float, in_flight: int) -> None:
        """See `CongestionController`."""
        self._round_lost += lost_bytes

    def on_spurious_loss(self, now: float, late_bytes: int, *, lost_at: float) -> None:
        """See `CongestionController`."""
        self._round_lost = max(self._round_lost - late_bytes, 0)

    def on_ecn_ce(self, now: float, *, sent_at: float) -> None:
        """Marks count like losses above the tolerance: the path says it is congested."""
        self._window_cap = max(min(self._window_cap, self.window) * LOSS_REDUCTION, self._least_window())

    def on_persistent_congestion(self, now: float) -> None:
        """See `CongestionController`."""
        self.window = self._least_window()

    def on_app_limited(self, now: float, in_flight: int) -> None:
        """Rates sampled until what is in flight now has been delivered say nothing about the path."""
        self._app_limited_until = self._delivered + max(in_flight, 1)

    def set_max_datagram_size(self, size: int) -> None:
        """See `CongestionController`."""
        self._max_datagram_size = size
        self.window = max(self.window, self._least_window())
