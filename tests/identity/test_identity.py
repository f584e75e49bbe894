"""Identities: an address, a key that may act for it, and errors that name the fix."""

from __future__ import annotations

import io

import pytest

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Address, Identity, SigningKey, ed25519
from tests.identity.forgery import ATTACKER, NOW, OPERATOR, VICTIM, proof_for


def test_an_identity_of_a_key_is_its_address() -> None:
    identity = Identity.from_seed(OPERATOR.seed)
    assert identity == Identity.generate(io.BytesIO(OPERATOR.seed).read) == Identity.from_key(OPERATOR)
    assert identity.address == Address.from_public_key(identity.public_key)
    assert identity.node_id == identity.address.node_id
    assert not identity.is_delegated
    identity.check(now=NOW)
    assert ed25519.verify(identity.public_key, b"m", identity.sign(b"m"))


def test_a_delegated_identity_acts_for_its_owner() -> None:
    identity = Identity.delegated(OPERATOR, proof_for(OPERATOR), now=NOW)
    assert (identity.address, identity.public_key) == (VICTIM, OPERATOR.public_key)
    assert identity.is_delegated
    assert identity.delegation == proof_for(OPERATOR)


def test_a_key_for_another_address_needs_a_delegation() -> None:
    with pytest.raises(ConfigurationError, match="give its delegation proof"):
        Identity(VICTIM, OPERATOR)


@pytest.mark.parametrize(
    ("key", "proof", "reason"),
    [
        (ATTACKER, proof_for(OPERATOR), "for this operational key"),
        (OPERATOR, proof_for(OPERATOR, expires_at=NOW), "expired; let the owner of .* issue a new delegation"),
        (OPERATOR, proof_for(OPERATOR, scope=2), "scope 2"),
        (OPERATOR, b"\xff", "unusable delegation proof"),
    ],
)
def test_a_delegation_that_peers_would_refuse_is_refused_here(key: SigningKey, proof: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Identity.delegated(key, proof, now=NOW)


def test_the_parts_of_an_identity_must_belong_together() -> None:
    with pytest.raises(ConfigurationError, match="not by"):
        Identity(Address.from_public_key(ATTACKER.public_key), OPERATOR, proof_for(OPERATOR))
    with pytest.raises(ConfigurationError, match="unusable"):
        Identity(VICTIM, OPERATOR, b"")


def test_a_delegation_that_ran_out_is_noticed() -> None:
    identity = Identity.delegated(OPERATOR, proof_for(OPERATOR, expires_at=NOW + 10), now=NOW)
    identity.check(now=NOW + 69)
    with pytest.raises(ConfigurationError, match="expired"):
        identity.check(now=NOW + 70)
