"""Signed records: what the DHT stores, and the rules by which one is believed (spec 02 §8 and §9, spec 08 §3).

A record passes three gates, in this order: `decode_record` (structure), `check_record` (signature, payload, time) and
`check_authority` (the signer may publish for the address under this key). Only then may `is_newer` compare it.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import attrs

from a2al_trio.cbor import CborDecodeError, CborMap, CborValue, decode, encode, head
from a2al_trio.identity import Address, InvalidDelegation, NodeId, ed25519
from a2al_trio.identity.delegation import DelegationProof, decode_delegation
from a2al_trio.wire.errors import (
    InvalidPayload,
    InvalidRecord,
    RecordExpired,
    RecordNotAuthorized,
    RecordNotYetValid,
    WireEncodeError,
)
from a2al_trio.wire.payloads import check_payload

__all__ = [
    "CLOCK_TOLERANCE",
    "Publisher",
    "RecordCategory",
    "RecordType",
    "SignedRecord",
    "Verify",
    "check_authority",
    "check_record",
    "check_record_time",
    "decode_record",
    "is_newer",
    "record_category",
    "record_from_map",
    "sign_record",
    "verify_record_signature",
]

CLOCK_TOLERANCE: Final = 60
"""Seconds a record or delegation may be ahead of our clock (spec 08 §3)."""

_SIGNATURE_PREFIX = b"a2al-rec\0"
_SIGNATURE_FIELDS_SIZE = 35 + 67  # keys 7 and 8 with their heads
_REQUIRED_KEYS = range(1, 9)
_MAX_UINT32 = 2**32 - 1
_MAX_UINT64 = 2**64 - 1

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""`verify(public_key, message, signature)`; callers may pass one that remembers verdicts."""


class Publisher(Protocol):
    """What signs records: an `Identity`."""

    @property
    def address(self) -> Address:
        """The address published for."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 key that signs, 32 bytes."""

    @property
    def delegation(self) -> bytes | None:
        """The encoded proof that the key acts for the address; None if the address is the key's own."""

    def sign(self, message: bytes, /) -> bytes:
        """64-byte Ed25519 signature."""


class RecordType(enum.IntEnum):
    """The record types with an assigned meaning (spec 02 §8.1)."""

    ENDPOINT = 0x01
    PROFILE = 0x02
    TOPIC = 0x10
    MAILBOX = 0x80


class RecordCategory(enum.Enum):
    """How records of a type share a DHT key (spec 02 §8.1 and §9.2)."""

    UNKNOWN = 0
    SOVEREIGN = 1
    TOPIC = 2
    MAILBOX = 3


def record_category(record_type: int) -> RecordCategory:
    """The category of a record type, 0 to 255."""
    if 0x01 <= record_type <= 0x0F:
        return RecordCategory.SOVEREIGN
    if 0x10 <= record_type <= 0x1F:
        return RecordCategory.TOPIC
    if 0x80 <= record_type <= 0x8F:
        return RecordCategory.MAILBOX
    return RecordCategory.UNKNOWN


