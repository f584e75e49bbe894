"""Mail to an agent, encrypted to its key and left in the DHT (spec 02 §11).

The cipher has no sender key: opening a note says nothing about who wrote it. Believe `sender` only of a record that has
passed `check_record` and `check_authority`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from a2al_trio.cbor import CborDecodeError, CborMap, decode, encode
from a2al_trio.identity import Address, SigningKey
from a2al_trio.wire.errors import InvalidPayload, InvalidRecord, PayloadTooLarge, WireEncodeError
from a2al_trio.wire.payloads import MAX_MAILBOX_PAYLOAD
from a2al_trio.wire.records import RecordCategory, SignedRecord

__all__ = [
    "MAX_MAIL_BODY",
    "MailboxMessage",
    "MailboxType",
    "mailbox_recipient",
    "open_mailbox",
    "seal_mailbox",
    "x25519_private_key",
    "x25519_public_key",
]

MAX_MAIL_BODY: Final = 389
"""Longest body for message types below 24."""

_SALT = b"a2al-mailbox\0"
_NONCE_SIZE = 12
_FIELD_PRIME = 2**255 - 19
_CURVE_D = -121665 * pow(121666, -1, _FIELD_PRIME) % _FIELD_PRIME


class MailboxType(enum.IntEnum):
    """Message types with an assigned meaning; all others are handed on as they are."""

    CONNECT_REQUEST = 0x01
    CANDIDATES = 0x02
    TEXT = 0x03


@attrs.frozen
class MailboxMessage:
    """An opened note. `sender_key` is the Ed25519 key that signed the record, `sequence` the record's."""

    sender: Address
    message_type: int
    body: bytes
    sequence: int
    sender_key: bytes


def seal_mailbox(
    sender: Address,
    recipient: Address,
    recipient_key: bytes,
    message_type: int,
    body: bytes | None,
    *,
    entropy: Callable[[int], bytes],
) -> bytes:
    """Encrypt a note; the result is the payload of a mailbox record to be signed by the sender.

    `recipient_key` is the Ed25519 key of the recipient's authorised endpoint record. A body of None is written as null
    and read as empty. Raises PayloadTooLarge over 512 bytes (a body over 389), WireEncodeError if the key is no usable
    public key.
    """
    if not 0 <= message_type <= 0xFF:
        raise WireEncodeError(f"a mail message type is 0 to 255, not {message_type}")
    ephemeral = X25519PrivateKey.from_private_bytes(entropy(32))
    nonce = entropy(_NONCE_SIZE)
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(x25519_public_key(recipient_key)))
    except ValueError:
        raise WireEncodeError("the recipient's key is not a usable Ed25519 public key") from None
    plaintext = encode({1: message_type, 2: body})
    ciphertext = AESGCM(_aead_key(shared, sender, recipient)).encrypt(nonce, plaintext, None)
    public = ephemeral.public_key().public_bytes_raw()
    payload = encode({1: recipient, 2: sender, 3: public, 4: ciphertext, 5: nonce})
    if len(payload) > MAX_MAILBOX_PAYLOAD:
        excess = len(payload) - MAX_MAILBOX_PAYLOAD
        raise PayloadTooLarge(f"the mail body is {excess} bytes too long for one record")
    return payload


def open_mailbox(record: SignedRecord, recipient: Address, key: SigningKey) -> MailboxMessage:
    """Decrypt a mailbox record for `recipient`, whose operational key is `key`.

    Raises InvalidRecord if it is no mail for the recipient or does not decrypt. Authenticates nobody: see above.
    """
    fields = _payload_fields(record)
    recipient_field, sender, public, ciphertext, nonce = (fields.get(number) for number in range(1, 6))
    if recipient_field != recipient:
        raise InvalidPayload("mail for another recipient")
    if sender != record.address:
        raise InvalidPayload("the sender in the mail is not the record's publisher")
    if not isinstance(public, bytes) or len(public) != 32 or not isinstance(nonce, bytes) or len(nonce) != _NONCE_SIZE:
        raise InvalidPayload("a mail's ephemeral key has 32 bytes and its nonce 12")
    if not isinstance(ciphertext, bytes):
        raise InvalidPayload("a mail's ciphertext is a byte string")
    try:
        private = X25519PrivateKey.from_private_bytes(x25519_private_key(key.seed))
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        plaintext = AESGCM(_aead_key(shared, record.address, recipient)).decrypt(nonce, ciphertext, None)
    except (InvalidTag, ValueError):
        raise InvalidPayload("the mail does not decrypt with this key") from None
    message_type, body = _read_plaintext(plaintext)
    return MailboxMessage(record.address, message_type, body, record.sequence, record.public_key)


def mailbox_recipient(record: SignedRecord) -> Address:
    """Whom a mailbox record is for. Raises InvalidRecord."""
    recipient = _payload_fields(record).get(1)
    if not isinstance(recipient, bytes) or len(recipient) != 21:
        raise InvalidPayload("a mail's recipient has 21 bytes")
    return Address(recipient)


def x25519_private_key(seed: bytes) -> bytes:
    """The clamped X25519 private key of an Ed25519 seed."""
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 0xF8
    digest[31] = digest[31] & 0x7F | 0x40
    return bytes(digest)


def x25519_public_key(public_key: bytes) -> bytes:
    """The X25519 public key of an Ed25519 one (RFC 7748 §4.1). Raises ValueError if that is not a point."""
    y = int.from_bytes(public_key, "little") & (1 << 255) - 1
    if len(public_key) != 32 or y >= _FIELD_PRIME:
        raise ValueError("not an Ed25519 public key")
    x_squared = (y * y - 1) * pow(_CURVE_D * y * y + 1, -1, _FIELD_PRIME) % _FIELD_PRIME
    if x_squared and pow(x_squared, (_FIELD_PRIME - 1) // 2, _FIELD_PRIME) != 1:
        raise ValueError("not a point of the curve")
    if y == 1:
        raise ValueError("the neutral element has no X25519 form")
    return ((1 + y) * pow(1 - y, -1, _FIELD_PRIME) % _FIELD_PRIME).to_bytes(32, "little")


def _aead_key(shared: bytes, sender: Address, recipient: Address) -> bytes:
    return HKDF(SHA256(), 32, _SALT, sender + recipient).derive(shared)


def _payload_fields(record: SignedRecord) -> CborMap:
    if record.category is not RecordCategory.MAILBOX:
        raise InvalidRecord(f"a record of type {record.record_type:#04x} is no mail")
    return _map(record.payload)


def _read_plaintext(plaintext: bytes) -> tuple[int, bytes]:
    fields = _map(plaintext)
    message_type, body = fields.get(1, 0), fields.get(2)
    if type(message_type) is not int or not 0 <= message_type <= 0xFF:
        raise InvalidPayload("a mail's message type is an 8-bit number")
    if body is not None and not isinstance(body, bytes):
        raise InvalidPayload("a mail's body is a byte string")
    return message_type, body or b""


def _map(data: bytes) -> CborMap:
    try:
        fields = decode(data)
    except CborDecodeError as error:
        raise InvalidPayload(f"not a mail: {error}") from error
    if not isinstance(fields, CborMap):
        raise InvalidPayload("a mail is a map")
    return fields
