"""Addresses and NodeIDs beyond the golden cases: errors that help, and properties over any input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.identity import ZERO_ADDRESS, Address, AddressVersion, InvalidAddress, NodeId, SigningKey

HASH = bytes(range(1, 21))
node_ids = st.binary(min_size=32, max_size=32).map(NodeId)


def test_the_worked_example() -> None:
    address = Address.from_public_key(SigningKey(bytes(range(32))).public_key)
    assert address.hex() == "a056475aa75463474c0285df5dbf2bcab73da65135"
    assert str(address) == "A056475aa75463474C0285df5Dbf2bcAB73Da65135"
    assert str(address.node_id) == "29528dea9cfb6a940c61143cea7d9f538388755e47fc6869f0dd82d43dd4e85b"
    assert repr(address) == "Address(A056475aa75463474C0285df5Dbf2bcAB73Da65135)"


def test_an_address_is_its_bytes() -> None:
    address = Address(b"\xa0" + HASH)
    assert address == b"\xa0" + HASH
    assert {address: 1}[Address(memoryview(address))] == 1
    assert address.version == AddressVersion.ED25519


@pytest.mark.parametrize("size", [0, 20, 22])
def test_an_address_has_21_bytes(size: int) -> None:
    with pytest.raises(InvalidAddress, match="21 bytes"):
        Address(bytes(size))


def test_a_node_id_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NodeId(bytes(31))


def test_only_three_versions_can_prove_themselves() -> None:
    able = [version for version in range(256) if Address(bytes([version]) + HASH).authenticable]
    assert able == [0xA0, 0xA2, 0xA3]
    assert not ZERO_ADDRESS.authenticable
    assert str(ZERO_ADDRESS) == "0" * 42


@pytest.mark.parametrize(
    "text",
    [
        "bc1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzssa6ynk",
        "pr1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs59p55p",
        "BC1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZSSA6YNK",
        "bc1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs9p2gk5",
        "16L5yRNPTuciSgXGHqYwn9N6NeoKqopAu",
        "  a2" + HASH.hex() + "\n",
    ],
)
def test_every_form_of_one_paralism_address_is_the_same_address(text: str) -> None:
    assert Address.parse(text) == b"\xa2" + HASH


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "Bitcoin P2WPKH address"),
        ("A056475aa75463474C0285df5Dbf2bcAB73Da65135".swapcase(), "checksum capitals"),
        ("0x" + "CD" * 20, "checksum capitals"),
        ("b0" + "cd" * 20, "version 0xb0"),
        ("0x" + "zz" * 20, "not an Ethereum address"),
        ("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "any known form"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3", "checksum does not match"),
        ("1" + "0" * 30, "outside the Base58 alphabet"),
        ("1" * 30, "Base58 checksum"),
        ("bc1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzssa6yNk", "upper and lower case"),
        ("bc1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzssa6ynq", "checksum does not match"),
        ("bc1", "8 to 90 characters"),
        ("bc1" + "q" * 90, "8 to 90 characters"),
        ("bc1bbbbbbbbb", "outside the bech32 alphabet"),
        ("bc1é" + "q" * 10, "outside the bech32 range"),
        ("bc1q1qqqq", "checksum is missing"),
        ("hello", "any known form"),
        ("", "any known form"),
        ("x" * 1000, r"x\.\.\."),
    ],
)
def test_a_bad_text_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidAddress, match=reason) as caught:
        Address.parse(text)
    assert len(str(caught.value)) < 250


@given(st.sampled_from(range(0xA0, 0xB0)), st.binary(min_size=20, max_size=20))
def test_text_forms_round_trip(version: int, digest: bytes) -> None:
    address = Address(bytes([version]) + digest)
    assert Address.parse(str(address)) == address
    assert Address.parse(address.hex()) == address
    if version != AddressVersion.PARALISM:  # bech32 must not mix cases, but may be lowered
        assert Address.parse(str(address).lower()) == address


@given(st.text(max_size=60) | st.from_regex(r"\A(bc1|pr1|1|0x|a)[0-9a-zA-Z]{20,45}\Z"))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    for parse in (Address.parse, Address.parse_ethereum, Address.parse_paralism):
        try:
            address = parse(text)
        except InvalidAddress:
            continue
        assert Address.parse(str(address)) == address


@given(node_ids, node_ids, node_ids)
def test_distance_is_a_metric(a: NodeId, b: NodeId, c: NodeId) -> None:
    assert a.distance(a) == 0
    assert a.distance(b) == b.distance(a)
    assert a.distance(c) <= a.distance(b) + b.distance(c)
    assert a.common_prefix_len(a) == 256


@given(node_ids, st.integers(0, 255))
def test_the_common_prefix_ends_at_the_first_different_bit(node_id: NodeId, bit: int) -> None:
    other = NodeId((int.from_bytes(node_id, "big") ^ 1 << 255 - bit).to_bytes(32, "big"))
    assert node_id.common_prefix_len(other) == bit
