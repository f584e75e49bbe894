"""Endpoint, topic and profile payloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.cbor import encode
from a2al_trio.wire import (
    EndpointPayload,
    InvalidPayload,
    NatType,
    PayloadTooLarge,
    ProfilePayload,
    TopicPayload,
    WireEncodeError,
    decode_payload,
    filter_topics,
    topic_key,
)
from a2al_trio.wire.payloads import check_payload
from tests.wire.strategies import short_texts, texts, uint8

metas = st.none() | st.dictionaries(
    short_texts, st.integers(-5, 5) | short_texts | st.floats(allow_nan=False), min_size=1, max_size=2
)
endpoint_payloads = st.builds(EndpointPayload, st.none() | texts, st.integers(0, 4), short_texts, texts, texts)
topic_payloads = st.builds(
    TopicPayload,
    st.text(min_size=1, max_size=20),
    short_texts,
    st.none() | texts,
    st.none() | texts,
    short_texts,
    metas,
    st.integers(1, 255),
)
profile_payloads = st.builds(
    ProfilePayload, short_texts, short_texts, texts, texts, st.binary(max_size=32), texts, metas, st.integers(1, 255)
)
Payload = EndpointPayload | TopicPayload | ProfilePayload
ALL = (EndpointPayload, TopicPayload, ProfilePayload)


@given(endpoint_payloads | topic_payloads | profile_payloads)
def test_what_is_encoded_comes_back(payload: Payload) -> None:
    assert type(payload).decode(payload.encode()) == payload
    check_payload(payload.record_type, payload.encode())


@given(st.binary(max_size=120), st.sampled_from(ALL))
def test_any_bytes_are_a_value_or_our_error(data: bytes, kind: type[Payload]) -> None:
    try:
        payload = kind.decode(data)
    except InvalidPayload:
        return
    assert kind.decode(payload.encode()).encode() == payload.encode()


@given(
    st.dictionaries(
        st.integers(0, 10),
        st.none()
        | st.integers(-1, 300)
        | short_texts
        | st.binary(max_size=5)
        | st.lists(st.none() | short_texts | uint8, max_size=3)
        | metas,
    ),
    st.sampled_from(ALL),
)
def test_any_map_is_a_value_or_our_error(fields: dict[int, Any], kind: type[Payload]) -> None:
    try:
        payload = kind.decode(encode(fields))
    except InvalidPayload:
        return
    payload.encode()


def test_defaults_are_what_the_reference_writes() -> None:
    """Spec 02 §16."""
    assert TopicPayload("t").encode().hex() == "a60101026174036004f605f60660"
    assert EndpointPayload().encode().hex() == "a201f60200"
    assert ProfilePayload().encode().hex() == "a10101"
    meta: dict[str, Any] = {"k": "v", "aa": 1, "b": 1.5, "c": [True, None], "z": 100000.0}
    encoded = TopicPayload("t", meta=meta).encode().hex()
    assert encoded.endswith("07a56162f93e00616382f5f6616b6176617afa47c3500062616101")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: TopicPayload("t", brief="x" * 141), PayloadTooLarge),
        (lambda: TopicPayload("t", name="x" * 500), PayloadTooLarge),
        (lambda: ProfilePayload(name="x" * 700), PayloadTooLarge),
        (lambda: EndpointPayload(signals=("wss://x",) * 9), PayloadTooLarge),
        (lambda: EndpointPayload(signal="x" * 2049), PayloadTooLarge),
        (lambda: EndpointPayload(turns=("turn://x",) * 17), PayloadTooLarge),
        (lambda: EndpointPayload(nat_type=5), WireEncodeError),
        (lambda: TopicPayload("t", version=256), WireEncodeError),
        (lambda: TopicPayload("t", meta={1: 2}), WireEncodeError),  # type: ignore[dict-item]
    ],
)
def test_limits_hold_when_encoding(make: Callable[[], Payload], error: type[Exception]) -> None:
    with pytest.raises(error):
        make().encode()


def test_records_of_another_type_are_refused() -> None:
    assert decode_payload(ProfilePayload, 2, b"\xa0") == ProfilePayload(version=0)
    with pytest.raises(InvalidPayload, match="type"):
        decode_payload(ProfilePayload, 1, b"\xa0")


def test_signal_urls_prefer_the_list() -> None:
    assert EndpointPayload(signal="wss://a").signal_urls == ("wss://a",)
    assert EndpointPayload(signal="wss://a", signals=("wss://b", "wss://c")).signal_urls == ("wss://b", "wss://c")
    assert EndpointPayload().signal_urls == ()
    assert EndpointPayload(nat_type=NatType.SYMMETRIC).nat_type == 4


def test_topic_filter() -> None:
    a = TopicPayload("t", protocols=("http", "mcp"), tags=("x", "y"))
    b = TopicPayload("t", protocols=None, tags=("x",))
    assert filter_topics([a, b]) == [a, b]
    assert filter_topics([a, b], protocols=["mcp", "grpc"]) == [a]
    assert filter_topics([a, b], tags=["x"]) == [a, b]
    assert filter_topics([a, b], tags=["x", "y"]) == [a]
    assert filter_topics([a, b], tags=["X"]) == []
    assert topic_key("ai/test").hex().startswith("52924d92")