@attrs.frozen(eq=False)
class SignedRecord:
    """A record as received or signed here; equal to another if their bytes are.

    `timestamp` and `ttl` are Unix seconds. `public_key` is the Ed25519 key that signed; it and `delegation` (an encoded
    `DelegationProof`, or None) stand outside the signature. `encoded` is the canonical form to send and to store.
    """

    address: Address
    record_type: int
    payload: bytes
    sequence: int
    timestamp: int
    ttl: int
    public_key: bytes
    signature: bytes
    delegation: bytes | None
    encoded: bytes = attrs.field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedRecord) and self.encoded == other.encoded

    def __hash__(self) -> int:
        return hash(self.encoded)

    @property
    def expires_at(self) -> int:
        """The last Unix second at which the record is valid."""
        return self.timestamp + self.ttl

    @property
    def category(self) -> RecordCategory:
        """How the record shares its DHT key with others."""
        return record_category(self.record_type)

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: a prefix and the map of keys 1 to 6."""
        tail = _SIGNATURE_FIELDS_SIZE
        if self.delegation is not None:
            tail += 1 + len(head(0x40, len(self.delegation))) + len(self.delegation)
        return _SIGNATURE_PREFIX + b"\xa6" + self.encoded[1:-tail]

    @functools.cached_property
    def payload_id(self) -> bytes:
        """SHA-256 of the payload: how mail and pushes are named (spec 08 §2.1, §4)."""
        return hashlib.sha256(self.payload).digest()

    @functools.cached_property
    def proof(self) -> DelegationProof | None:
        """The delegation proof, unverified; None if there is none or it does not parse."""
        if self.delegation is None:
            return None
        try:
            return decode_delegation(self.delegation)
        except InvalidDelegation:
            return None

    @functools.cached_property
    def order(self) -> tuple[int, int, int]:
        """Delegation time, sequence and timestamp: the greater is the newer (spec 08 §3)."""
        proof = self.proof
        return (proof.issued_at if proof else 0, self.sequence, self.timestamp)


def decode_record(data: bytes) -> SignedRecord:
    """Read a record that stands alone. Raises InvalidRecord; checks the structure only."""
    try:
        fields = decode(data)
    except CborDecodeError as error:
        raise InvalidRecord(f"not a record: {error}") from error
    return record_from_map(fields, data)


def record_from_map(fields: CborValue, data: bytes) -> SignedRecord:
    """The record in a decoded map, whose span lies in `data`. Raises InvalidRecord; checks the structure only."""
    if not isinstance(fields, CborMap):
        raise InvalidRecord("a record is a map")
    address, record_type, payload, sequence = fields.get(1), fields.get(2), fields.get(3, 0), fields.get(4)
    timestamp, ttl, public_key, signature = fields.get(5), fields.get(6), fields.get(7), fields.get(8)
    delegation = fields.get(9, b"")
    if not isinstance(address, bytes) or len(address) != 21:
        raise InvalidRecord("record address is not 21 bytes")
    if not isinstance(public_key, bytes) or len(public_key) != 32:
        raise InvalidRecord("record public key is not 32 bytes")
    if not isinstance(signature, bytes) or len(signature) != 64:
        raise InvalidRecord("record signature is not 64 bytes")
    if type(record_type) is not int or not 0 <= record_type <= 0xFF:
        raise InvalidRecord("record type is not an 8-bit number")
    if payload is not None and not isinstance(payload, bytes):
        raise InvalidRecord("record payload is not a byte string")
    if type(sequence) is not int or type(timestamp) is not int or sequence < 0 or timestamp < 0:
        raise InvalidRecord("record sequence or timestamp is not a 64-bit number")
    if type(ttl) is not int or not 0 <= ttl <= _MAX_UINT32:
        raise InvalidRecord("record ttl is not a 32-bit number")
    if not isinstance(delegation, bytes):
        raise InvalidRecord("record delegation is not a byte string")
    if len(fields) == (9 if delegation else 8):  # then keys 1 to 8 or 9 are all there is
        encoded = data[fields.start : fields.end]
    else:
        pairs: dict[int | str, CborValue] = {key: fields[key] for key in _REQUIRED_KEYS}
        encoded = encode(pairs | {9: delegation} if delegation else pairs)
    return SignedRecord(
        Address(address),
        record_type,
        payload or b"",
        sequence,
        timestamp,
        ttl,
        public_key,
        signature,
        delegation or None,
        encoded,
    )


def sign_record(
    publisher: Publisher,
    record_type: int,
    payload: bytes | None,
    *,
    sequence: int,
    timestamp: int,
    ttl: int,
) -> SignedRecord:
    """Sign a record for the publisher's address; a delegated publisher's proof travels in it.

    `timestamp` is Unix seconds (older peers refuse any from the future: subtract a few), `ttl` seconds. Raises
    WireEncodeError for a type that publishers may not use, a payload its type forbids, a zero ttl, or numbers out of
    range.
    """
    if record_category(record_type) is RecordCategory.UNKNOWN:
        raise WireEncodeError(f"records of type {record_type:#04x} may not be published (spec 02 §8.1)")
    if not 0 < ttl <= _MAX_UINT32:
        raise WireEncodeError(f"a record ttl is 1 to {_MAX_UINT32} seconds, not {ttl}")
    if not 0 <= sequence <= _MAX_UINT64 or not 0 <= timestamp <= _MAX_UINT64:
        raise WireEncodeError("a record's sequence and timestamp are unsigned 64-bit numbers")
    address, public_key, delegation = publisher.address, publisher.public_key, publisher.delegation
    try:
        check_payload(record_type, payload or b"")
    except InvalidPayload as error:
        raise WireEncodeError(f"the payload is not one for records of type {record_type:#04x}: {error}") from error
    if delegation is None and address != Address.from_public_key(public_key):
        raise WireEncodeError(f"the key is not the one of {address} and there is no delegation proof for it")
    signed = encode({1: address, 2: record_type, 3: payload, 4: sequence, 5: timestamp, 6: ttl})
    signature = publisher.sign(_SIGNATURE_PREFIX + signed)
    encoded = (b"\xa9" if delegation else b"\xa8") + signed[1:]
    encoded += b"\x07\x58\x20" + public_key + b"\x08\x58\x40" + signature
    if delegation:
        encoded += b"\x09" + head(0x40, len(delegation)) + delegation
    return SignedRecord(
        address, record_type, payload or b"", sequence, timestamp, ttl, public_key, signature, delegation, encoded
    )


def verify_record_signature(record: SignedRecord, *, verify: Verify = ed25519.verify) -> None:
    """Raises InvalidRecord if the signature does not hold; says nothing about whose key it is."""
    if not verify(record.public_key, record.signed_bytes, record.signature):
        raise InvalidRecord("the record's signature does not hold")


def check_record(
    record: SignedRecord, *, now: float, tolerance: int = CLOCK_TOLERANCE, verify: Verify = ed25519.verify
) -> None:
    """Check time, signature and payload, the cheap first (spec 02 §9.1). `now` is Unix seconds.

    Raises InvalidRecord, or one of its subclasses that says more.
    """
    check_record_time(record, now=now, tolerance=tolerance)
    verify_record_signature(record, verify=verify)
    check_payload(record.record_type, record.payload)


def check_record_time(record: SignedRecord, *, now: float, tolerance: int = CLOCK_TOLERANCE) -> None:
    """Raises RecordNotYetValid or RecordExpired; `now` is Unix seconds. Expiry knows no tolerance (spec 08 §3)."""
    second = int(now)
    if record.timestamp > second + tolerance:
        raise RecordNotYetValid(f"the record is dated {record.timestamp - second} s in the future")
    if record.timestamp + record.ttl < second:
        raise RecordExpired(f"the record expired {second - record.expires_at} s ago")


def check_authority(record: SignedRecord, key: NodeId, *, now: float, tolerance: int = CLOCK_TOLERANCE) -> int | None:
    """Check that the signer may publish for the record's address under a DHT key (spec 02 §9.3).

    Returns the Unix second from which on that no longer holds because the delegation is over, None for never; the
    verdict may be kept until then. Raises RecordNotAuthorized.
    """
    if record.category is RecordCategory.SOVEREIGN and key != record.address.node_id:
        raise RecordNotAuthorized("the DHT key is not the one of the record's address")
    if Address.from_public_key(record.public_key) == record.address:
        return None
    if record.delegation is None:
        raise RecordNotAuthorized("signed by another key, without a delegation proof")
    try:
        proof = decode_delegation(record.delegation)
        if proof.agent != record.address:
            raise RecordNotAuthorized("the delegation proof is for another address")
        proof.verify(now=int(now), tolerance=tolerance, operational_key=record.public_key)
    except InvalidDelegation as error:
        raise RecordNotAuthorized(str(error)) from error
    return proof.expires_at + tolerance if proof.expires_at else None


def is_newer(record: SignedRecord, than: SignedRecord) -> bool:
    """Whether `record` replaces `than` in the same slot; compare only records whose authority was checked."""
    return record.order > than.order
