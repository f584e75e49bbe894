"""The bodies of DHT messages (spec 02 §6; types 0x0B and 0x0C and the newer keys from spec 08 §2).

A decoder takes a map the canonical reader has produced, ignores keys it does not know, asks for every field the type
requires and checks lengths. Encoders write exactly what v0.2.0 writes, so that its verifier agrees byte for byte.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar, Final, Protocol, Self

import attrs

from a2al_trio.cbor import CborMap, CborValue, Encodable, encode, head
from a2al_trio.identity import Address, NodeId
from a2al_trio.wire.errors import InvalidMessage, WireEncodeError
from a2al_trio.wire.fields import (
    encode_address,
    encode_array,
    exactly,
    fixed_bytes,
    flag,
    nested_record,
    node_list,
    observed_address,
    uint8,
)
from a2al_trio.wire.nodes import NodeInfo
from a2al_trio.wire.records import SignedRecord

__all__ = [
    "BODY_TYPES",
    "MAX_WAITING_IDS",
    "Body",
    "DhtPush",
    "DhtPushAck",
    "FindNode",
    "FindNodeResponse",
    "FindValue",
    "FindValueResponse",
    "MessageType",
    "NatProbeEcho",
    "NatProbeRequest",
    "Ping",
    "Pong",
    "Store",
    "StoreReason",
    "StoreResponse",
    "WaitingMail",
    "encode_find_node_response",
    "encode_find_value_response",
]

MAX_WAITING_IDS: Final = 8
_ZERO_KEY = bytes(32)
_TOKEN_SIZE = 8


class MessageType(enum.IntEnum):
    """The known types of DHT messages."""

    PING = 0x01
    PONG = 0x02
    FIND_NODE = 0x03
    FIND_NODE_RESPONSE = 0x04
    FIND_VALUE = 0x05
    FIND_VALUE_RESPONSE = 0x06
    STORE = 0x07
    STORE_RESPONSE = 0x08
    NAT_PROBE_REQUEST = 0x09
    NAT_PROBE_ECHO = 0x0A
    DHT_PUSH = 0x0B
    DHT_PUSH_ACK = 0x0C


class StoreReason(enum.IntEnum):
    """Why a STORE was refused (spec 02 §6.2); newer peers may send other numbers."""

    NONE = 0
    POLICY = 1
    INVALID = 2


class Body(Protocol):
    """What every message body offers."""

    message_type: ClassVar[MessageType]

    def encode(self) -> bytes:
        """The canonical body map. Raises WireEncodeError for values that have none."""

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map whose span lies in `data`. Raises InvalidMessage."""


@attrs.frozen
class Ping:
    """Are you there? `address` is the sender's own."""

    message_type: ClassVar = MessageType.PING
    address: Address

    def encode(self) -> bytes:
        """The canonical body map."""
        return b"\xa1\x01\x55" + exactly(self.address, 21, "address")

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(Address(fixed_bytes(fields, 1, 21, "address")))


@attrs.frozen
class Pong:
    """Answer to PING: the sender's own address, and how the receiver's socket looks from there (6 or 18 bytes)."""

    message_type: ClassVar = MessageType.PONG
    address: Address
    observed: bytes

    def encode(self) -> bytes:
        """The canonical body map."""
        return b"\xa2\x01\x55" + exactly(self.address, 21, "address") + b"\x02" + encode_address(self.observed)

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(Address(fixed_bytes(fields, 1, 21, "address")), observed_address(fields, 2))


@attrs.frozen
class FindNode:
    """Who is near `target`?"""

    message_type: ClassVar = MessageType.FIND_NODE
    target: NodeId

    def encode(self) -> bytes:
        """The canonical body map."""
        return b"\xa1\x01\x58\x20" + exactly(self.target, 32, "target")

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(NodeId(fixed_bytes(fields, 1, 32, "target")))


@attrs.frozen
class FindNodeResponse:
    """Nodes near the target, and the asker's observed address. `nodes` None is written as null, as v0.2.0 does."""

    message_type: ClassVar = MessageType.FIND_NODE_RESPONSE
    nodes: tuple[NodeInfo, ...] | None
    observed: bytes

    def encode(self) -> bytes:
        """The canonical body map."""
        nodes = None if self.nodes is None else [node.encoded for node in self.nodes]
        return encode_find_node_response(nodes, self.observed)

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(node_list(fields), observed_address(fields, 2))


