"""Peer health: back-off, recovery, bounds."""

from __future__ import annotations

from a2al_trio.dht.health import HealthBook, HealthState


def test_back_off_doubles_and_a_success_ends_it() -> None:
    book = HealthBook(10)
    assert book.state(1) is HealthState.UNKNOWN
    waits = []
    for _ in range(13):
        peer = book.failure(1, 100.0)
        assert peer.next_retry is not None
        waits.append(peer.next_retry - 100.0)
    assert waits[:4] == [30, 60, 120, 240]
    assert max(waits) == 30_720
    assert book.state(1) is HealthState.BAD
    assert not book.may_contact(1, 200.0)
    book.success(1, 200.0, 0.05)
    assert book.state(1) is HealthState.GOOD
    assert book.may_contact(1, 200.0)


def test_it_is_bounded_and_forgets_the_oldest() -> None:
    book = HealthBook(3)
    for key in range(5):
        book.success(key, 1.0, 0.1)
    assert len(book) == 3
    assert book.get(0) is None
    assert book.get(4) is not None


def test_a_peer_absent_from_its_hub_counts_as_bad() -> None:
    book = HealthBook(3)
    book.condemn(9)
    assert book.state(9) is HealthState.UNKNOWN
    book.success(9, 1.0, 0.1)
    book.condemn(9)
    assert book.state(9) is HealthState.BAD
