"""Signed records: the three gates and the order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.cbor import decode, encode
from a2al_trio.identity import Address, Identity, NodeId, SigningKey
from a2al_trio.identity.delegation import issue_delegation
from a2al_trio.wire import (
    InvalidRecord,
    RecordExpired,
    RecordNotAuthorized,
    RecordNotYetValid,
    SignedRecord,
    TopicPayload,
    WireDecodeError,
    WireEncodeError,
    check_authority,
    check_content_key,
    check_record,
    check_record_time,
    decode_record,
    is_newer,
    seal_mailbox,
    sign_record,
    topic_key,
)
from tests.wire.strategies import ALICE, BOB, NOW, records


def delegated(issued_at: int, expires_at: int = 0) -> Identity:
    """Bob's key acting for Alice."""
    proof = issue_delegation(ALICE.key, BOB.public_key, issued_at=issued_at, expires_at=expires_at)
    return Identity(ALICE.address, BOB.key, proof.encode())


def profile(publisher: Identity = ALICE, sequence: int = 1, timestamp: int = NOW, ttl: int = 3600) -> SignedRecord:
    return sign_record(publisher, 0x02, b"\xa1\x01\x01", sequence=sequence, timestamp=timestamp, ttl=ttl)


def with_fields(record: SignedRecord, changes: Mapping[Any, Any]) -> bytes:
    fields = decode(record.encoded)
    assert isinstance(fields, dict)
    merged: dict[int | str, Any] = {**fields, **changes}
    return encode({key: value for key, value in merged.items() if value is not ...})


@given(records)
def test_what_is_signed_comes_back(record: SignedRecord) -> None:
    read = decode_record(record.encoded)
    assert attrs.astuple(read) == attrs.astuple(record)
    assert read == record
    assert hash(read) == hash(record)
    check_record(read, now=record.timestamp)


@given(records, st.data())
def test_no_changed_byte_of_the_signed_part_survives(record: SignedRecord, data: st.DataObject) -> None:
    encoded = bytearray(record.encoded)
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidRecord):
        check_record(decode_record(bytes(encoded)), now=record.timestamp)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(WireDecodeError):
        decode_record(data)


@given(
    st.dictionaries(
        st.integers(1, 9), st.none() | st.integers(-1, 2**64 - 1) | st.sampled_from([bytes(21), bytes(32), bytes(64)])
    )
)
def test_any_fields_are_a_record_or_refused(changes: dict[int | str, Any]) -> None:
    try:
        record = decode_record(with_fields(profile(), changes))
    except InvalidRecord:
        return
    assert decode_record(record.encoded) == record


@pytest.mark.parametrize("key", range(1, 9))
def test_every_field_is_asked_for(key: int) -> None:
    with pytest.raises(InvalidRecord):
        decode_record(with_fields(profile(), {key: ...}))


def test_unknown_keys_are_ignored_and_not_passed_on() -> None:
    record = profile()
    assert decode_record(with_fields(record, {0: 1, 10: [b"x"], "new": None})) == record
    assert decode_record(with_fields(record, {9: b""})).encoded == record.encoded


def test_times() -> None:
    record = profile(timestamp=NOW, ttl=100)
    check_record_time(record, now=NOW - 60)
    with pytest.raises(RecordNotYetValid):
        check_record_time(record, now=NOW - 61)
    with pytest.raises(RecordNotYetValid):
        check_record_time(record, now=NOW - 1, tolerance=0)
    check_record_time(record, now=NOW + 100.9)
    with pytest.raises(RecordExpired):
        check_record_time(record, now=NOW + 101)


def test_signature_is_over_the_first_six_fields_only() -> None:
    record = profile()
    check_record(decode_record(with_fields(record, {9: b"junk"})), now=NOW)
    with pytest.raises(InvalidRecord, match="signature"):
        check_record(decode_record(with_fields(record, {4: 2})), now=NOW)


def test_authority_of_the_key_itself() -> None:
    assert check_authority(profile(), ALICE.node_id, now=NOW) is None
    with pytest.raises(RecordNotAuthorized, match="DHT key"):
        check_authority(profile(), BOB.node_id, now=NOW)
    ignored = decode_record(with_fields(profile(), {9: b"junk"}))
    assert check_authority(ignored, ALICE.node_id, now=NOW) is None