@attrs.frozen
class FindValue:
    """Which records are stored under `target`? `record_type` 0 asks for all types.

    `subscribe` asks to be pushed the next new record (spec 08 §2.1). Set it only towards peers known to be newer: a
    v0.2.0 node does not answer such a request at all.
    """

    message_type: ClassVar = MessageType.FIND_VALUE
    target: NodeId
    record_type: int = 0
    subscribe: bool = False

    def encode(self) -> bytes:
        """The canonical body map."""
        if not 0 <= self.record_type <= 0xFF:
            raise WireEncodeError(f"record type {self.record_type} is not an 8-bit number")
        body = b"\x01\x58\x20" + exactly(self.target, 32, "target")
        count = 1
        if self.record_type:
            body += b"\x02" + head(0, self.record_type)
            count += 1
        if self.subscribe:
            body += b"\x03\xf5"
            count += 1
        return head(0xA0, count) + body

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(
            NodeId(fixed_bytes(fields, 1, 32, "target")), uint8(fields, 2, "record type"), flag(fields, 3, "subscribe")
        )


@attrs.frozen
class FindValueResponse:
    """Records under the target, nodes near it, and the asker's observed address.

    `record` is the single record of old peers; read `all_records`.
    """

    message_type: ClassVar = MessageType.FIND_VALUE_RESPONSE
    nodes: tuple[NodeInfo, ...] | None
    observed: bytes
    records: tuple[SignedRecord, ...] = ()
    record: SignedRecord | None = None

    @property
    def all_records(self) -> tuple[SignedRecord, ...]:
        """The records, or the single old-style one (spec 02 §6.1)."""
        return self.records or (() if self.record is None else (self.record,))

    def encode(self) -> bytes:
        """The canonical body map."""
        return encode_find_value_response(
            None if self.nodes is None else [node.encoded for node in self.nodes],
            self.observed,
            [record.encoded for record in self.records],
            None if self.record is None else self.record.encoded,
        )

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        record = nested_record(fields[2], data) if 2 in fields else None
        records = fields.get(4, [])
        if not isinstance(records, list):
            raise InvalidMessage("records is not a list")
        observed = observed_address(fields, 3)
        return cls(node_list(fields), observed, tuple(nested_record(item, data) for item in records), record)


@attrs.frozen
class Store:
    """Keep this record. Without `key` it belongs under the NodeID of its address."""

    message_type: ClassVar = MessageType.STORE
    record: SignedRecord
    key: NodeId | None = None

    @property
    def target_key(self) -> NodeId:
        """The key to store under; 32 zero bytes stand for no key (spec 02 §6.1)."""
        if self.key is None or self.key == _ZERO_KEY:
            return self.record.address.node_id
        return self.key

    def encode(self) -> bytes:
        """The canonical body map."""
        if self.key is None:
            return b"\xa1\x01" + self.record.encoded
        return b"\xa2\x01" + self.record.encoded + b"\x02\x58\x20" + exactly(self.key, 32, "key")

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        record = nested_record(fields.get(1), data)
        key = fields.get(2, b"")
        if not isinstance(key, bytes) or len(key) not in (0, 32):
            raise InvalidMessage("key is not 32 bytes")
        return cls(record, NodeId(key) if key else None)


@attrs.frozen
class WaitingMail:
    """Mail of one record type that waits for the publisher (spec 08 §2.2): how many, and ids of at most 8."""

    record_type: int
    count: int
    ids: tuple[bytes, ...] = ()


@attrs.frozen
class StoreResponse:
    """Whether the record is now held; `reason` is a `StoreReason` or a newer peer's number."""

    message_type: ClassVar = MessageType.STORE_RESPONSE
    stored: bool
    already_had: bool = False
    reason: int = StoreReason.NONE
    waiting_mail: tuple[WaitingMail, ...] = ()

    def encode(self) -> bytes:
        """The canonical body map."""
        if not 0 <= self.reason <= 0xFF:
            raise WireEncodeError(f"store reason {self.reason} is not an 8-bit number")
        fields: dict[int, Encodable] = {1: self.stored}
        if self.already_had:
            fields[2] = True
        if self.reason:
            fields[3] = int(self.reason)
        if self.waiting_mail:
            fields[4] = [
                {1: mail.record_type, 2: mail.count} | ({3: mail.ids} if mail.ids else {}) for mail in self.waiting_mail
            ]
        return encode(fields)

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        stored = fields.get(1)
        if not isinstance(stored, bool):
            raise InvalidMessage("stored is not a boolean")
        return cls(stored, flag(fields, 2, "already_had"), uint8(fields, 3, "reason"), _waiting_mail(fields.get(4)))


