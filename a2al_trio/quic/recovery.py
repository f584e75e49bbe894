"""Round-trip times, sent packets, acknowledgement and loss (RFC 9002 §5, §6; ECN: RFC 9000 §13.4).

Sent packets are remembered as runs: consecutive numbers of one size that left at one instant, carrying
consecutive pieces of one stream. ACK ranges and losses are applied to runs, which split where they must; so a
batch of forty packets costs one record when it leaves and one when it is acknowledged. Packets with other
contents are runs of one with a list of what to do when they arrive or get lost.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import attrs

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.reordering import GivenUp, LossMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2al_trio.quic.ack_frequency import AckFrequency
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.qlog import ConnectionObserver
    from a2al_trio.quic.spaces import PacketSpace
    from a2al_trio.quic.stream import SendHalf

__all__ = ["GRANULARITY", "AckResult", "LossRecovery", "RttEstimator", "SentRun", "Tracked"]

GRANULARITY = 0.001
INITIAL_RTT = 0.333
PERSISTENT_CONGESTION_THRESHOLD = 3
MAX_PTO_BACKOFF = 10
LAST = attrgetter("last")


class Tracked(Protocol):
    """Something a packet carried that must arrive, or that its sender wants to know about."""

    def on_acked(self) -> None:
        """The packet was acknowledged."""

    def on_lost(self) -> None:
        """The packet was lost; queue the content again if it still matters."""


@attrs.define(eq=False)
class RttEstimator:
    """Round-trip time of a path in seconds (RFC 9002 §5)."""

    latest: float = INITIAL_RTT
    smoothed: float = INITIAL_RTT
    variation: float = INITIAL_RTT / 2
    minimum: float = INITIAL_RTT
    has_sample: bool = False

    def update(self, sample: float, ack_delay: float) -> None:
        """Take a sample; `ack_delay` is what the peer says it held the ACK back, already capped."""
        self.latest = sample
        if not self.has_sample:
            self.has_sample = True
            self.minimum = self.smoothed = sample
            self.variation = sample / 2
            return
        self.minimum = min(self.minimum, sample)
        adjusted = sample - ack_delay if sample >= self.minimum + ack_delay else sample
        self.variation += (abs(self.smoothed - adjusted) - self.variation) / 4
        self.smoothed += (adjusted - self.smoothed) / 8

    @property
    def probe_interval(self) -> float:
        """The probe timeout without the peer's max_ack_delay (RFC 9002 §6.2.1)."""
        return self.smoothed + max(4 * self.variation, GRANULARITY)


class SentRun:
    """Packets `first` to `last`, all ack-eliciting, in flight, of `size` bytes, sent at `sent_at` on `path`.

    Packet n carries `length` bytes of `stream` from `offset + (n - base) * length`; or, in a run of one packet,
    `contents`. `probe` is the size of a packet that tests the path MTU, whose loss says nothing about congestion.
    """

    __slots__ = (
        "base", "contents", "ecn", "first", "last", "length", "offset", "path", "probe", "sent_at", "size", "stream"
    )  # fmt: skip

    def __init__(
        self,
        first: int,
        last: int,
        sent_at: float,
        size: int,
        path: Path,
        *,
        stream: SendHalf | None = None,
        offset: int = 0,
        length: int = 0,
        contents: Sequence[Tracked] = (),
        ecn: bool = False,
        probe: int = 0,
    ) -> None:
        self.first = first
        self.last = last
        self.base = first
        self.sent_at = sent_at
        self.size = size
        self.path = path
        self.stream = stream
        self.offset = offset
        self.length = length
        self.contents = contents
        self.ecn = ecn
        self.probe = probe

    def part(self, first: int, last: int) -> SentRun:
        """Return packets `first` to `last` of this run as a run of their own."""
        part = SentRun(
            first, last, self.sent_at, self.size, self.path, stream=self.stream, offset=self.offset,
            length=self.length, contents=self.contents, ecn=self.ecn, probe=self.probe,
        )  # fmt: skip
        part.base = self.base
        return part

    def acked(self, first: int, last: int) -> None:
        """Tell the owners that packets `first` to `last` arrived."""
        if self.stream is not None:
            start = self.offset + (first - self.base) * self.length
            self.stream.on_range_acked(start, start + (last - first + 1) * self.length)
        else:
            for content in self.contents:
                content.on_acked()

    def lost(self, first: int, last: int) -> None:
        """Tell the owners that packets `first` to `last` are lost, or should be sent again as a probe."""
        if self.stream is not None:
            start = self.offset + (first - self.base) * self.length
            self.stream.on_range_lost(start, start + (last - first + 1) * self.length)
        else:
            for content in self.contents:
                content.on_lost()