def test_authority_of_a_delegated_key() -> None:
    assert check_authority(profile(delegated(NOW)), ALICE.node_id, now=NOW) is None
    limited = profile(delegated(NOW, NOW + 500))
    assert check_authority(limited, ALICE.node_id, now=NOW, tolerance=60) == NOW + 560
    assert check_authority(limited, ALICE.node_id, now=NOW + 559) == NOW + 560
    with pytest.raises(RecordNotAuthorized):
        check_authority(limited, ALICE.node_id, now=NOW + 560)


@pytest.mark.parametrize("delegation", [None, b"junk", b"\xa0"])
def test_nobody_publishes_for_others(delegation: bytes | None) -> None:
    """Spec 02 §9.3: a good signature by a foreign key is worth nothing."""
    mallory = Identity.from_seed(bytes(32))
    honest = profile(mallory)
    encoded = with_fields(honest, {1: bytes(ALICE.address)} | ({9: delegation} if delegation else {}))
    with pytest.raises(RecordNotAuthorized):
        check_authority(decode_record(encoded), ALICE.node_id, now=NOW)


def test_a_proof_serves_its_own_key_and_address_only() -> None:
    proof = issue_delegation(ALICE.key, BOB.public_key, issued_at=NOW, expires_at=0).encode()
    mallory = Identity.from_seed(bytes(32))
    stolen_proof = decode_record(with_fields(profile(mallory), {1: bytes(ALICE.address), 9: proof}))
    with pytest.raises(RecordNotAuthorized):
        check_authority(stolen_proof, ALICE.node_id, now=NOW)
    other_address = decode_record(with_fields(profile(BOB), {1: bytes(mallory.address), 9: proof}))
    with pytest.raises(RecordNotAuthorized, match="another address"):
        check_authority(other_address, mallory.node_id, now=NOW)


def test_a_fresh_delegation_beats_any_sequence() -> None:
    """Spec 08 §3: how a stolen operational key is revoked."""
    stolen = profile(delegated(NOW), sequence=2**64 - 1)
    renewed = profile(delegated(NOW + 1), sequence=0)
    assert is_newer(renewed, stolen)
    assert not is_newer(stolen, renewed)
    assert is_newer(profile(sequence=2), profile(sequence=1, timestamp=NOW + 9))
    assert is_newer(profile(timestamp=NOW + 1), profile())
    assert not is_newer(profile(), profile())
    assert decode_record(with_fields(profile(), {9: b"junk"})).order[0] == 0


def test_content_belongs_to_its_key() -> None:
    topic = sign_record(ALICE, 0x10, TopicPayload("ai/test").encode(), sequence=1, timestamp=NOW, ttl=60)
    check_content_key(topic, topic_key("ai/test"))
    with pytest.raises(InvalidRecord, match="topic"):
        check_content_key(topic, topic_key("ai/other"))
    payload = seal_mailbox(ALICE.address, BOB.address, BOB.public_key, 3, b"hi", entropy=lambda n: bytes(range(n)))
    mail = sign_record(ALICE, 0x80, payload, sequence=1, timestamp=NOW, ttl=60)
    check_content_key(mail, BOB.node_id)
    with pytest.raises(InvalidRecord, match="recipient"):
        check_content_key(mail, ALICE.node_id)
    check_content_key(profile(), NodeId(bytes(32)))


def test_users_mistakes_are_named() -> None:
    with pytest.raises(WireEncodeError, match="may not be published"):
        sign_record(ALICE, 0x20, b"", sequence=1, timestamp=NOW, ttl=60)
    with pytest.raises(WireEncodeError, match="ttl"):
        sign_record(ALICE, 0x02, b"", sequence=1, timestamp=NOW, ttl=0)
    with pytest.raises(WireEncodeError, match="64-bit"):
        sign_record(ALICE, 0x02, b"", sequence=-1, timestamp=NOW, ttl=60)
    with pytest.raises(WireEncodeError, match="payload"):
        sign_record(ALICE, 0x01, b"junk", sequence=1, timestamp=NOW, ttl=60)

    class Stranger:
        address = Address(ALICE.address)
        public_key = BOB.public_key
        delegation = None

        def sign(self, message: bytes) -> bytes:
            return SigningKey(bytes(32)).sign(message)

    with pytest.raises(WireEncodeError, match="delegation"):
        sign_record(Stranger(), 0x02, b"", sequence=1, timestamp=NOW, ttl=60)
