"""Golden cases of `delegation.json`: proofs of all three kinds as issued, and Ed25519 proofs to judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import cbor2

from a2al_trio.identity import (
    Address,
    DelegationProof,
    InvalidDelegation,
    SigningKey,
    compose_statement,
    decode_delegation,
    issue_chain_delegation,
    issue_delegation,
)
from tests.vectors.deviations import NOT_CANONICAL, Deviation
from tests.vectors.harness import Case, Document, agree

Item = Mapping[str, Any]
PROOF_FIELDS = {
    "agent_addr": "agent",
    "op_pub": "operational_key",
    "issued_at": "issued_at",
    "expires_at": "expires_at",
    "scope": "scope",
    "signature": "signature",
    "master_pub": "master_key",
    "message": "message",
}


def cases(document: Document) -> Iterator[Case]:
    for section, check in (("sign", _sign), ("verify", _verify)):
        for index, item in enumerate(document.get(section, ())):
            yield Case(section, f"{item['name']}[{index}]", partial(check, item))


def _sign(item: Item) -> Iterable[Deviation]:
    agent, operational = Address(bytes.fromhex(item["agent_address"])), SigningKey(bytes.fromhex(item["op_seed"]))
    assert str(agent) == item["agent_string"]
    assert operational.public_key.hex() == item["op_public_key"]
    private_key = bytes.fromhex(item["master_private_key"])
    terms = {name: item[name] for name in ("issued_at", "expires_at", "scope")}
    if item["kind"] == "ed25519":
        proof = issue_delegation(SigningKey(private_key), operational.public_key, **terms)
        preimage = bytes.fromhex(item["sign_preimage"])
        assert SigningKey(private_key).sign(preimage) == proof.signature
    else:
        proof = issue_chain_delegation(agent, private_key, operational.public_key, **terms)
        assert compose_statement(agent, operational.public_key, **terms) == proof.message == item["message"]
    assert proof.agent == agent
    assert proof.signature.hex() == item["signature"]
    assert proof.encode().hex() == item["proof_cbor"]
    assert decode_delegation(proof.encode()) == proof
    return ()


def _verify(item: Item) -> Iterable[Deviation]:
    encoded = bytes.fromhex(item["proof_cbor"])
    parsed = agree(item["parse"], lambda: decode_delegation(encoded), excuse=lambda: not_canonical(encoded))
    if parsed.value is None:
        return parsed.deviations
    proof = parsed.value
    if item["parse"].get("proof"):
        _same_fields(proof, item["parse"]["proof"])
    for expected in item["verify"]:
        seed = expected["op_seed"]
        key = SigningKey(bytes.fromhex(seed)).public_key if seed else None
        agree(
            expected,
            partial(proof.verify, now=expected["now"], tolerance=0, operational_key=key),
            refusals=InvalidDelegation,
        )
    return ()


def not_canonical(encoded: bytes) -> Deviation | None:
    """Name the deviation if `encoded` is well-formed CBOR, but not in canonical form."""
    try:
        return None if cbor2.dumps(cbor2.loads(encoded), canonical=True) == encoded else NOT_CANONICAL
    except cbor2.CBORDecodeError:
        return None


def _same_fields(proof: DelegationProof, expected: Mapping[str, Any]) -> None:
    for name, attribute in PROOF_FIELDS.items():
        value = getattr(proof, attribute)
        found = value.hex() if isinstance(value, bytes) else value
        assert found == ("" if expected[name] is None else expected[name]), name
