"""When a connection must be looked at again (RFC 9000 §10.1, §10.2; RFC 9002 §6.2).

Beyond the RFCs, a peer that answers nothing for `QuicConfig.silence_limit` counts as gone: servers that have moved are
out of reach for their clients (RFC 9000 §9), and the idle timeout is much longer than people wait.

Nothing is set or cancelled per packet: deadlines follow from a few instants and are worked out when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore

__all__ = ["Timers"]

NEVER = float("inf")
QUESTIONS = 8
"""How often a silent peer is asked before it counts as gone. Probe timeouts alone grow too far apart for that: a path
that is back must be noticed in time."""


class Timers:
    """The instants of one connection; all in seconds of the endpoint's clock."""

    def __init__(self, connection: QuicConnectionCore, now: float) -> None:
        config = connection.config
        self._connection = connection
        self._active_at = now
        self._sent_since_receive = False
        self._keep_alive = NEVER
        self._kept_alive_at = now
        """When a PING was last due that keeps the path open."""
        limit = config.silence_limit
        self._question_gap = NEVER if limit is None else limit / QUESTIONS
        self._quiet_since = now
        """When the peer was heard last, or asked again since."""
        self._unanswered = 0
        """How many questions went unanswered since the peer was heard last."""
        self.handshake_deadline = now + config.handshake_timeout if config.handshake_timeout else NEVER
        self.idle_timeout = config.handshake_idle_timeout or NEVER
        self.end_at = NEVER
        """When the closing or draining period is over."""
        self.discard_keys_at = NEVER
        """When the keys of the previous key phase go."""

    @property
    def idle_deadline(self) -> float:
        """When the connection counts as dead unless something happens."""
        # Never before three probe timeouts: a lost packet is no silence (RFC 9000 §10.1).
        return self._active_at + max(self.idle_timeout, 3 * self._connection.probe_interval)

    def on_established(self, peer_idle_timeout: float) -> None:
        """Go over from the handshake's timeouts to the negotiated idle timeout, the smaller of both."""
        offers = [value for value in (self._connection.config.idle_timeout, peer_idle_timeout) if value > 0]
        self.idle_timeout = min(offers, default=NEVER)
        self.handshake_deadline = NEVER
        self._keep_alive = self._connection.config.keep_alive or NEVER

    @property
    def _keep_alive_at(self) -> float:
        return max(self._active_at, self._kept_alive_at) + self._keep_alive

    def on_received(self, now: float) -> None:
        """A genuine packet arrived."""
        self._active_at = self._quiet_since = now
        self._sent_since_receive = False
        self._unanswered = 0

    def on_sent(self, now: float) -> None:
        """Ack-eliciting packets left; only the first since the last receipt counts (RFC 9000 §10.1)."""
        if not self._sent_since_receive:
            self._sent_since_receive = True
            self._active_at = now

    def _question_deadline(self, probe_interval: float) -> float:
        """When the peer has been silent long enough to be asked, or asked again, or given up; kept lean."""
        sent = self._connection.application.sent
        if not sent or not self._connection.ready:
            return NEVER
        # Counting questions, each a while after the last one, is fair to the peer if it is we who were suspended.
        return max(self._quiet_since, sent[0].sent_at) + max(self._question_gap, probe_interval)

    def _on_question_due(self, now: float) -> None:
        """Ask once more, or give up."""
        connection = self._connection
        self._unanswered += 1
        self._quiet_since = now
        if self._unanswered < QUESTIONS:
            connection.application.probes = max(connection.application.probes, 1)
        else:
            connection.ending.on_unanswered(now)

    def start_end(self, now: float) -> None:
        """The connection is closed; it lingers for three probe timeouts (RFC 9000 §10.2)."""
        if self.end_at == NEVER:
            self.end_at = now + 3 * self._connection.probe_interval

    def next_timeout(self) -> float:
        """The earliest deadline, infinite if there is none. Asked once per wake-up, so it is kept lean."""
        connection = self._connection
        if connection.closed:
            return self.end_at
        paths, transmitter = connection.paths, connection.transmitter
        current, recovery = paths.current, connection.recovery
        probe_interval = current.rtt.probe_interval + recovery.peer_max_ack_delay
        silence = 3 * probe_interval
        deadline = self._active_at + (silence if silence > self.idle_timeout else self.idle_timeout)
        deadline = min(deadline, self.handshake_deadline, self.discard_keys_at)
        if self._keep_alive < NEVER:
            deadline = min(deadline, self._keep_alive_at)
        if current.validated or not current.is_amplification_limited:
            if not connection.handshake_spaces_gone:
                for space in connection.spaces[:2]:
                    if space.send_keys is not None and space.acks.due_at < deadline:
                        deadline = space.acks.due_at
            if connection.one_rtt is not None and connection.application.acks.due_at < deadline:
                deadline = connection.application.acks.due_at
        if self._question_gap < NEVER:
            deadline = min(deadline, self._question_deadline(probe_interval))
        if paths.others or current.challenge is not None:
            deadline = min(deadline, paths.next_challenge_deadline)
        loss_or_probe = recovery.next_timeout(current)
        if loss_or_probe is not None and loss_or_probe < deadline:
            deadline = loss_or_probe
        if transmitter.paced_until is not None and transmitter.paced_until < deadline:
            deadline = transmitter.paced_until
        return deadline

    def handle(self, now: float) -> None:
        """Do what is due."""
        connection = self._connection
        if connection.closed:
            if now >= self.end_at:
                connection.forget_now()
            return
        if now >= self.handshake_deadline or now >= self.idle_deadline:
            connection.ending.on_silence(handshake=not connection.ready, now=now)
            return
        if self._question_gap < NEVER and now >= self._question_deadline(connection.probe_interval):
            self._on_question_due(now)
            if connection.closed:
                return
        if now >= self._keep_alive_at:
            connection.ping_pending = True
            self._kept_alive_at = now
        if now >= self.discard_keys_at and connection.one_rtt is not None:
            self.discard_keys_at = NEVER
            connection.one_rtt.discard_previous()
        if now >= connection.paths.next_challenge_deadline:
            connection.migration.on_challenge_timeout(now)
        connection.recovery.on_timeout(connection.paths.current, now)
