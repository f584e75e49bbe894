"""Golden cases of `tls_certificates.json`: agents' certificates and whom they authenticate.

The reference reads the address in the delegation extension without judging its proof, and leaves the extension
aside where the key's own address is expected. Here a certificate with that extension stands for the address in it,
proven, or for nobody (spec 04 §17 D1 to D3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from a2al_trio.errors import DecodeError, IdentityMismatch
from a2al_trio.identity import (
    Address,
    InvalidCertificate,
    InvalidDelegation,
    decode_delegation,
    peer_address,
    verify_peer,
)
from a2al_trio.identity.certificate import DELEGATION_EXTENSION
from tests.vectors.deviations import NOT_CANONICAL, UNVERIFIED_PEER_ADDRESS, WEAKNESS, Deviation
from tests.vectors.harness import Case, Document, agree

Item = Mapping[str, Any]
NOW = 1_800_000_000  # between the expiry dates of the proofs used, which are in 2023 and 2100


def cases(document: Document) -> Iterator[Case]:
    assert document["delegation_extension_oid"] == DELEGATION_EXTENSION.dotted_string
    for index, item in enumerate(document["certificates"]):
        yield Case("certificates", f"{item['name']}[{index}]", partial(_certificate, item))


def _certificate(item: Item) -> Iterable[Deviation]:
    certificate = bytes.fromhex(item["certificate_der"])
    deviations: list[Deviation] = []
    if item.get("x509_error"):
        agree({"ok": False}, lambda: peer_address([certificate], now=NOW), refusals=InvalidCertificate)
    else:
        _same_contents(x509.load_der_x509_certificate(certificate), item)
        expected = item["peer_address"]
        outcome = agree(expected, lambda: peer_address([certificate], now=NOW), excuse=lambda: _excuse(item))
        deviations += outcome.deviations
        if outcome.value is not None:
            assert (outcome.value.hex(), str(outcome.value)) == (expected["address"], expected["string"])
    for expected in item["verify_peer"]:
        deviations += _verify_peer(certificate, item, expected)
    return deviations


def _verify_peer(certificate: bytes, item: Item, expected: Item) -> Iterable[Deviation]:
    expect = None if expected["expect"] is None else Address(bytes.fromhex(expected["expect"]))
    assert expect is None or str(expect) == expected["expect_string"]

    def excuse() -> Deviation | None:
        own_address = Address.from_public_key(bytes.fromhex(item["public_key"]))
        if item["delegation_extension_value"] is not None and expect == own_address:
            return UNVERIFIED_PEER_ADDRESS  # the certificate stands for the delegated address alone
        return _excuse(item)

    outcome = agree(
        expected,
        lambda: verify_peer([certificate], expect, now=NOW),
        refusals=(DecodeError, IdentityMismatch),
        excuse=excuse,
    )
    if outcome.value is None:
        return outcome.deviations
    if expect is None and item["delegation_extension_value"] is not None:
        assert outcome.value.hex() == item["peer_address"]["address"] == _proven_address(item)
        return (UNVERIFIED_PEER_ADDRESS,)  # the key's own address, which the reference names, is refused
    assert outcome.value.hex() == expected["address"]
    return ()


def _excuse(item: Item) -> Deviation | None:
    """Why the extension of this certificate may be refused; nothing excuses refusing one that holds."""
    if item["name"].startswith("weakness_"):
        return WEAKNESS
    if item["delegation_extension_value"] is None:
        return None
    content = _extension_content(item)
    if content is not None and cbor2.dumps(content, canonical=True) not in bytes.fromhex(
        item["delegation_extension_value"]
    ):
        return NOT_CANONICAL
    return UNVERIFIED_PEER_ADDRESS if _proven_address(item) is None else None


def _extension_content(item: Item) -> dict[Any, Any] | None:
    """The map in the extension, read leniently by another decoder than our own."""
    value = bytes.fromhex(item["delegation_extension_value"])
    if len(value) < 2 or value[0] != 4:
        return None
    begin = 2 if value[1] < 0x80 else 2 + value[1] - 0x80
    try:
        content = cbor2.loads(value[begin:])
    except cbor2.CBORDecodeError:
        return None
    return content if isinstance(content, dict) else None


def _proven_address(item: Item) -> str | None:
    """The address claimed by the extension if its proof holds, in hex."""
    content = _extension_content(item)
    if content is None:
        return None
    claimed, encoded = content.get(1), content.get(2)
    if not isinstance(claimed, bytes) or not isinstance(encoded, bytes):
        return None
    try:
        proof = decode_delegation(encoded)
        proof.verify(now=NOW, operational_key=bytes.fromhex(item["public_key"]))
    except InvalidDelegation:
        return None
    return claimed.hex() if proof.agent == claimed else None


def _same_contents(parsed: x509.Certificate, item: Item) -> None:
    assert parsed.tbs_certificate_bytes.hex() == item["tbs_der"]
    assert parsed.serial_number == int(item["serial"], 16)
    assert parsed.not_valid_before_utc.timestamp() == item["not_before"]
    assert parsed.not_valid_after_utc.timestamp() == item["not_after"]
    key = parsed.public_key()
    if isinstance(key, Ed25519PublicKey):
        assert key.public_bytes_raw().hex() == item["public_key"]
        try:
            key.verify(parsed.signature, parsed.tbs_certificate_bytes)
            signed = True
        except InvalidSignature:
            signed = False
        assert signed == item["self_signature_ok"]
