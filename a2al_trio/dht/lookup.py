"""The iterative search: whom to ask next, and when the K closest have answered (spec 03 §9, with §20.20-23 as rules).

The shortlist is bounded and sorted by distance. Its window is the K nearest candidates that have not failed; only
those are asked, at most `alpha` at a time, and the search ends when all of them have answered. Three rules keep
hostile answers from steering it: a network fills only so many places of the window, what is named by none but peers
whose contacts never answer comes last, and the number of requests is limited.

It comes last rather than never, for an honest peer too may name some nodes in a row that are down, and may be the
only one who knows the rest.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from a2al_trio.dht.addresses import is_exempt
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact

__all__ = ["Candidate", "CandidateState", "Lookup"]

WAITING = 32
"""Places in the shortlist beyond those that the budget of requests can fill: there is always one to give up."""
CONTACTS_PER_ANSWER = 16
DISTRUST_AFTER = 4


class CandidateState(enum.Enum):
    """Where a candidate stands."""

    NEW = 0
    ASKED = 1
    SLOW = 2
    ANSWERED = 3
    FAILED = 4


@attrs.define(eq=False)
class Candidate:
    """A contact under consideration. `depth` counts the answers that led to it: 1 for our own contacts.

    `named_by` holds all who named it before its fate was known, and nobody for our own contacts.
    """

    distance: int
    contact: Contact
    depth: int
    named_by: list[Candidate]
    network: bytes
    state: CandidateState = CandidateState.NEW
    named_good: int = 0
    named_bad: int = 0

    @property
    def distrusted(self) -> bool:
        """Whether what this peer names has so far been invented."""
        return self.named_bad >= DISTRUST_AFTER and self.named_good == 0

    @property
    def doubtful(self) -> bool:
        """Whether nobody vouches for it but peers that are distrusted."""
        return bool(self.named_by) and all(namer.distrusted for namer in self.named_by)

    def __lt__(self, other: Candidate) -> bool:
        return self.distance < other.distance


class Lookup:
    """One search for the nodes nearest to `target`."""

    def __init__(self, target: int, own: int, config: DhtConfig, *, width: int | None = None) -> None:
        self.target = target
        self.requests = 0
        self.budget = config.lookup_budget
        self._alpha = config.alpha
        self._width = config.bucket_size if width is None else width
        self._own = own
        self._config = config
        self._by_key: dict[int, Candidate] = {}
        self._shortlist: list[Candidate] = []
        self._active = 0
        self._distrust = False  # whether anybody was ever distrusted: mostly nobody is, and none is doubtful

    def offer(self, contacts: Iterable[Contact], responder: int | None = None) -> None:
        """Add contacts: our own, or those the node `responder` named."""
        source = None if responder is None else self._by_key.get(responder)
        depth = 1 if source is None else source.depth + 1
        exempt = self._config.diversity.exempt
        for taken, contact in enumerate(contacts):
            if source is not None and taken >= CONTACTS_PER_ANSWER:
                break
            if contact.key == self._own:
                continue
            known = self._by_key.get(contact.key)
            if known is not None:
                self._name_again(known, source)
                continue
            network = b"" if is_exempt(contact.address.host, exempt) else contact.network
            named_by = [] if source is None else [source]
            candidate = Candidate(contact.key ^ self.target, contact, depth, named_by, network)
            if len(self._shortlist) < self.budget + WAITING or self._make_room(candidate):
                self._by_key[contact.key] = candidate
                insort(self._shortlist, candidate)

    @staticmethod
    def _name_again(known: Candidate, source: Candidate | None) -> None:
        """Let `source` vouch too, so that a liar who was first to name a node cannot discredit it.

        Who names what is already settled proves nothing by it.
        """
        settled = known.state is CandidateState.ANSWERED or known.state is CandidateState.FAILED
        if source is not None and not settled and known.named_by and source not in known.named_by:
            known.named_by.append(source)

    def _make_room(self, newcomer: Candidate) -> bool:
        """Give up the last of those not asked yet, unless the newcomer itself would be the last."""
        waiting = (candidate for candidate in reversed(self._shortlist) if candidate.state is CandidateState.NEW)
        last = next(waiting)
        if self._distrust and not last.doubtful:
            last = next((candidate for candidate in waiting if candidate.doubtful), last)
        if (newcomer.doubtful, newcomer.distance) > (last.doubtful, last.distance):
            return False
        del self._shortlist[bisect_left(self._shortlist, last)]
        del self._by_key[last.contact.key]
        return True

    def _window(self) -> Iterator[Candidate]:
        """The K nearest candidates that may still count, a bounded number per network, the doubtful ones last."""
        per_network = self._config.diversity.per_lookup
        networks: Counter[bytes] = Counter()
        taken = 0
        for candidate in self._by_rank():
            if candidate.network:
                networks[candidate.network] += 1
                if networks[candidate.network] > per_network:
                    continue
            yield candidate
            taken += 1
            if taken == self._width:
                return

    def _by_rank(self) -> Iterator[Candidate]:
        """All candidates that have not failed, nearest first, then the doubtful ones that have not been asked."""
        doubtful: list[Candidate] = []
        for candidate in self._shortlist:
            if self._distrust and candidate.state is CandidateState.NEW and candidate.doubtful:
                doubtful.append(candidate)
            elif candidate.state is not CandidateState.FAILED:
                yield candidate
        yield from doubtful

    def next_to_ask(self) -> list[Contact]:
        """Contacts to ask now; they count as asked."""
        room = min(self._alpha - self._active, self.budget - self.requests)
        chosen: list[Contact] = []
        if room <= 0:
            return chosen
        for candidate in self._window():
            if candidate.state is CandidateState.NEW:
                candidate.state = CandidateState.ASKED
                self._active += 1
                self.requests += 1
                chosen.append(candidate.contact)
                if len(chosen) == room:
                    break
        return chosen

    def hurry(self, width: int) -> None:
        """Only the `width` nearest are of interest from now on, and all of them are asked at once."""
        self._width = self._alpha = min(self._width, width)

    def depth_of(self, key: int) -> int:
        """How many answers away the node was found, 0 if it is no candidate."""
        candidate = self._by_key.get(key)
        return 0 if candidate is None else candidate.depth

    def answered(self, key: int) -> None:
        """The node answered, perhaps late."""
        self._settle(key, CandidateState.ANSWERED)

    def failed(self, key: int) -> None:
        """The node did not answer, or somebody else did."""
        self._settle(key, CandidateState.FAILED)

    def slow(self, key: int) -> None:
        """The node takes long; its place among the active is free, a late answer still counts."""
        candidate = self._by_key.get(key)
        if candidate is not None and candidate.state is CandidateState.ASKED:
            candidate.state = CandidateState.SLOW
            self._active -= 1

    def _settle(self, key: int, state: CandidateState) -> None:
        candidate = self._by_key.get(key)
        if candidate is None or candidate.state not in {CandidateState.ASKED, CandidateState.SLOW}:
            return
        if candidate.state is CandidateState.ASKED:
            self._active -= 1
        candidate.state = state
        for namer in candidate.named_by:
            if state is CandidateState.ANSWERED:
                namer.named_good += 1
            else:
                namer.named_bad += 1
                self._distrust = self._distrust or namer.distrusted

    @property
    def finished(self) -> bool:
        """Whether the window has answered, or nothing more may be asked.

        Slow candidates do not hold up the search unless nobody has answered yet.
        """
        if self.requests >= self.budget:
            return self._active == 0
        answered = slow = False
        for candidate in self._window():
            if candidate.state in {CandidateState.NEW, CandidateState.ASKED}:
                return False
            answered = answered or candidate.state is CandidateState.ANSWERED
            slow = slow or candidate.state is CandidateState.SLOW
        return answered or not slow

    @property
    def waits_for_slow(self) -> bool:
        """Whether a late answer could still come from the window."""
        return any(candidate.state is CandidateState.SLOW for candidate in self._window())

    def closest(self, count: int | None = None) -> list[Contact]:
        """The nearest nodes that answered."""
        found = [c.contact for c in self._shortlist if c.state is CandidateState.ANSWERED]
        return found[: self._config.bucket_size if count is None else count]

    def answered_distances(self) -> list[int]:
        """Distances of the nodes that answered, nearest first."""
        return [c.distance for c in self._shortlist if c.state is CandidateState.ANSWERED]