@attrs.frozen
class NatProbeRequest:
    """Please send an echo with `token` to `claimed`, 6 or 18 bytes (spec 02 §6.3)."""

    message_type: ClassVar = MessageType.NAT_PROBE_REQUEST
    token: bytes
    claimed: bytes

    def encode(self) -> bytes:
        """The canonical body map."""
        token = exactly(self.token, _TOKEN_SIZE, "token")
        return b"\xa2\x01\x48" + token + b"\x02" + encode_address(self.claimed)

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(fixed_bytes(fields, 1, _TOKEN_SIZE, "token"), observed_address(fields, 2))


@attrs.frozen
class NatProbeEcho:
    """The echo of a NAT probe."""

    message_type: ClassVar = MessageType.NAT_PROBE_ECHO
    token: bytes

    def encode(self) -> bytes:
        """The canonical body map."""
        return b"\xa1\x01\x48" + exactly(self.token, _TOKEN_SIZE, "token")

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(fixed_bytes(fields, 1, _TOKEN_SIZE, "token"))


@attrs.frozen
class DhtPush:
    """A new record under a key its receiver has subscribed to (spec 08 §2.1)."""

    message_type: ClassVar = MessageType.DHT_PUSH
    key: NodeId
    record: SignedRecord

    def encode(self) -> bytes:
        """The canonical body map."""
        return b"\xa2\x01\x58\x20" + exactly(self.key, 32, "key") + b"\x02" + self.record.encoded

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(NodeId(fixed_bytes(fields, 1, 32, "key")), nested_record(fields.get(2), data))


@attrs.frozen
class DhtPushAck:
    """Answer to a push; `message_id` is the record's `payload_id`, `renew` asks for the next record too."""

    message_type: ClassVar = MessageType.DHT_PUSH_ACK
    key: NodeId
    message_id: bytes
    renew: bool = False

    def encode(self) -> bytes:
        """The canonical body map."""
        body = b"\x01\x58\x20" + exactly(self.key, 32, "key")
        body += b"\x02\x58\x20" + exactly(self.message_id, 32, "message id")
        return b"\xa3" + body + b"\x03\xf5" if self.renew else b"\xa2" + body

    @classmethod
    def from_map(cls, fields: CborMap, data: bytes) -> Self:
        """Read a decoded map."""
        return cls(
            NodeId(fixed_bytes(fields, 1, 32, "key")),
            fixed_bytes(fields, 2, 32, "message id"),
            flag(fields, 3, "renew"),
        )


BODY_TYPES: Final[dict[int, type[Body]]] = {
    body.message_type: body
    for body in (
        *(Ping, Pong, FindNode, FindNodeResponse, FindValue, FindValueResponse, Store, StoreResponse),
        *(NatProbeRequest, NatProbeEcho, DhtPush, DhtPushAck),
    )
}


def encode_find_node_response(nodes: Sequence[bytes] | None, observed: bytes) -> bytes:
    """The body of a FIND_NODE_RESP from encoded nodes (`NodeInfo.encoded`)."""
    return b"\xa2\x01" + encode_array(nodes) + b"\x02" + encode_address(observed)


def encode_find_value_response(
    nodes: Sequence[bytes] | None, observed: bytes, records: Sequence[bytes] = (), record: bytes | None = None
) -> bytes:
    """The body of a FIND_VALUE_RESP from encoded nodes and records (`NodeInfo.encoded`, `SignedRecord.encoded`)."""
    parts = [b"\xa2", b"\x01", encode_array(nodes), b"\x03", encode_address(observed)]
    if records:
        parts += (b"\x04", encode_array(records))
    if record is not None:
        parts[3:3] = (b"\x02", record)
    parts[0] = head(0xA0, len(parts) // 2)
    return b"".join(parts)


def _waiting_mail(value: CborValue) -> tuple[WaitingMail, ...]:
    """Read the hint; what is malformed in it is left out, for the answer itself does not depend on it."""
    if not isinstance(value, list):
        return ()
    waiting = []
    for item in value:
        if not isinstance(item, dict):
            continue
        record_type, count, ids = item.get(1), item.get(2), item.get(3, [])
        if type(record_type) is not int or type(count) is not int or not isinstance(ids, list):
            continue
        good = tuple(each for each in ids[:MAX_WAITING_IDS] if isinstance(each, bytes) and len(each) == 32)
        waiting.append(WaitingMail(record_type, count, good))
    return tuple(waiting)
