"""What can be wrong with wire data (spec 02 §14)."""

from __future__ import annotations

from a2al_trio.errors import DecodeError, LocalProtocolError

__all__ = [
    "InvalidControlStream",
    "InvalidMessage",
    "InvalidPayload",
    "InvalidRecord",
    "MessageTooLarge",
    "PayloadTooLarge",
    "RecordExpired",
    "RecordNotAuthorized",
    "RecordNotYetValid",
    "UnknownMessageType",
    "WireDecodeError",
    "WireEncodeError",
]


class WireDecodeError(DecodeError):
    """Bytes from a peer are not what this layer understands; the base of all its decode errors."""


class InvalidMessage(WireDecodeError):
    """A DHT message is malformed, has a wrong length in it, or its signature does not hold."""


class UnknownMessageType(InvalidMessage):
    """A well-formed DHT message of a type we do not know; newer peers may send such."""


class InvalidRecord(WireDecodeError):
    """A signed record is malformed, badly signed, or says what its type forbids."""


class InvalidPayload(InvalidRecord):
    """The payload inside a record does not decode, or breaks a limit of its type."""


class RecordExpired(InvalidRecord):
    """The record's time to live is over."""


class RecordNotYetValid(InvalidRecord):
    """The record is dated in the future beyond the clock tolerance."""


class RecordNotAuthorized(InvalidRecord):
    """The record's signer may not publish for its address, or not under this key (spec 02 §9.3)."""


class InvalidControlStream(WireDecodeError):
    """A control stream, or the head of a stream of a known kind, breaks its framing or a limit of ours."""


class WireEncodeError(LocalProtocolError):
    """The caller's values have no wire form: a wrong length, a number out of range, a forbidden type."""


class MessageTooLarge(WireEncodeError):
    """A DHT message would not fit a datagram (spec 02 §1)."""


class PayloadTooLarge(WireEncodeError):
    """A record payload is over the limit of its type; shorten its texts or lists."""