@attrs.define(eq=False)
class AckResult:
    """What one ACK newly acknowledged: packets, bytes in flight, when the newest left, and how many were ECT."""

    packets: int = 0
    size: int = 0
    newest_sent_at: float = 0.0
    ecn_packets: int = 0
    largest_is_new: bool = False
    path: Path | None = None


class LossRecovery:
    """Loss detection of one connection over its packet number spaces."""

    def __init__(
        self, spaces: Sequence[PacketSpace], *, is_client: bool, observer: ConnectionObserver | None = None
    ) -> None:
        self._observer = observer
        self._spaces = spaces
        self._is_client = is_client
        self.probe_count = 0
        self.peer_max_ack_delay = 0.025
        self.handshake_confirmed = False
        self.peer_validated_address = not is_client
        self.lost_packets = 0
        self.late_packets = 0
        self.ack_frequency: AckFrequency | None = None
        """Set where the peer may be asked to acknowledge less often."""

    # Acknowledgement

    @staticmethod
    def check_ack(space: PacketSpace, ranges: Sequence[tuple[int, int]]) -> None:
        """Raise QuicTransportError if the ranges of an ACK hold a number that was not sent (RFC 9000 §13.1)."""
        if ranges[-1][1] > space.next_number or space.was_skipped(ranges):
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "ACK of a packet that was never sent")

    def on_ack(
        self, space: PacketSpace, ranges: Sequence[tuple[int, int]], *, ack_delay: float, now: float, path: Path
    ) -> AckResult:
        """Apply the ranges of an ACK frame (half-open, ascending) and detect losses (RFC 9002 §A.7).

        `ack_delay` is in seconds as the peer told it, `path` the connection's current path.
        """
        self.check_ack(space, ranges)
        largest = ranges[-1][1] - 1
        space.largest_acked = max(space.largest_acked, largest)
        result = AckResult()
        sent = space.sent
        count = bisect_right(sent, largest, key=LAST)
        if (
            count
            and len(ranges) == 1
            and ranges[0][0] <= sent[0].first
            and (count == len(sent) or sent[count].first > largest)
        ):
            # Everything up to the largest has arrived, as it usually has where little is in flight.
            space.sent = sent[count:]
            for run in sent[:count]:
                run.acked(run.first, run.last)
                self._count(run, run.last - run.first + 1, result)
            result.largest_is_new = sent[count - 1].last == largest
        else:
            self._apply(space, ranges, result)
        if not result.packets:
            if space.given_up:
                self._take_late(space, ranges, now)
            return result
        rtt = path.rtt
        if result.largest_is_new and result.path is path:
            if not rtt.has_sample:
                path.first_sample_at = now
            # Before confirmation the peer may have held packets for want of keys (RFC 9002 §5.3).
            if self.handshake_confirmed:
                ack_delay = min(ack_delay, self.peer_max_ack_delay)
            rtt.update(max(now - result.newest_sent_at, 0.0), ack_delay if space.is_application else 0.0)
        if self.peer_validated_address:
            self.probe_count = 0
        space.probes = 0
        self.detect_losses(space, now)
        if space.given_up:
            self._take_late(space, ranges, now)
        if result.size and result.path is not None:
            target = result.path
            target.congestion.on_acked(
                now, result.size, sent_at=result.newest_sent_at, in_flight=target.in_flight, rtt=target.rtt
            )
        if self.ack_frequency is not None:
            self.ack_frequency.on_acked(path)
        return result

    @staticmethod
    def _count(run: SentRun, count: int, result: AckResult) -> None:
        """Account for newly acknowledged packets of a run; runs come in the order of sending."""
        path, size = run.path, count * run.size
        path.in_flight -= size
        result.packets += count
        result.size += size
        if run.ecn:
            result.ecn_packets += count
        result.newest_sent_at = run.sent_at
        result.path = path
        if run.probe:
            path.mtu.on_probe_acked(run.probe)

    def _apply(self, space: PacketSpace, ranges: Sequence[tuple[int, int]], result: AckResult) -> None:
        """Take acknowledged packets out of the space's sent runs: one merge pass over both sorted lists."""
        largest = ranges[-1][1] - 1
        remaining: list[SentRun] = []
        sent = space.sent
        index, count = 0, len(ranges)
        for place, run in enumerate(sent):
            first, last = run.first, run.last
            while index < count and ranges[index][1] <= first:
                index += 1
            if index == count:
                remaining.extend(sent[place:])
                break
            start, stop = ranges[index]
            if start > last:
                remaining.append(run)
                continue
            newly = 0
            if start <= first and stop > last:
                newly = last - first + 1
                run.acked(first, last)
            else:
                position, look = first, index
                while look < count and ranges[look][0] <= last:
                    start, stop = ranges[look]
                    low, high = max(start, position), min(stop - 1, last)
                    if low > position:
                        remaining.append(run.part(position, low - 1))
                    run.acked(low, high)
                    newly += high - low + 1
                    position = high + 1
                    look += 1
                if position <= last:
                    remaining.append(run.part(position, last))
            self._count(run, newly, result)
            if last >= largest:
                result.largest_is_new = True
        space.sent = remaining

    # Loss

    def detect_losses(self, space: PacketSpace, now: float) -> None:
        """Declare packets lost by number or by time, and set the space's loss time (RFC 9002 §A.10)."""
        space.loss_time = None
        largest = space.largest_acked
        sent = space.sent
        if not sent or sent[0].first > largest:
            return
        rtt, patience = sent[0].path.rtt, sent[0].path.patience
        delay = max(patience.time * max(rtt.latest, rtt.smoothed), GRANULARITY)
        by_number = largest - patience.packets
        remaining: list[SentRun] = []
        lost: list[SentRun] = []
        for place, run in enumerate(sent):
            if run.first > largest:
                remaining.extend(sent[place:])
                break
            end = min(run.last, largest if run.sent_at + delay <= now else by_number)
            if end >= run.first:
                lost.append(run if end == run.last else run.part(run.first, end))
                if end < run.last:
                    run = run.part(end + 1, run.last)
                    remaining.append(run)
            else:
                end = run.first - 1
                remaining.append(run)
            if end < min(run.last, largest) and (space.loss_time is None or run.sent_at + delay < space.loss_time):
                space.loss_time = run.sent_at + delay
        if lost:
            space.sent = remaining
            self._on_lost(space, lost, now)

    def _on_lost(self, space: PacketSpace, lost: list[SentRun], now: float) -> None:
        by_path: dict[Path, list[SentRun]] = {}
        for run in lost:
            count = run.last - run.first + 1
            run.path.in_flight -= count * run.size
            run.lost(run.first, run.last)
            if self._observer is not None:
                self._observer.packets_lost(now, space.level, run.first, run.last)
            if run.probe:
                run.path.mtu.on_probe_lost(run.probe)
                continue
            self.lost_packets += count
            space.given_up.add(GivenUp(run.first, run.last, run.size, run.path, run.sent_at, now))
            by_path.setdefault(run.path, []).append(run)
        for path, runs in by_path.items():
            size = sum((run.last - run.first + 1) * run.size for run in runs)
            path.patience.on_lost()
            path.congestion.on_lost(now, size, sent_at=runs[-1].sent_at, in_flight=path.in_flight)
            path.mtu.on_packets_lost(max(run.size for run in runs))
            if self._is_persistent(path, runs):
                path.congestion.on_persistent_congestion(now)
                path.mtu.on_black_hole()

    def _take_late(self, space: PacketSpace, ranges: Sequence[tuple[int, int]], now: float) -> None:
        """Find packets among the acknowledged ones that had been declared lost."""
        for late in space.given_up.take(ranges):
            path, rtt = late.path, late.path.rtt
            path.patience.on_late(
                space.largest_acked - late.first, (now - late.sent_at) / max(rtt.latest, rtt.smoothed, GRANULARITY)
            )
            count = late.last - late.first + 1
            self.late_packets += count
            path.congestion.on_spurious_loss(now, count * late.size, lost_at=late.lost_at)

    def _is_persistent(self, path: Path, runs: list[SentRun]) -> bool:
        """Whether everything over a long period was lost (RFC 9002 §7.6); `runs` are in the order of sending."""
        rtt = path.rtt
        if not rtt.has_sample:
            return False
        period = (rtt.probe_interval + self.peer_max_ack_delay) * PERSISTENT_CONGESTION_THRESHOLD
        start = runs[0]
        for before, after in pairwise(runs):
            if after.first != before.last + 1 or start.sent_at <= path.first_sample_at:
                start = after
            elif after.sent_at - start.sent_at > period:
                return True
        return False

    def discard(self, space: PacketSpace) -> None:
        """Forget a space whose keys are gone (RFC 9002 §6.4)."""
        for run in space.sent:
            run.path.in_flight -= (run.last - run.first + 1) * run.size
        space.sent = []
        space.given_up = LossMemory()
        space.loss_time = None
        space.last_eliciting_at = None
        space.probes = 0
        self.probe_count = 0

    # Timers

    def _earliest_loss(self) -> tuple[float, PacketSpace] | None:
        if self.handshake_confirmed:
            space = self._spaces[2]
            return None if space.loss_time is None else (space.loss_time, space)
        best: tuple[float, PacketSpace] | None = None
        for space in self._spaces:
            if space.loss_time is not None and (best is None or space.loss_time < best[0]):
                best = space.loss_time, space
        return best

    def _probe_deadline(self, path: Path) -> tuple[float, PacketSpace] | None:
        if not path.validated and path.is_amplification_limited:
            return None
        backoff = 1 << min(self.probe_count, MAX_PTO_BACKOFF)
        interval = path.rtt.probe_interval
        if self.handshake_confirmed:
            space = self._spaces[2]
            if space.last_eliciting_at is None or not space.sent:
                return None
            return space.last_eliciting_at + (interval + self.peer_max_ack_delay) * backoff, space
        best: tuple[float, PacketSpace] | None = None
        for space in self._spaces:
            if space.last_eliciting_at is None or not space.sent:
                continue
            if space.is_application:
                continue  # not before the handshake is confirmed (RFC 9002 §6.2.1)
            deadline = space.last_eliciting_at + interval * backoff
            if best is None or deadline < best[0]:
                best = deadline, space
        if best is None and not self.peer_validated_address:
            # The client keeps probing so that the server gains credit to answer (RFC 9002 §6.2.2.1).
            space = self._spaces[1] if self._spaces[1].send_keys is not None else self._spaces[0]
            if space.send_keys is not None:
                last = max((item.last_eliciting_at or 0.0) for item in self._spaces)
                return last + interval * backoff, space
        return best

    def next_timeout(self, path: Path) -> float | None:
        """When `on_timeout` is due."""
        if self.handshake_confirmed:
            space = self._spaces[2]
            if space.loss_time is not None or not space.sent:
                return space.loss_time
            if path.validated and space.last_eliciting_at is not None:
                interval = path.rtt.probe_interval + self.peer_max_ack_delay
                return space.last_eliciting_at + interval * (1 << min(self.probe_count, MAX_PTO_BACKOFF))
        else:
            loss = self._earliest_loss()
            if loss is not None:
                return loss[0]
        probe = self._probe_deadline(path)
        return probe[0] if probe is not None else None

    def on_timeout(self, path: Path, now: float) -> None:
        """Detect losses by time, or ask for probe packets (RFC 9002 §6.2.4)."""
        loss = self._earliest_loss()
        if loss is not None:
            if loss[0] <= now:
                self.detect_losses(loss[1], now)
            return
        probe = self._probe_deadline(path)
        if probe is None or probe[0] > now:
            return
        space = probe[1]
        self.probe_count += 1
        space.probes = 2
        if space.last_eliciting_at is None or space.last_eliciting_at < now:
            space.last_eliciting_at = now
        # What was sent first is most likely what is missing: send it again, without calling it lost.
        if space.sent:
            run = space.sent[0]
            run.lost(run.first, min(run.first + 1, run.last))
            if run.first == run.last and len(space.sent) > 1:
                run = space.sent[1]
                run.lost(run.first, run.first)
