"""Signed DHT messages: the envelope around a body (spec 02 §4, §5 and §13).

The signature is checked once, over the header and body exactly as received. As the reader takes the canonical form
only, those bytes have one meaning; keys this version does not know stand under the signature and are ignored, so
messages of newer peers verify (spec 08 §2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs

from a2al_trio.cbor import CborDecodeError, CborMap, decode, encode
from a2al_trio.identity import Address, ed25519
from a2al_trio.wire.bodies import BODY_TYPES, Body, Ping, Pong
from a2al_trio.wire.errors import InvalidMessage, MessageTooLarge, UnknownMessageType, WireEncodeError

__all__ = [
    "MAX_DATAGRAM",
    "MESSAGE_OVERHEAD",
    "PROTOCOL_VERSION",
    "TRANSACTION_ID_SIZE",
    "Message",
    "MessageSigner",
    "UnverifiedMessage",
    "decode_message",
    "encode_message",
    "parse_message",
    "seal_message",
]

MAX_DATAGRAM: Final = 1200
"""Largest message that may travel as a datagram."""
MESSAGE_OVERHEAD: Final = 134
"""Bytes a message has around its body."""
PROTOCOL_VERSION: Final = 1
TRANSACTION_ID_SIZE: Final = 20

_SIGNATURE_PREFIX = b"a2al-msg\0"
_HEADER_START = b"\xa4\x01\x01\x02\x00\x03"


class MessageSigner(Protocol):
    """What signs messages: an `Identity` or its key."""

    @property
    def public_key(self) -> bytes:
        """The Ed25519 key that signs, 32 bytes."""

    def sign(self, message: bytes, /) -> bytes:
        """64-byte Ed25519 signature."""


@attrs.frozen
class Message:
    """A message whose signature holds. `sender` is the address of the key that signed."""

    message_type: int
    transaction_id: bytes
    body: Body
    sender_key: bytes
    sender: Address


@attrs.frozen
class UnverifiedMessage:
    """A well-formed message that anybody may have written; `verify` makes a `Message` of it.

    Dropping what nobody waits for, or what comes too often, before the signature check is what this is for.
    """

    message_type: int
    transaction_id: bytes
    body: Body
    sender_key: bytes
    version: int
    features: int
    _signature: bytes = attrs.field(repr=False)
    _signed: bytes = attrs.field(repr=False)

    def verify(self, verify: Callable[[bytes, bytes, bytes], bool] = ed25519.verify) -> Message:
        """Check the signature, and that PING and PONG speak of their signer. Raises InvalidMessage."""
        if not verify(self.sender_key, self._signed, self._signature):
            raise InvalidMessage("the message's signature does not hold")
        sender = Address.from_public_key(self.sender_key)
        if isinstance(self.body, (Ping, Pong)) and self.body.address != sender:
            raise InvalidMessage("the address in the body is not the signer's")
        return Message(self.message_type, self.transaction_id, self.body, self.sender_key, sender)


def decode_message(data: bytes | memoryview, verify: Callable[[bytes, bytes, bytes], bool] = ed25519.verify) -> Message:
    """Read and verify a message. Raises InvalidMessage; nested records are not verified (spec 02 §13)."""
    return parse_message(data).verify(verify)


def parse_message(data: bytes | memoryview) -> UnverifiedMessage:
    """Read a message without checking its signature. Raises InvalidMessage."""
    data = bytes(data)
    try:
        envelope = decode(data)
    except CborDecodeError as error:
        raise InvalidMessage(f"not a message: {error}") from error
    if not isinstance(envelope, CborMap):
        raise InvalidMessage("a message is a map")
    header, body, sender_key, signature = envelope.get(1), envelope.get(2), envelope.get(3), envelope.get(4)
    if not isinstance(header, CborMap) or not isinstance(body, CborMap):
        raise InvalidMessage("header or body is not a map")
    if not isinstance(sender_key, bytes) or len(sender_key) != 32:
        raise InvalidMessage("sender key is not 32 bytes")
    if not isinstance(signature, bytes) or len(signature) != 64:
        raise InvalidMessage("signature is not 64 bytes")
    version, features, message_type, transaction_id = header.get(1), header.get(2), header.get(3), header.get(4)
    if not isinstance(transaction_id, bytes) or len(transaction_id) != TRANSACTION_ID_SIZE:
        raise InvalidMessage(f"transaction id is not {TRANSACTION_ID_SIZE} bytes")
    if type(version) is not int or type(features) is not int or type(message_type) is not int:
        raise InvalidMessage("version, features and type are numbers")
    if not 0 <= version <= 0xFF or not 0 <= features <= 0xFFFF or not 0 <= message_type <= 0xFF:
        raise InvalidMessage("version, features or type is out of range")
    body_type = BODY_TYPES.get(message_type)
    if body_type is None:
        raise UnknownMessageType(f"message type {message_type:#04x}")
    signed = _SIGNATURE_PREFIX + data[header.start : header.end] + data[body.start : body.end]
    return UnverifiedMessage(
        message_type,
        transaction_id,
        body_type.from_map(body, data),
        sender_key,
        version,
        features,
        signature,
        signed,
    )


def encode_message(body: Body, transaction_id: bytes, signer: MessageSigner, *, limit: int = MAX_DATAGRAM) -> bytes:
    """Sign a message. Raises MessageTooLarge over `limit` bytes, WireEncodeError for values without a wire form."""
    return seal_message(body.message_type, body.encode(), transaction_id, signer, limit=limit)


def seal_message(
    message_type: int,
    encoded_body: bytes,
    transaction_id: bytes,
    signer: MessageSigner,
    *,
    version: int = PROTOCOL_VERSION,
    features: int = 0,
    limit: int = MAX_DATAGRAM,
) -> bytes:
    """Sign a message around a body that is encoded already. Raises as `encode_message`.

    Nothing is negotiated by `version` and `features` so far: leave them alone when talking to others.
    """
    if len(transaction_id) != TRANSACTION_ID_SIZE:
        raise WireEncodeError(f"a transaction id has {TRANSACTION_ID_SIZE} bytes, not {len(transaction_id)}")
    if message_type not in BODY_TYPES:
        raise WireEncodeError(f"message type {message_type:#04x} is not known")
    if version == PROTOCOL_VERSION and features == 0:
        header = _HEADER_START + bytes((message_type,)) + b"\x04\x54" + transaction_id
    elif 0 <= version <= 0xFF and 0 <= features <= 0xFFFF:
        header = encode({1: version, 2: features, 3: int(message_type), 4: transaction_id})
    else:
        raise WireEncodeError("a message's version has 8 bits and its features 16")
    signature = signer.sign(_SIGNATURE_PREFIX + header + encoded_body)
    parts = (
        *(b"\xa4\x01", header, b"\x02", encoded_body),
        *(b"\x03\x58\x20", signer.public_key, b"\x04\x58\x40", signature),
    )
    message = b"".join(parts)
    if len(message) > limit:
        raise MessageTooLarge(f"the message has {len(message)} bytes, more than {limit}")
    return message
