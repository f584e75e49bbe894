"""A model of the reference's ICE agent, with its habits and traps as spec 06 §12 and §13 describe them.

It has the interface of `IceAgent`, so that an `IcePair` can hold one of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import attrs

from a2al_trio.ice.agent import ConsentLost, Failed, IceEvent, IceTransmit, Selected
from a2al_trio.ice.candidate import PEER_REFLEXIVE_PRIORITY, Candidate, CandidateType
from a2al_trio.ice.checks import Credentials, encode_check, encode_success
from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.ice.pairs import pair_priority
from a2al_trio.ice.stun import Attribute, StunClass, StunMessage, decode_stun
from a2al_trio.machine import Entropy
from a2al_trio.net.address import SocketAddress

TICK = 0.2
CHECKS = 8
PENDING = 4.0
AGES = {
    CandidateType.HOST: 0.0,
    CandidateType.SERVER_REFLEXIVE: 0.5,
    CandidateType.PEER_REFLEXIVE: 1.0,
    CandidateType.RELAYED: 2.0,
}


@attrs.define(eq=False)
class RefPair:
    base: SocketAddress
    local: Candidate
    remote: Candidate
    checks: int = 0
    failed: bool = False
    valid: bool = False
    nominated: bool = False


class ReferenceAgent:
    def __init__(self, *, controlling: bool, entropy: Entropy) -> None:
        self.controlling = controlling
        self._entropy = entropy
        self.credentials = Credentials(entropy(8).hex(), entropy(16).hex())
        self._remote_credentials: Credentials | None = None
        self._tie_breaker = entropy(8)
        self._locals: list[tuple[SocketAddress, Candidate]] = []
        self._remotes: dict[tuple[CandidateType, SocketAddress], Candidate] = {}
        self._pairs: list[RefPair] = []
        self._pending: dict[bytes, tuple[RefPair, float, bool]] = {}
        self._started_at: float | None = None
        self._tick_at: float | None = None
        self._nominating: RefPair | None = None
        self._selected: RefPair | None = None
        self._heard_at = 0.0
        self._transmits: deque[IceTransmit] = deque()
        self._events: deque[IceEvent] = deque()
        self._stopped = False

    def transmits(self) -> Iterator[IceTransmit]:
        while self._transmits:
            yield self._transmits.popleft()

    def next_event(self) -> IceEvent | None:
        return self._events.popleft() if self._events else None

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        base = candidate.address
        if candidate.type is CandidateType.SERVER_REFLEXIVE:
            assert candidate.related is not None  # a socket of its own, whose own address is no candidate
            base = candidate.related
        self._locals.append((base, candidate))
        for remote in self._remotes.values():
            self._pairs.append(RefPair(base, candidate, remote))
        self._tick(now)

    def end_local_candidates(self, now: float) -> None:
        pass

    def end_remote_candidates(self, now: float) -> None:
        pass

    def set_remote_credentials(self, credentials: Credentials, now: float) -> None:
        if self._remote_credentials is None:
            self._remote_credentials = credentials
            self._started_at = now
            self._tick_at = now + TICK
            self._tick(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        key = candidate.type, candidate.address
        if key in self._remotes:
            return
        self._remotes[key] = candidate
        for base, local in self._locals:
            self._pairs.append(RefPair(base, local, candidate))
        self._tick(now)

    def next_timeout(self) -> float | None:
        return None if self._stopped else self._tick_at

    def handle_timeout(self, now: float) -> None:
        if self._tick_at is None or now < self._tick_at or self._started_at is None:
            return
        if self._selected is None:
            self._tick_at = now + TICK
            if now > self._started_at + 30:
                self._stopped = True
                self._events.append(Failed("checking for 30 s"))
                return
            self._tick(now)
            return
        self._tick_at = now + 2.0
        if now > self._heard_at + 30:
            self._stopped = True
            self._events.append(ConsentLost("nothing heard for 30 s"))
        elif now > self._heard_at + 2.0:
            self._check(self._selected, now)

    # --- checks -----------------------------------------------------------------------------------------------

    def _priority(self, pair: RefPair) -> int:
        local, remote = pair.local.priority, pair.remote.priority
        return pair_priority(local, remote) if self.controlling else pair_priority(remote, local)

    def _tick(self, now: float) -> None:
        if self._remote_credentials is None or self._selected is not None or self._stopped:
            return
        if self.controlling:
            if self._nominating is None:
                self._consider(now)
            if self._nominating is not None:
                self._check(self._nominating, now, nominate=True)
                return
        for pair in self._pairs:
            if not pair.failed and not pair.valid:
                pair.checks += 1
                if pair.checks > CHECKS:
                    pair.failed = True
                else:
                    self._check(pair, now)

    def _consider(self, now: float) -> None:
        valid = [pair for pair in self._pairs if pair.valid]
        if valid:
            best = max(valid, key=self._priority)
            if self._old_enough(best, now):
                self._nominating = best

    def _old_enough(self, pair: RefPair, now: float) -> bool:
        assert self._started_at is not None
        age = now - self._started_at
        return age >= AGES[pair.local.type] and age >= AGES[pair.remote.type]

    def _check(self, pair: RefPair, now: float, *, nominate: bool = False) -> None:
        assert self._remote_credentials is not None
        transaction_id = self._entropy(12)
        data = encode_check(
            transaction_id,
            local=self.credentials,
            remote=self._remote_credentials,
            controlling=self.controlling,
            tie_breaker=self._tie_breaker,
            priority=pair.local.priority,
            nominate=nominate,
        )
        self._pending[transaction_id] = pair, now, nominate
        self._transmits.append(IceTransmit(pair.base, pair.remote.address, data))

    # --- what arrives -----------------------------------------------------------------------------------------

    def receive(self, base: SocketAddress, data: bytes, source: SocketAddress, now: float) -> None:
        if self._stopped:
            return
        try:
            message = decode_stun(data)
        except StunDecodeError:
            return
        controlling = message.get(Attribute.ICE_CONTROLLING) is not None
        if self.controlling and (controlling or message.get(Attribute.USE_CANDIDATE) is not None):
            return
        if not self.controlling and message.get(Attribute.ICE_CONTROLLED) is not None:
            return
        if message.message_class is StunClass.REQUEST:
            self._receive_request(base, message, source, now)
        elif message.message_class is StunClass.SUCCESS:
            self._receive_success(base, message, source, now)

    def _receive_request(self, base: SocketAddress, message: StunMessage, source: SocketAddress, now: float) -> None:
        remote = self._remote_credentials
        if remote is None or message.text(Attribute.USERNAME) != f"{self.credentials.ufrag}:{remote.ufrag}":
            return
        if not message.has_integrity(self.credentials.pwd.encode()):
            return
        self._heard_at = now
        if not any(candidate.address == source for candidate in self._remotes.values()):
            kind = CandidateType.PEER_REFLEXIVE
            self.add_remote_candidate(Candidate(kind, source, PEER_REFLEXIVE_PRIORITY, "prflx"), now)
        pair = max(
            (each for each in self._pairs if each.base == base and each.remote.address == source),
            key=self._priority,
            default=None,
        )
        self._transmits.append(IceTransmit(base, source, encode_success(message, source, self.credentials)))
        if pair is None:
            return
        if self.controlling:
            best = max((each for each in self._pairs if not each.failed), key=self._priority, default=None)
            if self._nominating is None and pair.valid and pair is best and self._old_enough(pair, now):
                self._nominating = pair
                self._check(pair, now, nominate=True)
            return
        if message.get(Attribute.USE_CANDIDATE) is not None:
            pair.nominated = True
            if pair.valid:
                self._select(pair, now)
        self._check(pair, now)

    def _receive_success(self, base: SocketAddress, message: StunMessage, source: SocketAddress, now: float) -> None:
        pair, sent_at, nominating = self._pending.pop(message.transaction_id, (None, 0.0, False))
        remote = self._remote_credentials
        if pair is None or remote is None or now - sent_at > PENDING or source != pair.remote.address:
            return
        if base != pair.base or not message.has_integrity(remote.pwd.encode()):
            return
        self._heard_at = now
        pair.valid, pair.failed = True, False
        if nominating or (pair.nominated and not self.controlling):
            self._select(pair, now)

    def _select(self, pair: RefPair, now: float) -> None:
        if self._selected is not None and (
            self.controlling or pair is self._selected or self._priority(pair) < self._priority(self._selected)
        ):
            return
        self._selected = pair
        self._tick_at = now + 2.0
        relayed = CandidateType.RELAYED in (pair.local.type, pair.remote.type)
        self._events.append(Selected(pair.base, pair.remote.address, relayed, f"{pair.local.type} {pair.remote.type}"))
