"""Variable-length integers: the examples of RFC 9000 §A.1, round trips, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.varint import (
    MAX_VARINT,
    VarintError,
    decode_varint,
    encode_varint,
    varint_size,
)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("c2197c5eff14e88c", 151288809941952652),
        ("9d7f3e7d", 494878333),
        ("7bbd", 15293),
        ("25", 37),
    ],
)
def test_examples_of_the_rfc(encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert decode_varint(data, 0) == (value, len(data))
    assert encode_varint(value) == data


def test_longer_encodings_are_accepted() -> None:
    assert decode_varint(bytes.fromhex("4025"), 0) == (37, 2)


@given(st.integers(0, MAX_VARINT), st.binary(max_size=4))
def test_round_trip(value: int, prefix: bytes) -> None:
    buffer = prefix + encode_varint(value)
    assert decode_varint(memoryview(buffer), len(prefix)) == (value, len(buffer))
    assert varint_size(value) == len(buffer) - len(prefix)


@given(st.binary(max_size=10), st.integers(0, 10))
def test_any_bytes_decode_or_raise(data: bytes, offset: int) -> None:
    try:
        value, end = decode_varint(data, offset)
    except VarintError:
        return
    assert 0 <= value <= MAX_VARINT
    assert offset < end <= len(data)


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_values_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="variable-length"):
        encode_varint(value)


def test_size_of_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="62 bits"):
        varint_size(MAX_VARINT + 1)
