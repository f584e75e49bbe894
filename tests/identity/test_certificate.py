"""Certificates: what we make, whom they authenticate, and every pretence that must fail (spec 04 §17 D1 to D3)."""

from __future__ import annotations

import os

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from a2al_trio.cbor import encode as encode_cbor
from a2al_trio.errors import IdentityMismatch
from a2al_trio.identity import (
    Address,
    Identity,
    InvalidCertificate,
    SigningKey,
    certificate_renewal_time,
    decode_delegation,
    issue_chain_delegation,
    make_certificate,
    peer_address,
    verify_peer,
)
from a2al_trio.identity.certificate import CERTIFICATE_LIFETIME, DELEGATION_EXTENSION, MAX_CERTIFICATE_SIZE
from a2al_trio.identity.secp256k1 import ethereum_address, paralism_address, public_key
from tests.identity.forgery import ATTACKER, NOW, OPERATOR, OWNER, VICTIM, extension, forge, octet_string, proof_for

OWN = Address.from_public_key(OPERATOR.public_key)
CHAIN_KEY = b"\x11" * 32
HONEST = extension(VICTIM, proof_for(OPERATOR))


def made(identity: Identity) -> bytes:
    return make_certificate(identity, now=NOW, entropy=os.urandom)


def test_a_certificate_has_the_fields_of_the_protocol() -> None:
    parsed = x509.load_der_x509_certificate(made(Identity.from_key(OPERATOR)))
    assert parsed.version is x509.Version.v3
    assert 0 < parsed.serial_number < 2**127
    assert parsed.issuer == parsed.subject == x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "a2al")])
    assert parsed.not_valid_before_utc.timestamp() == NOW - 3600
    assert parsed.not_valid_after_utc.timestamp() == NOW + CERTIFICATE_LIFETIME
    assert [(entry.oid.dotted_string, entry.critical) for entry in parsed.extensions] == [
        ("2.5.29.15", True),
        ("2.5.29.37", False),
    ]
    usage = parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    key = parsed.public_key()
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(parsed.signature, parsed.tbs_certificate_bytes)


def test_a_delegated_certificate_ends_with_the_extension_of_the_protocol() -> None:
    identity = Identity.delegated(OPERATOR, proof_for(OPERATOR), now=NOW)
    last = list(x509.load_der_x509_certificate(made(identity)).extensions)[-1]
    assert (last.oid, last.critical) == (DELEGATION_EXTENSION, False)
    assert last.value.public_bytes() == HONEST
    assert HONEST.hex().startswith("0481c6a20155" + VICTIM.hex() + "0258ab")


def test_the_same_entropy_makes_the_same_certificate() -> None:
    one, other = (make_certificate(Identity.from_key(OPERATOR), now=NOW, entropy=bytes) for _ in range(2))
    assert one == other
    assert x509.load_der_x509_certificate(one).serial_number == 1


def test_renewal_is_due_long_before_the_end() -> None:
    due = certificate_renewal_time(made(Identity.from_key(OPERATOR)))
    assert NOW + 100 * 86400 < due < NOW + 200 * 86400


def test_a_plain_certificate_authenticates_the_address_of_its_key() -> None:
    chain = [made(Identity.from_key(OPERATOR)), b"further certificates are not looked at"]
    assert peer_address(chain, now=NOW) == OWN
    assert verify_peer(chain, OWN, now=NOW) == verify_peer(chain, None, now=NOW) == OWN
    with pytest.raises(IdentityMismatch, match=str(VICTIM)):
        verify_peer(chain, VICTIM, now=NOW)


@pytest.mark.parametrize("kind", ["ed25519", "ethereum", "paralism"])
def test_a_delegated_certificate_authenticates_the_owner(kind: str) -> None:
    if kind == "ed25519":
        agent, proof = VICTIM, proof_for(OPERATOR)
    else:
        agent = (ethereum_address if kind == "ethereum" else paralism_address)(public_key(CHAIN_KEY))
        proof = issue_chain_delegation(agent, CHAIN_KEY, OPERATOR.public_key, issued_at=NOW, expires_at=0).encode()
    chain = [made(Identity.delegated(OPERATOR, proof, now=NOW))]
    assert peer_address(chain, now=NOW) == agent
    assert verify_peer(chain, agent, now=NOW) == agent
    with pytest.raises(IdentityMismatch):
        verify_peer(chain, OWN, now=NOW)  # it stands for its owner alone


