"""The message envelope: signing, verifying, and what any bytes may do to it."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.cbor import encode
from a2al_trio.wire import (
    MAX_DATAGRAM,
    MESSAGE_OVERHEAD,
    Body,
    DhtPushAck,
    FindNode,
    FindValue,
    InvalidMessage,
    Message,
    MessageTooLarge,
    NatProbeEcho,
    Ping,
    Store,
    StoreResponse,
    UnknownMessageType,
    WireDecodeError,
    WireEncodeError,
    decode_message,
    encode_message,
    parse_message,
    seal_message,
)
from tests.wire.strategies import ALICE, BOB, NOW, bodies, record_of, transaction_ids

TX = bytes(range(64, 84))
NO_LIMIT = 100_000


def sealed(body: dict[int, Any], message_type: int, header: dict[int, Any] | None = None) -> bytes:
    """Sign whatever is given, as sent, the way a newer or a careless peer would."""
    fields: dict[int, Any] = {1: 1, 2: 0, 3: message_type, 4: TX}
    header_bytes = encode(fields | (header or {}))
    body_bytes = encode(body)
    signature = ALICE.sign(b"a2al-msg\0" + header_bytes + body_bytes)
    outer = b"\xa4\x01" + header_bytes + b"\x02" + body_bytes
    return outer + b"\x03" + encode(ALICE.public_key) + b"\x04" + encode(signature)


@given(bodies, transaction_ids)
def test_what_is_encoded_comes_back(body: Body, transaction_id: bytes) -> None:
    data = encode_message(body, transaction_id, ALICE, limit=NO_LIMIT)
    expected = Message(body.message_type, transaction_id, body, ALICE.public_key, ALICE.address)
    assert decode_message(data) == expected
    assert decode_message(memoryview(data)) == expected
    assert body.encode() == cbor2.dumps(cbor2.loads(body.encode()), canonical=True)
    assert len(data) == len(body.encode()) + MESSAGE_OVERHEAD


@given(bodies, st.data())
def test_no_changed_byte_survives(body: Body, data: st.DataObject) -> None:
    message = bytearray(encode_message(body, TX, ALICE, limit=NO_LIMIT))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidMessage):
        decode_message(bytes(message))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(WireDecodeError):
        decode_message(data)


@given(
    st.integers(0, 0x10),
    st.dictionaries(
        st.integers(0, 5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 300) | st.sampled_from([bytes(n) for n in (0, 6, 8, 21, 32)]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 10), inner, max_size=9),
            max_leaves=20,
        ),
        max_size=5,
    ),
)
def test_any_well_signed_body_is_a_value_or_our_error(message_type: int, body: dict[int, Any]) -> None:
    try:
        message = decode_message(sealed(body, message_type))
    except InvalidMessage:
        return
    message.body.encode()


def test_a_worked_example() -> None:
    """PING and PUSH ACK of spec 02 §16 and spec 08 §2.1."""
    data = encode_message(Ping(ALICE.address), TX, ALICE)
    assert len(data) == 158
    assert data[-64:].hex().startswith("d73e35b4e859d81f31841941adf507cb")
    renewed = DhtPushAck(ALICE.node_id, bytes(32), renew=True)
    assert decode_message(encode_message(renewed, TX, BOB)).body == renewed


def test_keys_of_newer_peers_are_ignored_when_signed() -> None:
    """Spec 08 §2.1: this is how newer nodes search."""
    message = decode_message(sealed({1: bytes(32), 2: 16, 3: True, 9: {"new": [1]}}, 5, {7: b"more"}))
    assert message.body == FindValue(FindNode(message.body.target).target, 16, True)  # type: ignore[attr-defined]


def test_waiting_mail_is_read_and_broken_hints_left_out() -> None:
    """Spec 08 §2.2: the hint must never cost us the answer."""
    hint = [{1: 128, 2: 4, 3: [bytes(32), b"short"]}, 7, {1: "no"}, {1: 129, 2: 1}]
    body = decode_message(sealed({1: True, 4: hint}, 8)).body
    assert isinstance(body, StoreResponse)
    assert [(mail.record_type, mail.count, mail.ids) for mail in body.waiting_mail] == [
        (128, 4, (bytes(32),)),
        (129, 1, ()),
    ]
    assert decode_message(sealed({1: False, 4: "what"}, 8)).body == StoreResponse(False)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_versions_are_tolerated(version: int) -> None:
    data = seal_message(3, FindNode(ALICE.node_id).encode(), TX, ALICE, version=version, features=65535)
    assert parse_message(data).version == version
    assert decode_message(data).body == FindNode(ALICE.node_id)


def test_unknown_types_have_their_own_error() -> None:
    with pytest.raises(UnknownMessageType):
        decode_message(sealed({}, 0x0D))


def test_ping_must_speak_of_its_signer() -> None:
    data = encode_message(Ping(BOB.address), TX, ALICE)
    parse_message(data)
    with pytest.raises(InvalidMessage, match="signer"):
        decode_message(data)


def test_verdicts_may_come_from_the_caller() -> None:
    asked: list[tuple[bytes, bytes]] = []

    def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        asked.append((public_key, message[:9]))
        return len(signature) == 64

    decode_message(encode_message(NatProbeEcho(bytes(8)), TX, ALICE), verify)
    assert asked == [(ALICE.public_key, b"a2al-msg\0")]


def test_what_does_not_fit_is_refused_before_it_is_sent() -> None:
    record = record_of(0x80, 1, NOW, 60, 300)
    body = Store(record).encode() + bytes(0)
    with pytest.raises(MessageTooLarge, match="bytes"):
        seal_message(7, body + bytes(MAX_DATAGRAM), TX, ALICE)
    with pytest.raises(WireEncodeError, match="transaction id"):
        encode_message(Ping(ALICE.address), b"short", ALICE)
    with pytest.raises(WireEncodeError, match="not known"):
        seal_message(0x0D, b"\xa0", TX, ALICE)
    with pytest.raises(WireEncodeError, match="16"):
        seal_message(1, b"\xa0", TX, ALICE, features=65536)
