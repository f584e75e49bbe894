"""A full ICE agent for one stream with one component (RFC 8445, RFC 8838 trickle, RFC 7675 consent).

The agent knows bases (addresses of our own sockets and relays) and the peer's candidates; it makes checks and answers
them. Gathering, signaling and sockets are the driver's. Beyond the RFCs it does what meeting the reference node takes
(spec 06 §12-§13): it checks early and fast, answers for as long as it lives, brings any failed pair back when a check
arrives on it, and repeats a nomination until it is answered.

A path over a relay is a makeshift: the controlling agent goes on checking direct pairs and moves as soon as one works,
which the peer follows; likewise when the selected pair falls silent.
"""

from __future__ import annotations

import base64
import ipaddress
from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs

from a2al_trio.ice.candidate import PEER_REFLEXIVE_PRIORITY, Candidate, CandidateType, foundation_of
from a2al_trio.ice.checks import (
    Check,
    CheckTable,
    Credentials,
    encode_check,
    encode_failure,
    encode_success,
)
from a2al_trio.ice.consent import Consent
from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.ice.nomination import Nomination
from a2al_trio.ice.pairs import Checklist, Pair, PairState
from a2al_trio.ice.stun import Attribute, StunClass, StunMessage, StunMethod, decode_stun
from a2al_trio.machine import Entropy
from a2al_trio.net.address import SocketAddress

__all__ = ["AgentConfig", "ConsentLost", "Failed", "IceAgent", "IceEvent", "IceTransmit", "Selected"]

_STUBBORN_CHECKS: Final = 4
_STUBBORN_AFTER: Final = 1.0


@attrs.frozen(kw_only=True)
class AgentConfig:
    """Times in seconds.

    `pace` is Ta, the time between two new checks (RFC 8445 §14.2 allows 5 ms and up). `patience` is how long to wait
    for unforeseen checks when every known pair has failed (RFC 8863), from our first candidate on; `least_patience` is
    its part that runs from the peer's first frame on, should that be late. Pairs that came late and are still checked
    then have `extension` more. `give_up` is the limit for everything.
    """

    pace: float = 0.005
    patience: float = 8.0
    least_patience: float = 7.0
    extension: float = 1.0
    give_up: float = 30.0
    direct_patience: float = 0.03
    relay_patience: float = 0.2


@attrs.frozen
class IceTransmit:
    """One STUN message to send from a base."""

    base: SocketAddress
    destination: SocketAddress
    data: bytes


@attrs.frozen
class Selected:
    """Data goes over this pair from now on. Comes again when the agents move to another pair."""

    base: SocketAddress
    remote: SocketAddress
    relayed: bool
    description: str


@attrs.frozen
class Failed:
    """No pair works; the agent has stopped."""

    reason: str


@attrs.frozen
class ConsentLost:
    """The peer has not answered for 30 s: nothing may be sent any more (RFC 7675 §5.1); the agent has stopped."""

    reason: str


IceEvent = Selected | Failed | ConsentLost