def test_validity_dates_and_the_criticality_of_the_extension_mean_nothing() -> None:
    long_after = NOW + 10 * CERTIFICATE_LIFETIME
    assert peer_address([made(Identity.from_key(OPERATOR))], now=long_after) == OWN
    assert peer_address([forge(OPERATOR, HONEST, critical=True)], now=long_after) == VICTIM


def test_a_delegation_has_the_grace_of_the_clock_tolerance() -> None:
    chain = [forge(OPERATOR, extension(VICTIM, proof_for(OPERATOR, expires_at=NOW)))]
    assert peer_address(chain, now=NOW + 59) == VICTIM
    with pytest.raises(InvalidCertificate, match="expired"):
        peer_address(chain, now=NOW + 60)
    with pytest.raises(InvalidCertificate, match="expired"):
        peer_address(chain, now=NOW, tolerance=0)


def bad_signature() -> bytes:
    proof = decode_delegation(proof_for(ATTACKER))
    return attrs.evolve(proof, signature=proof.signature[:32] + bytes(32)).encode()


def claim_by_own_master() -> bytes:
    """A proof that says it is the victim's, signed by a master key that is not."""
    proof = decode_delegation(proof_for(ATTACKER, owner=ATTACKER))
    forged = attrs.evolve(proof, agent=VICTIM)
    fields: dict[int, bytes | int] = {1: forged.master_key, 2: forged.operational_key, 3: forged.agent}
    fields |= {4: forged.issued_at, 5: forged.expires_at, 6: forged.scope}
    preimage = b"a2al-del\x00" + encode_cbor(fields)
    return attrs.evolve(forged, signature=ATTACKER.sign(preimage)).encode()


IMPOSTORS = {
    "stolen: the victim's own extension under another key": HONEST,
    "stolen: a chain owner's proof for its real operator": extension(
        ethereum_address(public_key(CHAIN_KEY)),
        issue_chain_delegation(
            ethereum_address(public_key(CHAIN_KEY)), CHAIN_KEY, OPERATOR.public_key, issued_at=NOW, expires_at=0
        ).encode(),
    ),
    "foreign: a valid proof of the attacker's own address": extension(VICTIM, proof_for(ATTACKER, owner=ATTACKER)),
    "foreign: signed by a master that is not the victim's": extension(VICTIM, claim_by_own_master()),
    "bad signature": extension(VICTIM, bad_signature()),
    "expired": extension(VICTIM, proof_for(ATTACKER, expires_at=NOW - 61)),
    "scope that is not for handshakes": extension(VICTIM, proof_for(ATTACKER, scope=2)),
    "malformed: no proof": octet_string(encode_cbor({1: bytes(VICTIM)})),
    "malformed: null proof": extension(VICTIM, None),
    "malformed: empty proof": extension(VICTIM, b""),
    "malformed: proof is not CBOR": extension(VICTIM, b"\xff"),
    "malformed: proof is a list": extension(VICTIM, b"\x80"),
    "malformed: proof too long": extension(VICTIM, bytes(5000)),
    "malformed: no address": octet_string(encode_cbor({2: proof_for(ATTACKER)})),
    "malformed: address of 20 bytes": extension(VICTIM[:20], proof_for(ATTACKER)),
    "malformed: address is text": octet_string(encode_cbor({1: str(VICTIM), 2: proof_for(ATTACKER)})),
    "malformed: no inner octet string": encode_cbor({1: bytes(VICTIM), 2: proof_for(ATTACKER)}),
    "malformed: not a map": octet_string(b"\x01"),
    "malformed: empty": b"",
    "malformed: only a tag": b"\x04",
    "malformed: length beyond the end": b"\x04\x7f" + encode_cbor({1: bytes(VICTIM)}),
    "malformed: indefinite length": b"\x04\x80\xa0\x00\x00",
    "malformed: length not in DER form": b"\x04\x82\x00" + HONEST[2:],
    "malformed: zero address": extension(bytes(21), proof_for(ATTACKER)),
    "unsupported version": extension(b"\xa1" + VICTIM[1:], proof_for(ATTACKER)),
}


