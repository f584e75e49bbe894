"""Small makers shared by the DHT tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from a2al_trio.dht.contact import Contact
from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.payloads import EndpointPayload, TopicPayload
from a2al_trio.wire.records import RecordType, SignedRecord, decode_record, sign_record

NOW = 1_750_000_000


def identity(number: int) -> Identity:
    """The identity with that number."""
    return Identity.from_seed(hashlib.sha256(b"identity %d" % number).digest())


def contact(number: int, host: str | None = None, port: int = 4121) -> Contact:
    """A contact whose address is invented but bound to its id, in a network of its own unless a host is given."""
    address = Address(b"\xa0" + hashlib.sha256(b"contact %d" % number).digest()[:20])
    host = f"11.{number // 200}.{number % 200}.1" if host is None else host
    return Contact.of(address, SocketAddress(host, port))


def contact_at(key: int, host: str, port: int = 4121) -> Contact:
    """A contact with a chosen id, for tests of places in the table; no honest node has such an id."""
    return Contact(NodeId(key.to_bytes(32, "big")), Address(bytes(21)), SocketAddress(host, port), key)


def endpoint(
    who: Identity, *, sequence: int = 1, timestamp: int = NOW - 3, ttl: int = 3600, port: int = 4121
) -> SignedRecord:
    """An endpoint record."""
    payload = EndpointPayload((f"quic://203.0.113.9:{port}",)).encode()
    return sign_record(who, RecordType.ENDPOINT, payload, sequence=sequence, timestamp=timestamp, ttl=ttl)


def topic(
    who: Identity, name: str, *, sequence: int = 1, timestamp: int = NOW - 3, ttl: int = 3600, brief: str = ""
) -> SignedRecord:
    """A topic record."""
    payload = TopicPayload(name, brief=brief).encode()
    return sign_record(who, RecordType.TOPIC, payload, sequence=sequence, timestamp=timestamp, ttl=ttl)


def always(_public_key: bytes, _message: bytes, _signature: bytes) -> bool:
    """A signature check that costs nothing, where signatures are not the subject."""
    return True


def nearest(contacts: Sequence[Contact], target: int, count: int) -> list[Contact]:
    """Brute force."""
    return sorted(contacts, key=lambda each: each.key ^ target)[:count]


def forged(record: SignedRecord) -> SignedRecord:
    """The record with a broken signature."""
    assert record.delegation is None
    return decode_record(record.encoded[:-1] + bytes([record.encoded[-1] ^ 1]))
