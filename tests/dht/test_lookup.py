"""The search as bookkeeping: any answers, in any order, end it within its budget with the right result."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from a2al_trio.dht.config import DhtConfig, Diversity
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.lookup import DISTRUST_AFTER, Lookup
from tests.dht.support import contact, contact_at, nearest

FREE = Diversity(exempt=("0.0.0.0/0",))
CONFIG = DhtConfig(diversity=FREE)
TARGET = 1 << 255
PEOPLE = [contact(number) for number in range(150)]
CROWD = nearest([contact(number) for number in range(2000)], TARGET, 2000)
GHOSTS = [contact_at(TARGET + number, "12.0.0.1") for number in range(64)]
"""The nearest of all, and nowhere."""


def run(lookup: Lookup, names: Callable[[Contact], list[Contact]], rng: random.Random, silent: set[int]) -> None:
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
            lookup.offer(names(asked), asked.key)


@given(st.integers(0, 2**32), st.integers(3, 150), st.floats(0, 0.5))
@example(130, 114, 0.5).via("the only one to answer named eight in a row that are down, and three others behind them")
def test_in_a_connected_network_the_nearest_answering_nodes_are_found(seed: int, size: int, deaf: float) -> None:
    """Everybody names the same 15: all that can be heard of are these and those asked first.

    They are 18 at most, well within the budget, so nothing excuses a miss. Nothing is found only if none
    of those asked first answers.
    """
    rng = random.Random(seed)
    people = PEOPLE[:size]
    silent = {each.key for each in people if rng.random() < deaf}
    named = nearest(people, TARGET, 15)
    lookup = Lookup(TARGET, 0, CONFIG)
    first = rng.sample(people, 3)
    lookup.offer(first)
    run(lookup, lambda _asked: named, rng, silent)
    heard_of = {each.key: each for each in (*first, *named)} if any(each.key not in silent for each in first) else {}
    answering = [each for key, each in heard_of.items() if key not in silent]
    assert lookup.closest() == nearest(answering, TARGET, CONFIG.bucket_size)
    assert lookup.requests < CONFIG.lookup_budget
    assert lookup.finished


def check_ended_well(
    lookup: Lookup, first: list[Contact], named: dict[Contact, list[Contact]], silent: set[int]
) -> None:
    """What an iterative search can promise, whoever knows whom, if its budget suffices.

    Of all it heard of, from those who answered, it found the K nearest that answer. It passed over a nearer one only
    for K that did answer, and only if everybody who named it also named enough silent ones to be distrusted.
    """
    assert lookup.finished
    heard_of = {each.key: each for each in (*first, *itertools.chain(*named.values()))}
    answering = [each for key, each in heard_of.items() if key not in silent]
    found = lookup.closest()
    missed = [each for each in nearest(answering, TARGET, CONFIG.bucket_size) if each not in found]
    assert not missed or len(found) == CONFIG.bucket_size
    for each in missed:
        assert each not in first
        for others in named.values():
            assert each not in others or sum(other.key in silent for other in others) >= DISTRUST_AFTER


@given(st.integers(0, 2**32), st.integers(20, 80), st.floats(0, 0.9))
def test_nobody_heard_of_is_missed_in_a_small_network_of_which_many_are_down(seed: int, size: int, deaf: float) -> None:
    rng = random.Random(seed)
    people = PEOPLE[:size]
    silent = {each.key for each in people if rng.random() < deaf}
    first = rng.sample(people, 3)
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(first)
    named: dict[Contact, list[Contact]] = {}

    def names(who: Contact) -> list[Contact]:
        return named.setdefault(who, nearest(rng.sample(people, 15), TARGET, 15))

    run(lookup, names, rng, silent)
    if lookup.requests < CONFIG.lookup_budget:
        check_ended_well(lookup, first, named, silent)


@given(st.integers(0, 2**32))
def test_nobody_heard_of_is_missed_in_a_large_network_that_overflows_the_shortlist(seed: int) -> None:
    """The first are far off, and more is named on the way than is kept: the far ones, asked already, are in no way."""
    rng = random.Random(seed)
    first = rng.sample(CROWD[1000:], 16)
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(first)
    named: dict[Contact, list[Contact]] = {}

    def names(who: Contact) -> list[Contact]:
        nearer = CROWD[: max(40, CROWD.index(who) // 2)]
        return named.setdefault(who, nearest(rng.sample(nearer, 15), TARGET, 15))

    run(lookup, names, rng, set())
    assert lookup.requests < CONFIG.lookup_budget
    check_ended_well(lookup, first, named, set())


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


def ask_all(lookup: Lookup) -> list[Contact]:
    """Let ghosts fail and others answer, naming nobody; return whom the search asked."""
    asked: list[Contact] = []
    while batch := lookup.next_to_ask():
        asked += batch
        for each in batch:
            if each in GHOSTS:
                lookup.failed(each.key)
            else:
                lookup.answered(each.key)
    assert lookup.finished
    return asked


def begin(*first: Contact) -> Lookup:
    """A search that has had an answer from each of these."""
    lookup = Lookup(TARGET, 0, CONFIG)
    lookup.offer(first)
    assert set(lookup.next_to_ask()) == set(first)
    for each in first:
        lookup.answered(each.key)
    return lookup


def test_where_enough_others_answer_a_peer_that_names_only_ghosts_loses_the_rest_of_them() -> None:
    liar, honest = contact(1000), contact(1001)
    lookup = begin(liar, honest)
    lookup.offer(GHOSTS[:14], liar.key)
    true = nearest(PEOPLE, TARGET, 15)
    lookup.offer(true, honest.key)
    asked = ask_all(lookup)
    assert sum(each in GHOSTS for each in asked) < DISTRUST_AFTER + CONFIG.alpha
    assert lookup.closest()[:15] == true


def test_where_nobody_else_is_left_the_contacts_of_a_distrusted_peer_are_asked_after_all() -> None:
    unlucky = contact(1000)
    lookup = begin(unlucky)
    true = nearest(PEOPLE, TARGET, 7)
    lookup.offer([*GHOSTS[:8], *true], unlucky.key)
    assert len(ask_all(lookup)) == 15
    assert lookup.closest() == [*true, unlucky]


def test_a_liar_hides_nobody_by_naming_him_first() -> None:
    """Its ghosts cost it its own credit, but not that of the others who name the same nodes."""
    liar, honest = contact(1000), contact(1001)
    lookup = begin(liar, honest)
    true = nearest(PEOPLE, TARGET, 7)
    lookup.offer([*GHOSTS[:8], *true], liar.key)
    lookup.offer(true, honest.key)
    others = [each for each in PEOPLE if each not in true][:15]
    lookup.offer(others, honest.key)
    ask_all(lookup)
    assert lookup.closest()[:7] == true


def test_the_ghosts_of_distrusted_peers_make_room_in_a_full_shortlist() -> None:
    liars, honest = [contact(1000 + number) for number in range(4)], contact(1010)
    true = nearest(PEOPLE, TARGET, 15)
    lookup = Lookup(TARGET, 0, DhtConfig(diversity=FREE, lookup_budget=40))
    lookup.offer([*liars, honest])
    assert len(lookup.next_to_ask()) == 5
    for number, liar in enumerate(liars):
        lookup.answered(liar.key)
        lookup.offer(GHOSTS[number::4], liar.key)
    ask = lookup.next_to_ask()
    assert ask == GHOSTS[:4]
    for _ in range(DISTRUST_AFTER):
        for each in ask:
            lookup.failed(each.key)
        ask = lookup.next_to_ask()
    lookup.answered(honest.key)
    lookup.offer(true, honest.key)
    for each in ask:
        lookup.failed(each.key)
    ask_all(lookup)
    assert lookup.closest()[:15] == true


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
