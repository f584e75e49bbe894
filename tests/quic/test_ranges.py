from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.ranges import RangeSet

OPERATIONS = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 12)), max_size=40)


@given(OPERATIONS)
def test_behaves_like_a_set_of_integers(operations: list[tuple[bool, int, int]]) -> None:
    ranges, model = RangeSet(), set[int]()
    for adds, start, size in operations:
        if adds:
            ranges.add(start, start + size)
            model |= set(range(start, start + size))
        else:
            ranges.subtract(start, start + size)
            model -= set(range(start, start + size))
        listed = list(ranges)
        assert {value for low, high in listed for value in range(low, high)} == model
        assert all(low < high for low, high in listed)
        assert all(before[1] < after[0] for before, after in pairwise(listed))
        assert list(reversed(ranges)) == listed[::-1]
        assert ranges.size == len(model)
        assert all((value in ranges) == (value in model) for value in range(75))


@given(OPERATIONS, st.integers(0, 70), st.integers(0, 30))
def test_gaps_are_what_is_missing(operations: list[tuple[bool, int, int]], start: int, size: int) -> None:
    ranges = RangeSet()
    for _, low, width in operations:
        ranges.add(low, low + width)
    missing = [value for low, high in ranges.gaps(start, start + size) for value in range(low, high)]
    assert missing == [value for value in range(start, start + size) if value not in ranges]


def test_first_last_and_dropping() -> None:
    ranges = RangeSet()
    ranges.add(5, 7)
    ranges.add(1, 2)
    assert (ranges.first, ranges.last, len(ranges)) == ((1, 2), (5, 7), 2)
    assert ranges.drop_first() == (1, 2)
    assert ranges
    assert repr(ranges) == "RangeSet([(5, 7)])"
