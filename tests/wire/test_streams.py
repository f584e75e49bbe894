"""Kinds of streams, service starts and mail deliveries."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.wire import (
    InvalidControlStream,
    InvalidRecord,
    MailDelivery,
    MailDeliveryReader,
    StreamKind,
    WireDecodeError,
    WireEncodeError,
    classify_stream,
    encode_mail_delivery,
    encode_service_start,
)
from tests.wire.strategies import NOW, record_of

MAIL = record_of(0x80, 1, NOW, 60, 40)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"a2mb", StreamKind.MAIL),
        (b"a2s1\x07\x00\x00", StreamKind.SERVICE),
        (b"a2cs", StreamKind.CONTENT),
        (b"a2en", StreamKind.ENVELOPE),
        (b"a2gp", StreamKind.GROUP),
        (b"a2zz", StreamKind.UNKNOWN),
        (b"a2r2", StreamKind.UNKNOWN),
        (b"a2 LOGIN", StreamKind.RAW),
        (b"GET / HTTP/1.1", StreamKind.RAW),
        (b"G", StreamKind.RAW),
        (b"ab", StreamKind.RAW),
        (b"", None),
        (b"a", None),
        (b"a2m", None),
    ],
)
def test_kinds(start: bytes, kind: StreamKind | None) -> None:
    assert classify_stream(start) is kind
    assert classify_stream(start, finished=True) is (kind or StreamKind.RAW)


@given(st.binary(max_size=6))
def test_a_kind_is_decided_by_four_bytes_at_the_latest(start: bytes) -> None:
    kind = classify_stream(start)
    assert kind is not None or len(start) < 4
    if kind is not None:
        assert classify_stream(start + b"more") is kind or len(start) < 4


def test_service_start() -> None:
    """Spec 08 §4."""
    assert encode_service_start() == b"a2s1\x07\x00\x00"
    assert encode_service_start("tok") == b"a2s1\x04\x00\x03tok\x07\x00\x00"


def deliver(data: bytes, size: int) -> MailDelivery | None:
    reader, delivery = MailDeliveryReader(), None
    for at in range(0, len(data), size):
        assert delivery is None
        delivery = reader.feed(data[at : at + size])
    return delivery


@given(st.integers(1, 400))
def test_mail_comes_through_however_it_is_cut(size: int) -> None:
    data = encode_mail_delivery(MAIL)
    assert data[:4] == b"a2mb"
    assert deliver(data[4:], size) == MailDelivery(MAIL.payload_id, MAIL)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_no_mail(data: bytes, size: int) -> None:
    with contextlib.suppress(WireDecodeError):
        assert deliver(data, size) is None


def test_broken_mail_is_refused() -> None:
    data = encode_mail_delivery(MAIL)[4:]
    with pytest.raises(InvalidRecord, match="announced"):
        deliver(bytes(32) + data[32:], 1000)
    with pytest.raises(InvalidControlStream, match="65537"):
        deliver(data[:32] + (65537).to_bytes(4, "big"), 1000)
    with pytest.raises(InvalidControlStream, match="after"):
        deliver(data + b"x", 1000)
    with pytest.raises(WireEncodeError):
        encode_mail_delivery(record_of(0x02, 1, NOW, 60, 40))
