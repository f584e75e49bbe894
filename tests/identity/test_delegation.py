"""Delegation proofs: the worked examples, issue and import, and properties over any input."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.cbor import encode as encode_cbor
from a2al_trio.identity import (
    Address,
    DelegationProof,
    InvalidDelegation,
    SigningKey,
    compose_statement,
    decode_delegation,
    import_chain_delegation,
    issue_chain_delegation,
    issue_delegation,
    secp256k1,
)
from a2al_trio.identity.delegation import MAX_PROOF_SIZE
from a2al_trio.identity.statement import parse_statement

MASTER = SigningKey(bytes(range(32)))
OPERATIONAL = SigningKey(bytes(range(32, 64))).public_key
OWNER = b"\x11" * 32
ETHEREUM = secp256k1.ethereum_address(secp256k1.public_key(OWNER))
PARALISM = secp256k1.paralism_address(secp256k1.public_key(OWNER))
ISSUED = 1_700_000_000
EXPIRES = 1_731_536_000


def ed25519_proof(expires_at: int = EXPIRES) -> DelegationProof:
    return issue_delegation(MASTER, OPERATIONAL, issued_at=ISSUED, expires_at=expires_at)


def chain_proof(agent: Address, expires_at: int = EXPIRES) -> DelegationProof:
    return issue_chain_delegation(agent, OWNER, OPERATIONAL, issued_at=ISSUED, expires_at=expires_at)


PROOFS = {"ed25519": ed25519_proof(), "ethereum": chain_proof(ETHEREUM), "paralism": chain_proof(PARALISM)}
every_kind = pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())


def test_the_worked_examples() -> None:
    assert ed25519_proof(0).signature.hex() == (
        "7721653b7d767705a2e0bd141ab5e86de7e471af411ebe9a648bd229ee7a3eaa"
        "77216adf134d4813906ca95b9ed1c4edd5a6517a99f33b0ec3cf30c44e16350a"
    )
    assert str(ETHEREUM) == "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    assert chain_proof(ETHEREUM).signature.hex() == (
        "71a0365cc9192e9afe3925ca65be8456366a2efd3f15f43656c9da45f7760bc8"
        "1d182f4cbfa9818c7d2f948e6da4987600714b258b64dd43c416880ad172db6b1b"
    )
    assert str(PARALISM) == "bc1qr78y59zz80dm3cwuk388r097pupwdguauuex7k4"
    assert chain_proof(PARALISM, 0).signature.hex() == (
        "1fcd9842017127df8ec5ecd1f8da85508a7ef46e75ac96361123a62d7465b55bff"
        "7cd4aac271b49f82e2cf954ff7941749bac29ae9e2371da4482174029088975e"
    )
    sizes = [len(proof.encode()) for proof in (ed25519_proof(0), chain_proof(ETHEREUM), chain_proof(PARALISM, 0))]
    assert sizes == [171, 422, 410]


@every_kind
def test_a_proof_holds_until_it_expires(proof: DelegationProof) -> None:
    decoded = decode_delegation(proof.encode())
    assert decoded == proof
    decoded.verify(now=1, tolerance=0, operational_key=OPERATIONAL)  # before it was issued
    decoded.verify(now=EXPIRES - 1, tolerance=0)
    decoded.verify(now=EXPIRES + 59)
    for now, tolerance in ((EXPIRES, 0), (EXPIRES + 60, 60)):
        with pytest.raises(InvalidDelegation, match="expired"):
            decoded.verify(now=now, tolerance=tolerance)


@every_kind
def test_a_proof_is_for_one_operational_key(proof: DelegationProof) -> None:
    with pytest.raises(InvalidDelegation, match="another operational key"):
        proof.verify(now=ISSUED, operational_key=MASTER.public_key)


@every_kind
def test_no_field_of_a_proof_can_be_changed(proof: DelegationProof) -> None:
    changed = [
        attrs.evolve(proof, agent=Address(proof.agent[:20] + bytes([proof.agent[20] ^ 1]))),
        attrs.evolve(proof, operational_key=bytes(32)),
        attrs.evolve(proof, issued_at=proof.issued_at + 1),
        attrs.evolve(proof, expires_at=0),
        attrs.evolve(proof, scope=2),
        attrs.evolve(proof, signature=bytes([*proof.signature[:40], proof.signature[40] ^ 1, *proof.signature[41:]])),
    ]
    if proof.message:
        changed.append(attrs.evolve(proof, message=proof.message + " "))
    else:
        changed.append(attrs.evolve(proof, master_key=OPERATIONAL))
    for forged in changed:
        with pytest.raises(InvalidDelegation):
            forged.verify(now=ISSUED)


def test_a_proof_signed_for_another_scope_is_refused() -> None:
    with pytest.raises(InvalidDelegation, match="scope 2"):
        issue_delegation(MASTER, OPERATIONAL, issued_at=1, expires_at=0, scope=2).verify(now=1)


def test_a_proof_made_by_hand_with_wrong_lengths_is_refused_not_crashed_on() -> None:
    proof = DelegationProof(Address.from_public_key(MASTER.public_key), b"", 0, 0, 1, b"", b"short")
    with pytest.raises(InvalidDelegation):
        proof.verify(now=0)


def test_a_wallet_signature_makes_a_proof_when_it_is_the_owners() -> None:
    terms = {"issued_at": ISSUED, "expires_at": EXPIRES}
    text = compose_statement(ETHEREUM, OPERATIONAL, scope=1, **terms)
    signature = secp256k1.sign_ethereum(OWNER, text.encode())
    imported = import_chain_delegation(ETHEREUM, signature, OPERATIONAL, now=ISSUED, **terms)
    assert imported == chain_proof(ETHEREUM)
    with pytest.raises(InvalidDelegation, match="not by the owner"):
        import_chain_delegation(ETHEREUM, signature, MASTER.public_key, now=ISSUED, **terms)
    with pytest.raises(InvalidDelegation, match="missing or too short"):
        import_chain_delegation(ETHEREUM, b"", OPERATIONAL, now=ISSUED, **terms)
    with pytest.raises(InvalidDelegation, match="expired"):
        import_chain_delegation(ETHEREUM, signature, OPERATIONAL, now=EXPIRES, **terms)


def test_only_the_owner_can_issue() -> None:
    with pytest.raises(InvalidDelegation, match="belongs to"):
        issue_chain_delegation(ETHEREUM, b"\x12" * 32, OPERATIONAL, issued_at=0, expires_at=0)
    with pytest.raises(InvalidDelegation, match="not the address of an Ethereum or Paralism key"):
        issue_chain_delegation(
            Address.from_public_key(MASTER.public_key), OWNER, OPERATIONAL, issued_at=0, expires_at=0
        )
    with pytest.raises(InvalidDelegation, match="32 bytes"):
        issue_delegation(MASTER, b"", issued_at=0, expires_at=0)
    with pytest.raises(InvalidDelegation, match="64 bits"):
        issue_delegation(MASTER, OPERATIONAL, issued_at=-1, expires_at=0)
    with pytest.raises(InvalidDelegation, match="scope"):
        issue_delegation(MASTER, OPERATIONAL, issued_at=0, expires_at=0, scope=256)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({3: bytes(20)}, "21 bytes"),
        ({3: b"\xa1" + bytes(20)}, "cannot delegate"),
        ({2: "text"}, "not a byte string"),
        ({4: True}, "not a number"),
        ({5: -1}, "not a number"),
        ({6: 256}, "not a number"),
        ({8: 7}, "not text"),
        ({8: "present"}, "has no message"),
    ],
)
def test_a_malformed_field_is_refused_with_the_reason(changes: dict[int, int | bytes | str], reason: str) -> None:
    proof = ed25519_proof()
    fields: dict[int, int | bytes | str] = {
        1: proof.master_key,
        2: proof.operational_key,
        3: proof.agent,
        4: proof.issued_at,
        5: proof.expires_at,
        6: proof.scope,
        7: proof.signature,
    }
    assert decode_delegation(encode_cbor(fields)) == proof
    assert decode_delegation(encode_cbor(fields | {9: "unknown"})) == proof
    with pytest.raises(InvalidDelegation, match=reason):
        decode_delegation(encode_cbor(fields | changes))


@pytest.mark.parametrize("data", [b"", b"\xf6", b"\x80", b"\xa0", bytes(MAX_PROOF_SIZE + 1)])
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDelegation):
        decode_delegation(data)


@pytest.mark.parametrize("line", ["scope:", "scope:+1", "scope:256", "issued_at:" + "9" * 4000, "expires_at:1_0"])
def test_a_bad_number_in_a_signed_text_is_refused(line: str) -> None:
    text = compose_statement(ETHEREUM, OPERATIONAL, scope=1, issued_at=1, expires_at=2)
    with pytest.raises(InvalidDelegation, match="not a number in range"):
        parse_statement(text + line + "\n")


def test_leading_zeros_and_surrounding_text_are_allowed() -> None:
    text = "hello\n: \n" + compose_statement(ETHEREUM, OPERATIONAL, scope=1, issued_at=1, expires_at=2)
    statement = parse_statement(text + "scope:" + "0" * 100 + "1")
    assert (statement.agent, statement.operational_key) == (ETHEREUM, OPERATIONAL)
    assert (statement.scope, statement.issued_at, statement.expires_at) == (1, 1, 2)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_proof_or_invalid(data: bytes) -> None:
    with contextlib.suppress(InvalidDelegation):
        decode_delegation(data)


@given(st.sampled_from(list(PROOFS.values())), st.integers(0, 500), st.integers(1, 255))
def test_a_damaged_proof_is_invalid(proof: DelegationProof, position: int, flip: int) -> None:
    encoded = bytearray(proof.encode())
    encoded[position % len(encoded)] ^= flip
    try:
        damaged = decode_delegation(bytes(encoded))
        damaged.verify(now=ISSUED)
    except InvalidDelegation:
        return
    # Recoverable signatures have a second header for the same thing: v as 0/1 or 27/28 (spec 01 §10.6).
    assert attrs.evolve(damaged, signature=proof.signature) == proof


lines = st.lists(st.sampled_from(["op_key", "agent", "scope", "issued_at", "expires_at", "x"]), max_size=8)


@given(lines, st.data())
def test_any_text_reads_or_is_invalid(names: list[str], data: st.DataObject) -> None:
    text = "\n".join(f"{name}:{data.draw(st.text(max_size=8) | st.just('1'))}" for name in names)
    with contextlib.suppress(InvalidDelegation):
        parse_statement(text)
