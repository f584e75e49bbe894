"""Golden cases of `addresses.json`: keys, addresses, their texts, NodeIDs and distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from a2al_trio.identity import Address, NodeId, SigningKey
from a2al_trio.identity.secp256k1 import ethereum_address, paralism_address, public_key
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree

Item = Mapping[str, Any]
PARSERS: dict[str, Callable[[str], Address]] = {
    "parse_address": Address.parse,
    "parse_ethereum": Address.parse_ethereum,
    "parse_paralism": Address.parse_paralism,
}


def cases(document: Document) -> Iterator[Case]:
    for section, check in CHECKS.items():
        for index, item in enumerate(document.get(section, ())):
            yield Case(section, f"{item.get('name', '')}[{index}]", partial(check, item))


def _ed25519(item: Item) -> Iterable[Deviation]:
    key = SigningKey(bytes.fromhex(item["seed"]))
    assert key.private_key.hex() == item["private_key"]
    assert key.public_key.hex() == item["public_key"]
    _same_address(Address.from_public_key(key.public_key), item, "")
    return ()


def _secp256k1(item: Item) -> Iterable[Deviation]:
    private_key = bytes.fromhex(item["private_key"])
    compressed, uncompressed = public_key(private_key), public_key(private_key, compressed=False)
    assert compressed.hex() == item["public_key_compressed"]
    assert uncompressed.hex() == item["public_key_uncompressed"]
    _same_address(ethereum_address(compressed), item, "ethereum_")
    assert ethereum_address(uncompressed) == ethereum_address(compressed)
    _same_address(paralism_address(compressed), item, "paralism_")
    assert paralism_address(uncompressed).hex() == item["paralism_address_uncompressed_key"]
    return ()


def _format(item: Item) -> Iterable[Deviation]:
    address = Address(bytes.fromhex(item["address"]))
    assert str(address) == item["string"]
    assert address.node_id.hex() == item["node_id"]
    accepted = agree({"ok": item["parses_back"]}, lambda: Address.parse(str(address)))
    assert not accepted.accepted or accepted.value == address
    return accepted.deviations


def _parse(item: Item) -> Iterable[Deviation]:
    deviations: list[Deviation] = []
    for name, parse in PARSERS.items():
        expected = item[name]
        outcome = agree(expected, partial(parse, item["input"]))
        deviations += outcome.deviations
        if outcome.value is not None:
            assert outcome.value.hex() == expected["address"]
            assert str(outcome.value) == expected["string"]
    return deviations


def _distance(item: Item) -> Iterable[Deviation]:
    a, b = NodeId(bytes.fromhex(item["a"])), NodeId(bytes.fromhex(item["b"]))
    assert a.distance(b) == b.distance(a) == int(item["distance"], 16)
    assert a.common_prefix_len(b) == item["common_prefix_len"]
    # Buckets are numbered by common prefix; equal ids belong in none (spec 03 §3).
    assert (a.common_prefix_len(b) if a != b else -1) == item["bucket_index"]
    return ()


def _xor_order(item: Item) -> Iterable[Deviation]:
    target = NodeId(bytes.fromhex(item["target"]))
    ordered = sorted((NodeId(bytes.fromhex(text)) for text in item["node_ids"]), key=target.distance)
    assert [node_id.hex() for node_id in ordered] == item["closest_first"]
    return ()


def _same_address(address: Address, item: Item, prefix: str) -> None:
    assert address.hex() == item[f"{prefix}address"]
    assert str(address) == item[f"{prefix}string" if prefix else "address_string"]
    assert address.node_id.hex() == item[f"{prefix}node_id"]


CHECKS: dict[str, Callable[[Item], Iterable[Deviation]]] = {
    "ed25519": _ed25519,
    "secp256k1": _secp256k1,
    "format": _format,
    "parse": _parse,
    "distance": _distance,
    "xor_order": _xor_order,
}
