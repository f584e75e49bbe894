"""Golden cases of `crypto.json`: Ed25519, the chain hashes and the chain signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from a2al_trio.identity import Address, SigningKey, ed25519, secp256k1
from a2al_trio.identity.hashes import hash160, keccak256
from tests.vectors.deviations import SMALL_ORDER_KEY, Deviation
from tests.vectors.harness import Case, Document, agree

Item = Mapping[str, Any]
FIELD_PRIME = 2**255 - 19
ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
SMALL_ORDER_Y = {0, 1, FIELD_PRIME - 1, ORDER_8_Y, FIELD_PRIME - ORDER_8_Y}


class Refused(Exception):
    """A verifier said no."""


def cases(document: Document) -> Iterator[Case]:
    for section, check in CHECKS.items():
        for index, item in enumerate(document.get(section, ())):
            yield Case(section, f"{item.get('name', '')}[{index}]", partial(check, item))


def _ed25519_sign(item: Item) -> Iterable[Deviation]:
    key = SigningKey(bytes.fromhex(item["seed"]))
    message = bytes.fromhex(item["message"])
    assert key.public_key.hex() == item["public_key"]
    assert key.sign(message).hex() == item["signature"]
    assert ed25519.verify(key.public_key, message, key.sign(message))
    return ()


def _ed25519_verify(item: Item) -> Iterable[Deviation]:
    public_key, message, signature = (bytes.fromhex(item[name]) for name in ("public_key", "message", "signature"))

    def excuse() -> Deviation | None:
        y = int.from_bytes(public_key, "little") & 2**255 - 1
        return SMALL_ORDER_KEY if y % FIELD_PRIME in SMALL_ORDER_Y else None

    return agree(
        item,
        lambda: _insist(ed25519.verify(public_key, message, signature)),
        refusals=Refused,
        excuse=excuse,
    ).deviations


def _hash(item: Item) -> Iterable[Deviation]:
    data = bytes.fromhex(item["input"])
    assert keccak256(data).hex() == item["keccak256"]
    assert hash160(data).hex() == item["hash160"]
    return ()


def _secp256k1_sign(item: Item) -> Iterable[Deviation]:
    private_key, message = bytes.fromhex(item["private_key"]), item["message"].encode()
    assert secp256k1.ethereum_digest(message).hex() == item["eip191_hash"]
    assert secp256k1.sign_ethereum(private_key, message).hex() == item["eip191_signature"]
    assert secp256k1.paralism_digest(message).hex() == item["compact_hash"]
    compressed, uncompressed = (
        secp256k1.sign_paralism(private_key, message, compressed=form) for form in (True, False)
    )
    assert compressed.hex() == item["compact_signature_compressed"]
    assert uncompressed.hex() == item["compact_signature_uncompressed"]
    signed_by = [
        ("ethereum_address", secp256k1.verify_ethereum, secp256k1.sign_ethereum(private_key, message)),
        ("paralism_address", secp256k1.verify_paralism, compressed),
        ("paralism_address_uncompressed_key", secp256k1.verify_paralism, uncompressed),
    ]
    for field, check, signature in signed_by:
        assert check(Address(bytes.fromhex(item[field])), message, signature)
    return ()


def _secp256k1_verify(item: Item) -> Iterable[Deviation]:
    kinds = {"eip191": (b"\xa3", secp256k1.verify_ethereum), "compact": (b"\xa2", secp256k1.verify_paralism)}
    version, check = kinds[item["kind"]]
    address = Address(version + bytes.fromhex(item["address20"]))
    message, signature = item["message"].encode(), bytes.fromhex(item["signature"])
    return agree(item, lambda: _insist(check(address, message, signature)), refusals=Refused).deviations


def _insist(verdict: bool) -> None:
    if not verdict:
        raise Refused


CHECKS: dict[str, Callable[[Item], Iterable[Deviation]]] = {
    "ed25519_sign": _ed25519_sign,
    "ed25519_verify": _ed25519_verify,
    "hash": _hash,
    "secp256k1_sign": _secp256k1_sign,
    "secp256k1_verify": _secp256k1_verify,
}
