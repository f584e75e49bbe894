"""Mail: sealed for one reader, opened by nobody else."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519, crypto_sign_ed25519_sk_to_curve25519

from a2al_trio.identity import Identity, SigningKey
from a2al_trio.wire import (
    MAX_MAIL_BODY,
    InvalidPayload,
    InvalidRecord,
    PayloadTooLarge,
    SignedRecord,
    WireEncodeError,
    mailbox_recipient,
    open_mailbox,
    seal_mailbox,
    sign_record,
)
from a2al_trio.wire.mailbox import x25519_private_key, x25519_public_key
from tests.wire.strategies import ALICE, BOB, NOW


def counting() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda count: bytes([next(numbers)]) * count


def mail(payload: bytes, publisher: Identity = ALICE) -> SignedRecord:
    return sign_record(publisher, 0x80, payload, sequence=9, timestamp=NOW, ttl=3600)


def sealed(body: bytes = b"hello", message_type: int = 3) -> bytes:
    return seal_mailbox(ALICE.address, BOB.address, BOB.public_key, message_type, body, entropy=counting())


@given(st.binary(max_size=MAX_MAIL_BODY), st.integers(0, 23))
def test_what_is_sealed_is_opened_by_the_recipient(body: bytes, message_type: int) -> None:
    record = mail(sealed(body, message_type))
    opened = open_mailbox(record, BOB.address, BOB.key)
    assert (opened.sender, opened.message_type, opened.body) == (ALICE.address, message_type, body)
    assert (opened.sequence, opened.sender_key) == (9, ALICE.public_key)
    assert mailbox_recipient(record) == BOB.address


@given(st.data())
def test_a_changed_byte_never_opens_to_something_else(data: st.DataObject) -> None:
    payload = bytearray(sealed())
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_mailbox(mail(bytes(payload)), BOB.address, BOB.key)
    except InvalidRecord:
        return
    # X25519 ignores the top bit of the ephemeral key, so that one may flip.
    assert opened.body == b"hello"


@given(st.binary(max_size=200))
def test_any_payload_is_refused_with_our_error(payload: bytes) -> None:
    with pytest.raises(InvalidRecord):
        open_mailbox(mail(payload), BOB.address, BOB.key)


def test_others_cannot_open_it() -> None:
    record = mail(sealed())
    with pytest.raises(InvalidPayload, match="decrypt"):
        open_mailbox(record, BOB.address, SigningKey(bytes(32)))
    with pytest.raises(InvalidPayload, match="another recipient"):
        open_mailbox(record, ALICE.address, BOB.key)


def test_the_sender_inside_must_be_the_publisher() -> None:
    mallory = Identity.from_seed(bytes(32))
    with pytest.raises(InvalidPayload, match="publisher"):
        open_mailbox(mail(sealed(), mallory), BOB.address, BOB.key)


def test_other_records_are_no_mail() -> None:
    record = sign_record(ALICE, 0x02, sealed(), sequence=1, timestamp=NOW, ttl=60)
    with pytest.raises(InvalidRecord, match="no mail"):
        open_mailbox(record, BOB.address, BOB.key)


def test_limits_and_mistakes() -> None:
    assert len(sealed(bytes(MAX_MAIL_BODY))) == 512
    with pytest.raises(PayloadTooLarge, match="too long"):
        sealed(bytes(MAX_MAIL_BODY + 1))
    with pytest.raises(WireEncodeError, match="type"):
        sealed(message_type=256)
    for key in (b"short", bytes(32), b"\x01" + bytes(31), b"\x02" + bytes(31), b"\xff" * 32):
        with pytest.raises(WireEncodeError, match="key"):
            seal_mailbox(ALICE.address, BOB.address, key, 3, b"", entropy=counting())


@given(st.binary(min_size=32, max_size=32))
def test_key_conversion_agrees_with_libsodium(seed: bytes) -> None:
    key = SigningKey(seed)
    assert x25519_public_key(key.public_key) == crypto_sign_ed25519_pk_to_curve25519(key.public_key)
    assert x25519_private_key(seed) == crypto_sign_ed25519_sk_to_curve25519(seed + key.public_key)
