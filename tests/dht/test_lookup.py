"""The search as bookkeeping: any answers, in any order, end it within its budget with the right result."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.dht.config import DhtConfig, Diversity
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.lookup import Lookup
from tests.dht.support import contact, nearest

FREE = Diversity(exempt=("0.0.0.0/0",))
CONFIG = DhtConfig(diversity=FREE)
TARGET = 1 << 255
PEOPLE = [contact(number) for number in range(150)]


def run(lookup: Lookup, known: dict[int, list[Contact]], rng: random.Random, silent: set[int]) -> None:
    """Answer what is asked in random order until the search is over."""
    waiting: list[Contact] = []
    while True:
        waiting += lookup.next_to_ask()
        assert len(waiting) <= CONFIG.alpha
        if lookup.finished or not waiting:
            return
        asked = waiting.pop(rng.randrange(len(waiting)))
        if asked.key in silent:
            lookup.failed(asked.key)
        else:
            lookup.answered(asked.key)
            lookup.offer(known.get(asked.key, []), asked.key)


@given(st.integers(0, 2**32), st.integers(3, 150), st.floats(0, 0.5))
def test_in_a_connected_network_the_nearest_answering_nodes_are_found(seed: int, size: int, deaf: float) -> None:
    rng = random.Random(seed)
    people = PEOPLE[:size]
    silent = {each.key for each in people if rng.random() < deaf}
    known = {each.key: nearest(people, TARGET, 15) for each in people}
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(rng.sample(people, 3))
    run(lookup, known, rng, silent)
    answering = [each for each in people if each.key not in silent]
    if {each.key for each in lookup.closest()}:
        best = nearest([each for each in answering if each in nearest(people, TARGET, 15)], TARGET, 16)
        assert lookup.closest(len(best))[: len(best)] == best or lookup.requests >= lookup.budget
    assert lookup.requests <= lookup.budget
    assert lookup.finished


@given(st.integers(0, 2**32))
def test_invented_contacts_never_hold_it_beyond_its_budget(seed: int) -> None:
    rng = random.Random(seed)
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(PEOPLE[:5])
    asked_total, waiting = 0, []
    for _ in range(10_000):
        waiting += lookup.next_to_ask()
        if lookup.finished or not waiting:
            break
        asked = waiting.pop()
        asked_total += 1
        lookup.answered(asked.key)
        lookup.offer([contact(rng.randrange(50_000)) for _ in range(30)], asked.key)
    assert asked_total <= CONFIG.lookup_budget
    assert lookup.finished


def test_a_peer_that_names_only_ghosts_loses_the_rest_of_them() -> None:
    lookup = Lookup(TARGET, 0, CONFIG)
    liar = contact(1000)
    ghosts = nearest([contact(2000 + number) for number in range(400)], TARGET, 14)
    lookup.offer([liar])
    assert lookup.next_to_ask() == [liar]
    lookup.answered(liar.key)
    lookup.offer(ghosts, liar.key)
    asked = 0
    while batch := lookup.next_to_ask():
        for ghost in batch:
            asked += 1
            lookup.failed(ghost.key)
    assert asked <= 4 + CONFIG.alpha
    assert lookup.finished


def test_one_network_fills_only_its_share_of_the_window() -> None:
    lookup = Lookup(TARGET, 0, DhtConfig(diversity=Diversity(per_lookup=4)))
    same = [contact(number, host="66.6.6.6", port=1000 + number) for number in range(50)]
    lookup.offer(same)
    asked = 0
    while batch := lookup.next_to_ask():
        asked += len(batch)
        for each in batch:
            lookup.answered(each.key)
    assert asked == 4


def test_slow_peers_free_their_place_and_count_when_they_answer() -> None:
    lookup = Lookup(TARGET, 0, CONFIG)
    people = nearest(PEOPLE, TARGET, 6)
    lookup.offer(people)
    first = lookup.next_to_ask()
    assert len(first) == 5
    lookup.slow(first[0].key)
    assert lookup.next_to_ask() == [people[5]]
    for each in [*first[1:], people[5]]:
        lookup.answered(each.key)
    assert lookup.finished
    assert lookup.waits_for_slow
    lookup.answered(first[0].key)
    assert not lookup.waits_for_slow
    assert lookup.closest() == people


def test_when_everybody_is_slow_the_search_waits() -> None:
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(PEOPLE[:2])
    for each in lookup.next_to_ask():
        lookup.slow(each.key)
    assert not lookup.finished
    lookup.failed(PEOPLE[0].key)
    lookup.failed(PEOPLE[1].key)
    assert lookup.finished