class IceAgent:
    """The agent. Every method that takes `now` may produce transmits and events; drain both after each call."""

    def __init__(self, *, controlling: bool, entropy: Entropy, config: AgentConfig | None = None) -> None:
        self._config = config or AgentConfig()
        self._entropy = entropy
        # ice-char has 64 letters, those of Base64 (RFC 8445 §5.3): 96 and 192 random bits
        self.credentials = Credentials(base64.b64encode(entropy(12)).decode(), base64.b64encode(entropy(24)).decode())
        self._tie_breaker = entropy(8)
        self._remote_credentials: Credentials | None = None
        self._checklist = Checklist(controlling)
        self._checks = CheckTable()
        self._nomination = Nomination(self._config.direct_patience, self._config.relay_patience)
        self._consent: Consent | None = None
        self._selected: Pair | None = None
        self._nominations: deque[bytes] = deque(maxlen=32)
        self._transmits: deque[IceTransmit] = deque()
        self._events: deque[IceEvent] = deque()
        self._opened_at: float | None = None
        self._started_at: float | None = None
        self._next_check_at = 0.0
        self._revive_at: float | None = None
        self._revive_gap = 0.0
        self._local_ended = False
        self._remote_ended = False
        self._conflicts = 0
        self._conflict_since = 0.0
        self._local_types: set[CandidateType] = set()
        self._stopped = False

    # --- what the driver reads ------------------------------------------------------------------------------

    @property
    def controlling(self) -> bool:
        """Our role; a conflict with the peer's may have changed it before a pair was selected."""
        return self._checklist.controlling

    def accepts(self, source: SocketAddress) -> bool:
        """Whether data from there may come from the peer, which may use any pair (spec 06 Q15)."""
        return source in self._checklist.remotes

    def transmits(self) -> Iterator[IceTransmit]:
        """Take what is to be sent."""
        while self._transmits:
            yield self._transmits.popleft()

    def next_event(self) -> IceEvent | None:
        """Take the next event."""
        return self._events.popleft() if self._events else None

    # --- what the driver and the signaling tell ---------------------------------------------------------------

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """Add one of our candidates; hosts and relays are sent from, reflexive ones only counted."""
        if self._opened_at is None:
            self._opened_at = now
        self._local_types.add(candidate.type)
        if candidate.type in (CandidateType.HOST, CandidateType.RELAYED):
            self._checklist.add_local(candidate)
        self._advance(now)

    def remove_base(self, base: SocketAddress, now: float) -> None:
        """A socket or relay of ours is gone: nothing is sent from it any more."""
        for pair in self._checklist.remove_local(base, keep=self._selected):
            self._checks.cancel(pair)
            pair.state = PairState.FAILED
            self._nomination.abandon(pair)
        if self._selected is not None and self._consent is not None and self._selected.local.address == base:
            self._consent.fall_silent(now)
            self._revive(now)
        self._advance(now)

    def end_local_candidates(self, now: float) -> None:
        """No more of our candidates will come."""
        self._local_ended = True
        self._advance(now)

    def set_remote_credentials(self, credentials: Credentials, now: float) -> None:
        """Start checking; the first credentials count (spec 06 §9)."""
        if self._remote_credentials is None:
            self._remote_credentials = credentials
            self._started_at = now
            self._advance(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Add one of the peer's candidates; what cannot be a peer's UDP address is ignored."""
        if candidate.transport == "udp" and candidate.component == 1 and _is_sendable(candidate.address):
            self._checklist.add_remote(candidate)
            self._advance(now)

    def end_remote_candidates(self, now: float) -> None:
        """The peer has no more candidates."""
        self._remote_ended = True
        self._advance(now)

    def network_changed(self, now: float) -> None:
        """Our addresses changed: look at once whether the selected pair still works, and for others.

        If none does within a few seconds, consent counts as lost: the peer would have to learn our new addresses.
        """
        if self._consent is not None:
            self._consent.uproot(now)
            self._revive(now)
            self._advance(now)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        self._advance(now)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self._stopped or self._started_at is None:
            return None
        times = [self._checks.next_at(), self._nomination.decide_at(self._checklist, self._selected), self._revive_at]
        if self._checklist.has_work:
            times.append(self._next_check_at)
        if self._consent is None:
            times.append(self._fails_at())
        else:
            times += [self._consent.next_check_at, self._consent.expires_at]
        return min(time for time in times if time is not None)

    # --- datagrams --------------------------------------------------------------------------------------------

    def receive(self, base: SocketAddress, data: bytes | memoryview, source: SocketAddress, now: float) -> None:
        """Take one STUN datagram that arrived at `base`; anything unauthenticated is dropped without answer."""
        if self._stopped:
            return
        try:
            message = decode_stun(data)
        except StunDecodeError:
            return
        if message.method != StunMethod.BINDING:
            return
        if message.message_class is StunClass.REQUEST:
            self._receive_check(base, message, source, now)
        elif message.message_class is not StunClass.INDICATION:
            self._receive_answer(base, message, source, now)
        self._advance(now)

    def _receive_check(self, base: SocketAddress, request: StunMessage, source: SocketAddress, now: float) -> None:
        username = request.text(Attribute.USERNAME) or ""
        own, _, theirs = username.partition(":")
        remote = self._remote_credentials
        if own != self.credentials.ufrag or (remote is not None and theirs != remote.ufrag):
            return
        if not request.has_integrity(self.credentials.pwd.encode()):
            return
        if request.unknown_required:
            unknown = b"".join(kind.to_bytes(2, "big") for kind in request.unknown_required)
            attribute = (Attribute.UNKNOWN_ATTRIBUTES, unknown)
            answer = encode_failure(request, 420, "Unknown Attribute", self.credentials, [attribute])
            self._send(base, source, answer)
            return
        if not self._roles_agree(request, now):
            answer = encode_failure(request, 487, "Role Conflict", self.credentials)
            self._send(base, source, answer)
            return
        self._send(base, source, encode_success(request, source, self.credentials))
        moved = source not in self._checklist.remotes
        if moved:
            self._learn_remote(request, source)
        pair = self._checklist.get(base, source)
        if pair is None:
            return
        if moved and self._consent is not None:
            # Who is connected already and comes from elsewhere has been given another address by its NAT.
            pair.checked_by_peer = True
            self._consent.doubt(now)
        if request.get(Attribute.USE_CANDIDATE) is None or self.controlling:
            pair.checked_by_peer = True
        elif request.transaction_id not in self._nominations:
            self._nominations.append(request.transaction_id)  # a late repetition must not take us back
            self._nominated_by_peer(pair, now)
        if pair.state is not PairState.SUCCEEDED:
            self._checks.cancel(pair)
            self._checklist.trigger(pair)

    def _learn_remote(self, request: StunMessage, source: SocketAddress) -> None:
        """A peer-reflexive candidate (RFC 8445 §7.3.1.3)."""
        priority = request.number(Attribute.PRIORITY) or PEER_REFLEXIVE_PRIORITY
        kind = CandidateType.PEER_REFLEXIVE
        foundation = f"p{foundation_of(kind, source.host, str(source.port))}"
        self._checklist.add_remote(Candidate(kind, source, min(priority, 0xFFFFFFFF), foundation))

    def _roles_agree(self, request: StunMessage, now: float) -> bool:
        """Repair a role conflict (RFC 8445 §7.3.1.1); False asks the peer to change its role."""
        attribute = Attribute.ICE_CONTROLLING if self.controlling else Attribute.ICE_CONTROLLED
        theirs = request.get(attribute)
        if theirs is None or self._selected is not None:
            return True
        keep = (self._tie_breaker >= theirs) == self.controlling
        if keep:
            # A peer that knows no 487, as the reference, repeats itself: then it is we who give way (spec 06 D2).
            if not self._conflicts:
                self._conflict_since = now
            self._conflicts += 1
            if self._conflicts <= _STUBBORN_CHECKS or now - self._conflict_since < _STUBBORN_AFTER:
                return False
        self._switch_role(not self.controlling)
        return True

    def _switch_role(self, controlling: bool) -> None:
        self._checklist.controlling = controlling
        self._conflicts = 0
        self._nomination.abandon()
        self._checks.cancel()
        for pair in self._checklist:
            if pair.state is not PairState.FAILED:
                self._checklist.trigger(pair)

    def _receive_answer(self, base: SocketAddress, answer: StunMessage, source: SocketAddress, now: float) -> None:
        check = self._checks.peek(answer.transaction_id)
        remote = self._remote_credentials
        if check is None or remote is None or not answer.has_integrity(remote.pwd.encode()):
            return
        pair = check.pair
        if pair.remote.address != source or pair.local.address != base:
            return  # not symmetric, or somebody replays (RFC 8445 §7.2.5.2.1)
        self._checks.take(answer.transaction_id)
        if answer.message_class is StunClass.ERROR:
            self._check_refused(check, answer)
        else:
            self._check_succeeded(check, answer, now)

    def _check_refused(self, check: Check, answer: StunMessage) -> None:
        error = answer.error
        if error is not None and error[0] == 487:
            if check.controlling == self.controlling and self._selected is None:
                self._switch_role(not self.controlling)
            else:
                self._checklist.trigger(check.pair)
        elif not check.consent:
            check.pair.state = PairState.FAILED
            self._nomination.abandon(check.pair)

    def _check_succeeded(self, check: Check, answer: StunMessage, now: float) -> None:
        pair = check.pair
        self._checks.cancel(pair)
        if pair.state is not PairState.SUCCEEDED:
            pair.state = PairState.SUCCEEDED
            pair.valid_since = now
            self._checklist.unfreeze(pair.foundation)
        pair.mapped = answer.mapped_address
        if not check.repeats:
            pair.round_trip = now - check.sent_at
        if pair is self._selected and self._consent is not None:
            self._consent.confirm(now)
        if check.nominating and check.controlling and self.controlling:
            self._nomination.confirmed(pair)
            self._select(pair, now)
        elif pair.nominated_by_peer and not self.controlling:
            self._nominated_by_peer(pair, now)

    # --- selection --------------------------------------------------------------------------------------------

    def _nominated_by_peer(self, pair: Pair, now: float) -> None:
        selected = self._selected
        if selected is pair:
            return
        answering = self._consent is not None and now < self._consent.silent_at
        aggressive = not pair.checked_by_peer  # it nominates every pair it checks; then the best one counts
        if selected is not None and aggressive and answering and self._checklist.best((selected, pair)) is selected:
            return
        for other in self._checklist:
            other.nominated_by_peer = other is pair
        if pair.state is PairState.SUCCEEDED:
            self._select(pair, now)

    def _select(self, pair: Pair, now: float) -> None:
        if self._selected is pair:
            return
        self._selected = pair
        self._consent = Consent(self._entropy, now)
        self._revive_at = None
        if pair.is_relayed:
            self._revive_gap = 10.0
            self._revive_at = now + self._revive_gap
        else:
            self._checks.cancel()
            self._checklist.stop()
        self._events.append(Selected(pair.local.address, pair.remote.address, pair.is_relayed, str(pair)))

    # --- time -------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        if self._stopped or self._started_at is None:
            return
        self._repeat_checks(now)
        self._begin_checks(now)
        if self.controlling:
            nominate = self._nomination.decide(self._checklist, self._selected, self._consent, now)
            if nominate is not None:
                self._begin(nominate, now, nominate=True)
        if self._consent is not None:
            self._keep_consent(self._consent, now)
        elif now >= self._fails_at():
            self._fail(now)

    def _repeat_checks(self, now: float) -> None:
        repeat, failed = self._checks.due(now)
        for check in repeat:
            self._send(check.pair.local.address, check.pair.remote.address, check.data)
        for check in failed:
            if check.nominating:
                self._nomination.abandon(check.pair)
            check.pair.state = PairState.FAILED

    def _begin_checks(self, now: float) -> None:
        if now < self._next_check_at:
            return
        pair = self._checklist.next_to_check()
        if pair is not None:
            pair.state = PairState.IN_PROGRESS
            pair.checked_at = pair.checked_at or now
            self._begin(pair, now)
            self._next_check_at = now + self._config.pace

    def _begin(self, pair: Pair, now: float, *, nominate: bool = False, consent: bool = False) -> None:
        assert self._remote_credentials is not None
        transaction_id = self._entropy(12)
        data = encode_check(
            transaction_id,
            local=self.credentials,
            remote=self._remote_credentials,
            controlling=self.controlling,
            tie_breaker=self._tie_breaker,
            priority=pair.local.prflx_priority,
            nominate=nominate or (consent and self.controlling),
        )
        self._checks.add(Check(pair, transaction_id, data, self.controlling, nominate, consent, now))
        self._send(pair.local.address, pair.remote.address, data)

    def _keep_consent(self, consent: Consent, now: float) -> None:
        selected = self._selected
        assert selected is not None
        if now >= consent.expires_at:
            self._stopped = True
            self._events.append(ConsentLost(f"the peer stopped answering on {selected}"))
            return
        if now >= consent.next_check_at:
            self._begin(selected, now, consent=True)
            consent.checked(now)
            if now >= consent.silent_at and self._revive_at is None:
                self._revive(now)
        if self._revive_at is not None and now >= self._revive_at:
            self._revive(now)

    def _revive(self, now: float) -> None:
        """Look for a better pair than a relayed or silent one, ever less often."""
        selected = self._selected
        assert selected is not None
        silent = self._consent is not None and now >= self._consent.silent_at
        self._checklist.revive(
            pair
            for pair in self._checklist
            if pair is not selected
            and pair.local.address in self._checklist.locals
            and (silent or not pair.is_relayed or not selected.is_relayed)
        )
        self._revive_gap = max(10.0, 2 * self._revive_gap)
        self._revive_at = now + self._revive_gap if selected.is_relayed or silent else None

    def _fails_at(self) -> float:
        assert self._started_at is not None
        config = self._config
        give_up_at = self._started_at + config.give_up
        if not self._local_ended or not self._remote_ended:
            return give_up_at
        if any(pair.state is PairState.SUCCEEDED for pair in self._checklist):
            return give_up_at
        opened_at = self._started_at if self._opened_at is None else self._opened_at
        patience_ends_at = max(opened_at + config.patience, self._started_at + config.least_patience)
        if any(pair.is_pending for pair in self._checklist):
            patience_ends_at += config.extension
        return min(patience_ends_at, give_up_at)

    def _fail(self, now: float) -> None:
        self._stopped = True
        own = ", ".join(sorted(self._local_types)) or "none"
        theirs = ", ".join(sorted({candidate.type for candidate in self._checklist.remotes.values()})) or "none"
        assert self._started_at is not None
        self._events.append(
            Failed(
                f"none of {len(self._checklist)} candidate pairs worked within {now - self._started_at:.0f} s "
                f"(our candidates: {own}; the peer's: {theirs})"
            )
        )

    def _send(self, base: SocketAddress, destination: SocketAddress, data: bytes) -> None:
        self._transmits.append(IceTransmit(base, destination, data))


def _is_sendable(address: SocketAddress) -> bool:
    """Nobody is at port 0, nor at the unspecified, multicast and broadcast addresses."""
    ip = ipaddress.ip_address(address.host)
    return address.port != 0 and not (ip.is_unspecified or ip.is_multicast or address.host == "255.255.255.255")
