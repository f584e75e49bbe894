"""The CBOR codec against an independent one, and against everything it must refuse."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.cbor import MAX_DEPTH, MAX_PAIRS, CborDecodeError, CborEncodeError, CborMap, CborSimple, decode, encode

keys = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=40)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=300)
    | st.text(max_size=80)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=6), max_leaves=25
)


@given(values)
def test_agrees_with_another_codec_on_canonical_bytes(value: Any) -> None:
    encoded = encode(value)
    assert encoded == cbor2.dumps(value, canonical=True)
    assert decode(encoded) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except CborDecodeError:
        return
    assert encode(value) == data


@given(values, st.data())
def test_a_mutated_item_is_canonical_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    test_any_bytes_are_canonical_or_refused.hypothesis.inner_test(bytes(encoded))  # type: ignore[attr-defined]


@given(values, st.integers(0, 400))
def test_every_prefix_is_refused(value: Any, cut: int) -> None:
    encoded = encode(value)
    if cut < len(encoded):
        with pytest.raises(CborDecodeError):
            decode(encoded[:cut])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "ends inside"),
        ("1800", "shorter"),
        ("1817", "shorter"),
        ("190018", "shorter"),
        ("1900ff", "shorter"),
        ("1a0000ffff", "shorter"),
        ("1b00000000ffffffff", "shorter"),
        ("3800", "shorter"),
        ("580100", "shorter"),
        ("1c", "reserved"),
        ("5f4101ff", "indefinite"),
        ("9fff", "indefinite"),
        ("bfff", "indefinite"),
        ("ff", "break"),
        ("c100", "tag"),
        ("d9d9f700", "tag"),
        ("a20201 0102", "sorted"),
        ("a20101 0102", "doubled"),
        ("a2616101 0102", "sorted"),
        ("a2200100 00", "sorted"),
        ("a2181801 1701", "sorted"),
        ("a1f500", "key"),
        ("a1f600", "key"),
        ("a1414100", "key"),
        ("a18000", "key"),
        ("61ff", "UTF-8"),
        ("f81f", "wrongly"),
        ("fa3fc00000", "shorter"),
        ("fb3ff8000000000000", "shorter"),
        ("f97e01", "shorter"),
        ("fa7fc00000", "shorter"),
        ("0000", "after the item"),
        ("9b00000001000000000000", "ends inside"),
        ("bb0000000100000000", "ends inside"),
        ("5b7fffffffffffffff00", "ends inside"),
        ("7a7fffffff00", "ends inside"),
    ],
)
def test_refused(data: str, why: str) -> None:
    with pytest.raises(CborDecodeError, match=why):
        decode(bytes.fromhex(data.replace(" ", "")))


def test_depth_is_bounded_both_ways() -> None:
    deepest = b"\x81" * MAX_DEPTH + b"\x00"
    assert encode(decode(deepest)) == deepest
    with pytest.raises(CborDecodeError, match="nested"):
        decode(b"\x81" + deepest)
    with pytest.raises(CborDecodeError, match="nested"):
        decode(b"\x81" * 100_000)
    with pytest.raises(CborEncodeError, match="nested"):
        encode([decode(deepest)])


def test_maps_are_bounded_both_ways() -> None:
    most = encode(dict.fromkeys(range(MAX_PAIRS)))
    assert encode(decode(most)) == most
    with pytest.raises(CborDecodeError, match="pairs"):
        decode(b"\xb9\x02\x01" + most[3:] + b"\x19\x02\x00\xf6")
    with pytest.raises(CborEncodeError, match="pairs"):
        encode(dict.fromkeys(range(MAX_PAIRS + 1)))


def test_floats_take_the_shortest_form() -> None:
    assert encode(math.nan) == bytes.fromhex("f97e00")
    assert encode(math.inf) == bytes.fromhex("f97c00")
    assert encode(-math.inf) == bytes.fromhex("f9fc00")
    assert encode(-0.0) == bytes.fromhex("f98000")
    assert encode(100000.0) == bytes.fromhex("fa47c35000")
    assert encode(0.1) == bytes.fromhex("fb3fb999999999999a")
    assert math.isnan(decode(bytes.fromhex("f97e00")))  # type: ignore[arg-type]


def test_simple_values_survive() -> None:
    for text in ("f3", "f7", "f820", "f8ff"):
        data = bytes.fromhex(text)
        assert isinstance(decode(data), CborSimple)
        assert encode(decode(data)) == data


def test_maps_know_where_they_stood() -> None:
    data = encode({1: {2: b"x" * 300}, 3: [{"a": 1}]})
    outer = decode(data)
    assert isinstance(outer, CborMap)
    inner, listed = outer[1], outer[3]
    assert isinstance(inner, CborMap)
    assert decode(data[inner.start : inner.end]) == inner
    assert isinstance(listed, list)
    assert isinstance(listed[0], CborMap)
    assert data[listed[0].start : listed[0].end] == encode({"a": 1})
    wide = encode(dict.fromkeys(range(30)))
    value = decode(wide)
    assert isinstance(value, CborMap)
    assert (value.start, value.end) == (0, len(wide))


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, {1.5: 0}, {None: 0}, {True: 0}, object(), {1, 2}, "\ud800"])
def test_values_without_a_form_are_refused(value: Any) -> None:
    with pytest.raises(CborEncodeError):
        encode(value)
