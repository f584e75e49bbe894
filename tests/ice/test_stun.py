from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.ice.stun import (
    Attribute,
    StunClass,
    StunMessage,
    StunMethod,
    decode_stun,
    encode_error,
    encode_stun,
    encode_xor_address,
    is_stun,
    long_term_key,
)
from a2al_trio.net.address import SocketAddress

PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
# RFC 5769 §2.1 to §2.4
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249"
    "c1b571a280280004e57a3bcf"
)
RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c"
    "662f2f3439396b39353464364f4c33346f4c39465354767936347341001"
    "4000b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)


def test_rfc_5769_request() -> None:
    message = decode_stun(REQUEST)
    assert message.message_class is StunClass.REQUEST
    assert message.method == StunMethod.BINDING
    assert message.text(Attribute.USERNAME) == "evtj:h6vY"
    assert message.text(Attribute.SOFTWARE) == "STUN test client"
    assert message.number(Attribute.PRIORITY) == 0x6E0001FF
    assert message.number(Attribute.ICE_CONTROLLED) == 0x932FF9B151263B36
    assert message.has_integrity(PASSWORD)
    assert not message.has_integrity(PASSWORD + b"x")
    assert not message.has_integrity(PASSWORD, sha256=True)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (RESPONSE, SocketAddress("192.0.2.1", 32853)),
        (RESPONSE6, SocketAddress("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc_5769_responses(data: bytes, address: SocketAddress) -> None:
    message = decode_stun(data)
    assert message.message_class is StunClass.SUCCESS
    assert message.mapped_address == address
    assert message.has_integrity(PASSWORD)


def test_rfc_5769_long_term_credentials() -> None:
    message = decode_stun(LONG_TERM)
    username = message.text(Attribute.USERNAME)
    assert username == "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    assert message.text(Attribute.NONCE) == "f//499k954d6OL34oL9FSTvy64sA"
    assert message.has_integrity(long_term_key(username, "example.org", "TheMatrIX"))


TRANSACTION = bytes(range(1, 13))
KEY = b"calleePwdcalleePwdcalleePwdABCDE"


@pytest.mark.parametrize(
    ("nominate", "expected"),
    [
        (
            False,
            "0001005c2112a4420102030405060708090a0b0c0006002163616c6c6565556672616741414141413a63616c6c657255667261674242"
            "424242000000802a00080102030405060708002400047effffff000800149c9b49b83e573cd376b69b4b4bbf93a412a6a8db"
            "80280004e47b7fff",
        ),
        (
            True,
            "000100602112a4420102030405060708090a0b0c0006002163616c6c6565556672616741414141413a63616c6c657255667261674242"
            "42424200000000250000802a00080102030405060708002400047effffff0008001461f8d1cbef6f243035ebebe098cd3869"
            "1d51c23a802800044d61bf02",
        ),
    ],
)
def test_checks_have_the_bytes_of_the_specification(nominate: bool, expected: str) -> None:
    attributes: list[tuple[int, bytes]] = [(Attribute.USERNAME, b"calleeUfragAAAAA:callerUfragBBBBB")]
    if nominate:
        attributes.append((Attribute.USE_CANDIDATE, b""))
    attributes += [
        (Attribute.ICE_CONTROLLING, bytes(range(1, 9))),
        (Attribute.PRIORITY, (2130706431).to_bytes(4, "big")),
    ]
    raw = encode_stun(StunClass.REQUEST, StunMethod.BINDING, TRANSACTION, attributes, key=KEY)
    assert raw.hex() == expected


def test_success_has_the_bytes_of_the_specification() -> None:
    mapped = encode_xor_address(SocketAddress("192.0.2.1", 32853), TRANSACTION)
    raw = encode_stun(
        StunClass.SUCCESS, StunMethod.BINDING, TRANSACTION, [(Attribute.XOR_MAPPED_ADDRESS, mapped)], key=KEY
    )
    assert raw.hex() == (
        "0101002c2112a4420102030405060708090a0b0c002000080001a147e112a643000800148fba5951d75c1f588fa66587cf7d56d9"
        "fc31914a80280004df89421b"
    )


values = st.tuples(st.sampled_from([a for a in Attribute if a.name[:3] not in ("MES", "FIN")]), st.binary(max_size=50))


@given(
    st.sampled_from(StunClass),
    st.sampled_from(StunMethod),
    st.binary(min_size=12, max_size=12),
    st.lists(values, max_size=8),
    st.one_of(st.none(), st.binary(min_size=1, max_size=40)),
    st.booleans(),
    st.booleans(),
)
def test_round_trip(
    kind: StunClass,
    method: StunMethod,
    transaction_id: bytes,
    attributes: list[tuple[Attribute, bytes]],
    key: bytes | None,
    sha256: bool,
    fingerprint: bool,
) -> None:
    raw = encode_stun(kind, method, transaction_id, attributes, key=key, sha256=sha256, fingerprint=fingerprint)
    assert is_stun(raw)
    message = decode_stun(raw)
    assert message == StunMessage(kind, method, transaction_id, tuple(attributes))
    if key is not None:
        assert message.has_integrity(key)
        assert message.has_integrity(key, sha256=sha256)
        assert not message.has_integrity(key, sha256=not sha256)
        assert not message.has_integrity(key + b"!")


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes, dressed: bool) -> None:
    if dressed:
        body = data[: len(data) // 4 * 4]
        data = b"\1\1" + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + TRANSACTION + body
    try:
        message = decode_stun(data)
    except StunDecodeError:
        return
    assert message.mapped_address is None or message.mapped_address.port >= 0
    assert message.error is None or message.error[0] >= 0
    for attribute in Attribute:
        message.number(attribute)
        message.text(attribute)
        message.address(attribute)


@given(st.integers(0, len(REQUEST) - 9), st.integers(0, 7))
def test_every_flipped_bit_before_the_fingerprint_is_noticed(index: int, bit: int) -> None:
    raw = bytearray(REQUEST)
    raw[index] ^= 1 << bit
    try:
        message = decode_stun(raw)
    except StunDecodeError:
        return
    assert not message.has_integrity(PASSWORD)


def test_what_follows_the_integrity_attribute_is_not_believed() -> None:
    raw = bytearray(encode_stun(StunClass.REQUEST, StunMethod.BINDING, TRANSACTION, key=KEY, fingerprint=False))
    raw += bytes.fromhex("00250000")
    raw[2:4] = (len(raw) - 20).to_bytes(2, "big")
    message = decode_stun(raw)
    assert message.get(Attribute.USE_CANDIDATE) is None
    assert message.has_integrity(KEY)


def test_error_codes_and_unknown_attributes() -> None:
    raw = encode_stun(
        StunClass.ERROR,
        StunMethod.BINDING,
        TRANSACTION,
        [encode_error(487, "Role Conflict"), (0x7FFF, b""), (0xFFFF, b"")],
    )
    message = decode_stun(raw)
    assert message.error == (487, "Role Conflict")
    assert message.unknown_required == (0x7FFF,)
