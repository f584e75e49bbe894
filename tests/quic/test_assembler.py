from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.assembler import MAX_SPARSE_PIECES, MERGED_SIZE, Assembler
from a2al_trio.quic.errors import QuicTransportError


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=60), st.integers(1, 100))
def test_overlapping_pieces_in_any_order(pieces: list[tuple[int, int]], limit: int) -> None:
    data = random.Random(7).randbytes(400)
    assembler, seen, got = Assembler(), set[int](), b""
    for offset, size in pieces:
        assembler.insert(offset, data[offset : offset + size])
        seen |= set(range(offset, offset + size))
        end = next(position for position in range(500) if position not in seen)
        assert assembler.received_to == end
        assert assembler.peek(10) == data[len(got) : min(end, len(got) + 10)]
        chunk = assembler.read(limit)
        assert len(chunk) <= limit
        got += chunk
        assert assembler.readable == end - len(got)
    while chunk := assembler.read(limit):
        got += chunk
    assert got == data[: assembler.received_to]


def test_in_order_chunks_meet_what_came_early() -> None:
    assembler = Assembler()
    assembler.insert(6, b"ghij")
    assembler.extend_in_order([b"abc", b"def"], 6)
    assert assembler.read(100) == b"abcdefghij"
    assembler.final_size = 10
    assert assembler.is_complete
    assert assembler.is_read


def test_one_byte_pieces_do_not_pile_up() -> None:
    assembler = Assembler()
    for offset in range(1, 50_001):
        assembler.insert(offset, b"x")
    assert assembler.pieces < 64 + 50_000 // MERGED_SIZE + 2
    assembler.insert(0, b"y")
    assert assembler.read(1 << 20) == b"y" + b"x" * 50_000


def test_nothing_but_holes_is_refused() -> None:
    assembler = Assembler()
    with pytest.raises(QuicTransportError, match="too many pieces"):
        for offset in range(2, 100_000, 2):
            assembler.insert(offset, b"x")
    assert assembler.pieces <= 2 * MAX_SPARSE_PIECES


def test_many_losses_are_not_taken_for_an_attack() -> None:
    # Every second of 10,000 packets is lost: thousands of holes, but none close to another.
    assembler = Assembler()
    piece = b"x" * 1200
    for number in range(1, 10_000, 2):
        assembler.insert(number * 1200, piece)
    for number in range(0, 10_000, 2):
        assembler.insert(number * 1200, piece)
    assert assembler.readable == 12_000_000
    assert assembler.pieces == 0


def test_reading_little_by_little_is_linear() -> None:
    assembler = Assembler()
    assembler.extend_in_order([bytes(200_000)], 200_000)
    assert sum(len(assembler.read(1)) for _ in range(200_000)) == 200_000
    assert assembler.read(1) == b""


def test_clearing_drops_everything() -> None:
    assembler = Assembler()
    assembler.insert(0, b"ab")
    assembler.insert(5, b"fg")
    assembler.clear()
    assert assembler.read(10) == b""
    assert assembler.pieces == 0
