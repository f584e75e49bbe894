"""Delegation proofs: the owner of an address lets an Ed25519 operational key act for it (spec 01 §6).

Owners are Ed25519 master keys, which sign the proof's fields, or Ethereum and Paralism keys, which sign a text
that repeats them. A proof says only that the address authorised the operational key: whoever uses one must also
check that this key signed what is at hand and that the address is the expected one (spec 01 §6.9).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from a2al_trio.cbor import CborDecodeError, CborKey, CborValue
from a2al_trio.cbor import decode as decode_cbor
from a2al_trio.cbor import encode as encode_cbor
from a2al_trio.identity import secp256k1
from a2al_trio.identity.address import Address, AddressVersion
from a2al_trio.identity.ed25519 import PUBLIC_KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from a2al_trio.identity.errors import InvalidAddress, InvalidDelegation
from a2al_trio.identity.statement import compose_statement, parse_statement

__all__ = [
    "CLOCK_TOLERANCE",
    "MAX_PROOF_SIZE",
    "SCOPE_NETWORK",
    "DelegationProof",
    "decode_delegation",
    "import_chain_delegation",
    "issue_chain_delegation",
    "issue_delegation",
]

SCOPE_NETWORK = 1
"""The only scope there is: act for the address in the DHT and in handshakes."""
CLOCK_TOLERANCE = 60
"""Seconds that the clocks of two hosts may differ (spec 08 §3)."""
MAX_PROOF_SIZE = 4096
"""Longest encoded proof that is looked at. Proofs as issued have 171 to 430 bytes (spec 01 §6.1)."""

_PREIMAGE_PREFIX = b"a2al-del\x00"
_MAX_U8 = 2**8 - 1
_MAX_U64 = 2**64 - 1
_CHAIN_VERSIONS = (AddressVersion.ETHEREUM, AddressVersion.PARALISM)


@attrs.frozen
class DelegationProof:
    """One proof. Times are Unix seconds; `expires_at` 0 means never, `issued_at` is not held against the clock.

    `master_key` is empty for chain addresses, `message` is empty for Ed25519 ones.
    """

    agent: Address
    operational_key: bytes
    issued_at: int
    expires_at: int
    scope: int
    signature: bytes
    master_key: bytes = b""
    message: str = ""

    def encode(self) -> bytes:
        """Canonical CBOR, as it stands in records and certificates."""
        fields = _signed_fields(self) if self.master_key else _common_fields(self)
        fields[7] = self.signature
        if self.message:
            fields[8] = self.message
        return encode_cbor(fields)

    def verify(self, *, now: float, tolerance: float = CLOCK_TOLERANCE, operational_key: bytes | None = None) -> None:
        """Raise `InvalidDelegation` unless the proof holds at `now` (Unix seconds).

        `operational_key` is the key that must be the proof's one: that of the record's signature or of the
        certificate. A proof counts as expired `tolerance` seconds after its `expires_at`.
        """
        if self.agent.version == AddressVersion.ED25519:
            self._verify_master_signature()
        elif self.agent.version in _CHAIN_VERSIONS:
            self._verify_chain_signature()
        else:
            raise InvalidDelegation(f"addresses of version {self.agent.version:#x} cannot delegate")
        if self.expires_at != 0 and now >= self.expires_at + tolerance:
            raise InvalidDelegation(f"the delegation by {self.agent} has expired")
        if self.scope != SCOPE_NETWORK:
            raise InvalidDelegation(f"delegation scope {self.scope} is not supported")
        if operational_key is not None and operational_key != self.operational_key:
            raise InvalidDelegation(f"the delegation by {self.agent} is for another operational key")

    def _verify_master_signature(self) -> None:
        if not verify(self.master_key, _preimage(self), self.signature):
            raise InvalidDelegation(f"bad signature on the delegation by {self.agent}")
        if Address.from_public_key(self.master_key) != self.agent:
            raise InvalidDelegation(f"the delegation is signed by another key than that of {self.agent}")

    def _verify_chain_signature(self) -> None:
        signed = self.message.encode("utf-8")
        ethereum = self.agent.version == AddressVersion.ETHEREUM
        check = secp256k1.verify_ethereum if ethereum else secp256k1.verify_paralism
        if not check(self.agent, signed, self.signature):
            raise InvalidDelegation(f"the signature on the delegation is not by the owner of {self.agent}")
        statement = parse_statement(self.message)
        if statement.operational_key != self.operational_key:
            raise InvalidDelegation("the signed text names another operational key than the proof")
        if statement.agent != self.agent:
            raise InvalidDelegation("the signed text names another agent than the proof")
        said = (statement.scope, statement.issued_at, statement.expires_at)
        if said != (self.scope, self.issued_at, self.expires_at):
            raise InvalidDelegation("scope or times of the signed text differ from the proof")


def decode_delegation(data: bytes) -> DelegationProof:
    """Read an encoded proof and check its structure (spec 01 §6.3); `verify` does the rest.

    Raises `InvalidDelegation`. Only the canonical encoding is read; unknown keys are ignored.
    """
    if len(data) > MAX_PROOF_SIZE:
        raise InvalidDelegation(f"a delegation proof of {len(data)} bytes is too long")
    try:
        fields = decode_cbor(data)
    except CborDecodeError as error:
        raise InvalidDelegation(f"delegation proof is not canonical CBOR: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidDelegation("delegation proof is not a CBOR map")
    try:
        agent = Address(_bytes(fields, 3))
    except InvalidAddress as error:
        raise InvalidDelegation(f"bad agent address in the delegation proof: {error}") from None
    message = fields.get(8)
    if message is not None and not isinstance(message, str):
        raise InvalidDelegation("message of the delegation proof is not text")
    proof = DelegationProof(
        agent=agent,
        operational_key=_bytes(fields, 2),
        issued_at=_unsigned(fields, 4, _MAX_U64),
        expires_at=_unsigned(fields, 5, _MAX_U64),
        scope=_unsigned(fields, 6, _MAX_U8),
        signature=_bytes(fields, 7),
        master_key=_bytes(fields, 1),
        message=message or "",
    )
    _check_structure(proof)
    return proof


def issue_delegation(
    master: SigningKey, operational_key: bytes, *, issued_at: int, expires_at: int, scope: int = SCOPE_NETWORK
) -> DelegationProof:
    """Let the 32-byte Ed25519 `operational_key` act for the address of `master`.

    There is no revocation but a newer proof: prefer an `expires_at` that is renewed over 0 (never).
    """
    unsigned = DelegationProof(
        agent=Address.from_public_key(master.public_key),
        operational_key=operational_key,
        issued_at=issued_at,
        expires_at=expires_at,
        scope=scope,
        signature=bytes(SIGNATURE_SIZE),
        master_key=master.public_key,
    )
    _check_structure(unsigned)
    return attrs.evolve(unsigned, signature=master.sign(_preimage(unsigned)))


def issue_chain_delegation(
    agent: Address,
    private_key: bytes,
    operational_key: bytes,
    *,
    issued_at: int,
    expires_at: int,
    scope: int = SCOPE_NETWORK,
) -> DelegationProof:
    """Let `operational_key` act for the Ethereum or Paralism address `agent`, whose 32-byte key is at hand.

    Raises `InvalidDelegation` when the private key is not that of `agent` (for Paralism, of the compressed form).
    """
    message = compose_statement(agent, operational_key, scope=scope, issued_at=issued_at, expires_at=expires_at)
    owner_key = secp256k1.public_key(private_key)
    if agent.version == AddressVersion.ETHEREUM:
        owner, sign = secp256k1.ethereum_address(owner_key), secp256k1.sign_ethereum
    else:
        owner, sign = secp256k1.paralism_address(owner_key), secp256k1.sign_paralism
    if owner != agent:
        raise InvalidDelegation(f"the private key belongs to {owner}, not to {agent}")
    proof = DelegationProof(
        agent=agent,
        operational_key=operational_key,
        issued_at=issued_at,
        expires_at=expires_at,
        scope=scope,
        signature=sign(private_key, message.encode("utf-8")),
        message=message,
    )
    _check_structure(proof)
    return proof


def import_chain_delegation(
    agent: Address,
    signature: bytes,
    operational_key: bytes,
    *,
    now: float,
    issued_at: int,
    expires_at: int,
    scope: int = SCOPE_NETWORK,
) -> DelegationProof:
    """Make a proof of a wallet's `signature` over `compose_statement` of the same values.

    The text is composed anew, so a wallet cannot have signed anything but the exact template. Raises
    `InvalidDelegation` when the signature is not `agent`'s or the proof does not hold at `now`.
    """
    proof = DelegationProof(
        agent=agent,
        operational_key=operational_key,
        issued_at=issued_at,
        expires_at=expires_at,
        scope=scope,
        signature=signature,
        message=compose_statement(agent, operational_key, scope=scope, issued_at=issued_at, expires_at=expires_at),
    )
    _check_structure(proof)
    proof.verify(now=now, tolerance=0)
    return proof


def _common_fields(proof: DelegationProof) -> dict[int, int | bytes | str]:
    return {
        2: proof.operational_key,
        3: proof.agent,
        4: proof.issued_at,
        5: proof.expires_at,
        6: proof.scope,
    }


def _signed_fields(proof: DelegationProof) -> dict[int, int | bytes | str]:
    return {1: proof.master_key, **_common_fields(proof)}


def _preimage(proof: DelegationProof) -> bytes:
    """What an Ed25519 master key signs (spec 01 §6.2)."""
    return _PREIMAGE_PREFIX + encode_cbor(_signed_fields(proof))


def _check_structure(proof: DelegationProof) -> None:
    """Lengths and which fields go with which kind of address (spec 01 §6.3), and the ranges of the integers."""
    if len(proof.operational_key) != PUBLIC_KEY_SIZE:
        raise InvalidDelegation("the operational key of a delegation proof has 32 bytes")
    if not (0 <= proof.issued_at <= _MAX_U64 and 0 <= proof.expires_at <= _MAX_U64):
        raise InvalidDelegation("times of a delegation proof are Unix seconds in 64 bits")
    if not 0 <= proof.scope <= _MAX_U8:
        raise InvalidDelegation("the scope of a delegation proof is 0 to 255")
    if proof.agent.version == AddressVersion.ED25519:
        if len(proof.master_key) != PUBLIC_KEY_SIZE or len(proof.signature) != SIGNATURE_SIZE:
            raise InvalidDelegation("master key or signature of the delegation proof has a wrong length")
        if proof.message:
            raise InvalidDelegation("a delegation by an Ed25519 key has no message")
    elif proof.agent.version in _CHAIN_VERSIONS:
        if proof.master_key:
            raise InvalidDelegation("a delegation by a chain key has no master key")
        if len(proof.signature) != secp256k1.SIGNATURE_SIZE or not proof.message:
            raise InvalidDelegation("signature or message of the delegation proof is missing or too short")
    else:
        raise InvalidDelegation(f"addresses of version {proof.agent.version:#x} cannot delegate")


def _bytes(fields: Mapping[CborKey, CborValue], key: int) -> bytes:
    value = fields.get(key)
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise InvalidDelegation(f"field {key} of the delegation proof is not a byte string")
    return value


def _unsigned(fields: Mapping[CborKey, CborValue], key: int, maximum: int) -> int:
    value = fields.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise InvalidDelegation(f"field {key} of the delegation proof is not a number in range")
    return value
