"""The iterative search: whom to ask next, and when the K closest have answered (spec 03 §9, with §20.20-23 as rules).

The shortlist is bounded and sorted by distance. Its window is the K nearest candidates that have not failed; only
those are asked, at most `alpha` at a time, and the search ends when all of them have answered. Three rules keep
hostile answers from steering it: a network fills only so many places of the window, a peer whose named contacts
never answer loses the rest of them, and the number of requests is limited.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from a2al_trio.dht.addresses import is_exempt
from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.contact import Contact

__all__ = ["Candidate", "CandidateState", "Lookup"]

SHORTLIST = 96
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
    """A contact under consideration. `depth` counts the answers that led to it: 1 for our own contacts."""

    distance: int
    contact: Contact
    depth: int
    named_by: Candidate | None
    network: bytes
    state: CandidateState = CandidateState.NEW
    named_good: int = 0
    named_bad: int = 0

    @property
    def distrusted(self) -> bool:
        """Whether what this peer names has so far been invented."""
        return self.named_bad >= DISTRUST_AFTER and self.named_good == 0

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

    def offer(self, contacts: Iterable[Contact], responder: int | None = None) -> None:
        """Add contacts: our own, or those the node `responder` named."""
        source = None if responder is None else self._by_key.get(responder)
        depth = 1 if source is None else source.depth + 1
        exempt = self._config.diversity.exempt
        for taken, contact in enumerate(contacts):
            if source is not None and taken >= CONTACTS_PER_ANSWER:
                break
            if contact.key == self._own or contact.key in self._by_key:
                continue
            network = b"" if is_exempt(contact.address.host, exempt) else contact.network
            candidate = Candidate(contact.key ^ self.target, contact, depth, source, network)
            shortlist = self._shortlist
            if len(shortlist) >= SHORTLIST:
                farthest = shortlist[-1]
                if candidate.distance >= farthest.distance or farthest.state is not CandidateState.NEW:
                    continue
                shortlist.pop()
                del self._by_key[farthest.contact.key]
            self._by_key[contact.key] = candidate
            insort(shortlist, candidate)

    def _window(self) -> Iterator[Candidate]:
        """The K nearest candidates that may still count, a bounded number per network."""
        size, per_network = self._width, self._config.diversity.per_lookup
        networks: Counter[bytes] = Counter()
        taken = 0
        for candidate in self._shortlist:
            if candidate.state is CandidateState.FAILED:
                continue
            namer = candidate.named_by
            if candidate.state is CandidateState.NEW and namer is not None and namer.distrusted:
                continue
            if candidate.network:
                networks[candidate.network] += 1
                if networks[candidate.network] > per_network:
                    continue
            yield candidate
            taken += 1
            if taken == size:
                return

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
        if candidate.named_by is not None:
            if state is CandidateState.ANSWERED:
                candidate.named_by.named_good += 1
            else:
                candidate.named_by.named_bad += 1

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