@pytest.mark.parametrize("value", IMPOSTORS.values(), ids=IMPOSTORS.keys())
def test_an_impostor_is_nobody(value: bytes) -> None:
    chain = [forge(ATTACKER, value)]
    for expect in (None, VICTIM, Address.from_public_key(ATTACKER.public_key)):
        with pytest.raises(InvalidCertificate):
            verify_peer(chain, expect, now=NOW)
    with pytest.raises(InvalidCertificate):
        peer_address(chain, now=NOW)


def test_two_extensions_are_one_too_many() -> None:
    assert peer_address([forge(OPERATOR, HONEST)], now=NOW) == VICTIM
    with pytest.raises(InvalidCertificate, match="malformed"):
        peer_address([forge(OPERATOR, HONEST, HONEST)], now=NOW)


def test_bytes_after_the_inner_octet_string_are_ignored() -> None:
    assert peer_address([forge(OPERATOR, HONEST + b"\x00")], now=NOW) == VICTIM


def test_only_ed25519_keys_count() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    begin = x509.load_der_x509_certificate(forge(OPERATOR)).not_valid_before_utc
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin)
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(InvalidCertificate, match="not an Ed25519 key"):
        peer_address([certificate], now=NOW)


def test_chains_that_are_no_use_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidCertificate, match="no certificate"):
        peer_address([], now=NOW)
    with pytest.raises(InvalidCertificate, match="malformed"):
        peer_address([b"hello"], now=NOW)
    with pytest.raises(InvalidCertificate, match="too long"):
        peer_address([bytes(MAX_CERTIFICATE_SIZE + 1)], now=NOW)


def test_a_serial_number_that_is_not_positive_is_refused_without_a_warning() -> None:
    certificate = forge(OPERATOR, serial=0x7E)
    negative = certificate.replace(b"\x02\x01\x7e", b"\x02\x01\xfe", 1)
    assert certificate != negative
    with pytest.raises(InvalidCertificate, match="serial"):
        peer_address([negative], now=NOW)


@given(
    st.sampled_from([forge(OPERATOR, HONEST), forge(OPERATOR)]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 2**16),
)
def test_a_damaged_certificate_proves_the_true_owner_or_nothing(
    certificate: bytes, damage: list[tuple[int, int]], cut: int
) -> None:
    mutated = bytearray(certificate)
    for position, value in damage:
        mutated[position % len(mutated)] = value
    del mutated[len(certificate) if cut % 4 else cut % len(certificate) :]
    try:
        address = peer_address([bytes(mutated)], now=NOW)
    except InvalidCertificate:
        return
    key = x509.load_der_x509_certificate(bytes(mutated)).public_key()
    assert isinstance(key, ed25519.Ed25519PublicKey)
    assert address in (VICTIM, Address.from_public_key(key.public_bytes_raw()))
    if address == VICTIM:
        assert key.public_bytes_raw() in (OPERATOR.public_key, OWNER.public_key)


@given(st.binary(max_size=300))
@example(b"")
def test_any_extension_value_is_refused_or_right(value: bytes) -> None:
    with pytest.raises(InvalidCertificate):
        peer_address([forge(ATTACKER, value)], now=NOW)


@given(st.binary(max_size=500))
def test_any_bytes_as_a_certificate_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidCertificate):
        peer_address([data], now=NOW)


def test_identities_made_at_random_are_recognised() -> None:
    identity = Identity.from_key(SigningKey.generate(os.urandom))
    assert peer_address([made(identity)], now=NOW) == identity.address
