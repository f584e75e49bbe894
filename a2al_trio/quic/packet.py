"""Packet headers (RFC 9000 §17, RFC 8999 for what all versions share, RFC 9369 §3.2 for version 2)."""

from __future__ import annotations

import enum
import struct

import attrs

from a2al_trio.quic.errors import PacketDecodeError
from a2al_trio.quic.packet_crypto import TAG_SIZE, VERSION_1, VERSION_2, retry_integrity_tag
from a2al_trio.quic.varint import VarintError, decode_varint, encode_varint

__all__ = [
    "FIXED_BIT",
    "MAX_CID_SIZE",
    "MIN_INITIAL_SIZE",
    "Invariants",
    "LongHeader",
    "PacketType",
    "Retry",
    "VersionNegotiation",
    "decode_invariants",
    "decode_long_header",
    "decode_packet_number",
    "decode_retry",
    "decode_version_negotiation",
    "encode_long_header",
    "encode_retry",
    "encode_version_negotiation",
    "packet_number_size",
    "packet_type_of",
]

MAX_CID_SIZE = 20
"""Longest connection ID of versions 1 and 2; other versions may use up to 255 bytes (RFC 8999 §5.1)."""

LONG_HEADER = 0x80
FIXED_BIT = 0x40
MIN_INITIAL_SIZE = 1200
"""Datagrams with Initial packets have at least so many bytes (RFC 9000 §14.1)."""

Buffer = bytes | bytearray | memoryview


class PacketType(enum.IntEnum):
    """Long header packet types, in version 1's numbering."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    RETRY = 3


_V2_BITS = {PacketType.INITIAL: 1, PacketType.ZERO_RTT: 2, PacketType.HANDSHAKE: 3, PacketType.RETRY: 0}
_V2_TYPES = {bits: packet_type for packet_type, bits in _V2_BITS.items()}


@attrs.frozen
class Invariants:
    """What every version's long header has in common (RFC 8999 §5.1)."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    end: int


@attrs.frozen
class LongHeader:
    """A protected Initial, 0-RTT or Handshake packet: where its parts are in the datagram."""

    version: int
    packet_type: PacketType
    destination_cid: bytes
    source_cid: bytes
    token: bytes
    start: int
    packet_number_offset: int
    end: int


@attrs.frozen
class VersionNegotiation:
    """A Version Negotiation packet (RFC 9000 §17.2.1)."""

    destination_cid: bytes
    source_cid: bytes
    versions: tuple[int, ...]


@attrs.frozen
class Retry:
    """A Retry packet whose integrity tag was good (RFC 9000 §17.2.5)."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    token: bytes


def decode_invariants(data: Buffer, start: int = 0) -> Invariants:
    """Read the version independent part of a long header; raises `PacketDecodeError`."""
    if len(data) - start < 7 or not data[start] & LONG_HEADER:
        raise PacketDecodeError("not a long header")
    version = int.from_bytes(data[start + 1 : start + 5], "big")
    position = start + 6 + data[start + 5]
    if position >= len(data):
        raise PacketDecodeError("destination connection ID is cut off")
    end = position + 1 + data[position]
    if end > len(data):
        raise PacketDecodeError("source connection ID is cut off")
    return Invariants(version, bytes(data[start + 6 : position]), bytes(data[position + 1 : end]), end)


def packet_type_of(first_byte: int, version: int) -> PacketType:
    """Return the type of a long header packet of version 1 or 2."""
    bits = first_byte >> 4 & 3
    return _V2_TYPES[bits] if version == VERSION_2 else PacketType(bits)


def decode_long_header(data: Buffer, invariants: Invariants, start: int = 0) -> LongHeader:
    """Read the rest of an Initial, 0-RTT or Handshake header of version 1 or 2; raises `PacketDecodeError`."""
    if not data[start] & FIXED_BIT:
        raise PacketDecodeError("fixed bit is zero")
    if len(invariants.destination_cid) > MAX_CID_SIZE or len(invariants.source_cid) > MAX_CID_SIZE:
        raise PacketDecodeError("connection ID is too long")
    packet_type = packet_type_of(data[start], invariants.version)
    if packet_type is PacketType.RETRY:
        raise PacketDecodeError("Retry has no protected header")
    position, token = invariants.end, b""
    try:
        if packet_type is PacketType.INITIAL:
            size, position = decode_varint(data, position)
            if size > len(data) - position:
                raise PacketDecodeError("token is cut off")
            token = bytes(data[position : position + size])
            position += size
        size, position = decode_varint(data, position)
    except VarintError as error:
        raise PacketDecodeError(str(error)) from None
    if size > len(data) - position:
        raise PacketDecodeError("packet is cut off")
    return LongHeader(
        version=invariants.version,
        packet_type=packet_type,
        destination_cid=invariants.destination_cid,
        source_cid=invariants.source_cid,
        token=token,
        start=start,
        packet_number_offset=position,
        end=position + size,
    )


def encode_long_header(
    version: int,
    packet_type: PacketType,
    destination_cid: bytes,
    source_cid: bytes,
    *,
    token: bytes = b"",
    packet_number: int,
    payload_size: int,
) -> bytes:
    """Return an unprotected header with a 4-byte packet number; the length field always takes two bytes."""
    bits = _V2_BITS[packet_type] if version == VERSION_2 else int(packet_type)
    token_field = encode_varint(len(token)) + token if packet_type is PacketType.INITIAL else b""
    return b"".join(
        (
            bytes((LONG_HEADER | FIXED_BIT | bits << 4 | 3,)),
            version.to_bytes(4, "big"),
            bytes((len(destination_cid),)),
            destination_cid,
            bytes((len(source_cid),)),
            source_cid,
            token_field,
            (0x4000 | payload_size + 4 + TAG_SIZE).to_bytes(2, "big"),
            (packet_number & 0xFFFFFFFF).to_bytes(4, "big"),
        )
    )


def decode_packet_number(truncated: int, bits: int, expected: int) -> int:
    """Return the full packet number closest to `expected` (RFC 9000 §A.3)."""
    window = 1 << bits
    candidate = (expected & -window) | truncated
    if candidate <= expected - (window >> 1) and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + (window >> 1) and candidate >= window:
        return candidate - window
    return candidate


def packet_number_size(next_number: int, largest_acked: int) -> int:
    """Return how many bytes carry packet numbers from `next_number` unambiguously (RFC 9000 §A.2), at least 2.

    Twice the least range leaves room for a whole batch under one size.
    """
    distance = (next_number - largest_acked) * 2 + 128
    if distance < 1 << 15:
        return 2
    return 3 if distance < 1 << 23 else 4


def encode_version_negotiation(
    destination_cid: bytes, source_cid: bytes, versions: tuple[int, ...], first_byte: int
) -> bytes:
    """Return a Version Negotiation packet; `first_byte` fills the unused bits."""
    return b"".join(
        (
            bytes((LONG_HEADER | FIXED_BIT | first_byte,)),
            bytes(4),
            bytes((len(destination_cid),)),
            destination_cid,
            bytes((len(source_cid),)),
            source_cid,
            struct.pack(f">{len(versions)}I", *versions),
        )
    )


def decode_version_negotiation(data: Buffer) -> VersionNegotiation:
    """Read a Version Negotiation packet; raises `PacketDecodeError`."""
    invariants = decode_invariants(data)
    body = bytes(data[invariants.end :])
    if invariants.version != 0 or not body or len(body) % 4:
        raise PacketDecodeError("malformed Version Negotiation")
    versions = struct.unpack(f">{len(body) // 4}I", body)
    return VersionNegotiation(invariants.destination_cid, invariants.source_cid, versions)


def encode_retry(
    version: int, destination_cid: bytes, source_cid: bytes, *, original_destination_cid: bytes, token: bytes
) -> bytes:
    """Return a Retry packet with its integrity tag (RFC 9001 §5.8)."""
    bits = _V2_BITS[PacketType.RETRY] if version == VERSION_2 else int(PacketType.RETRY)
    packet = b"".join(
        (
            bytes((LONG_HEADER | FIXED_BIT | bits << 4,)),
            version.to_bytes(4, "big"),
            bytes((len(destination_cid),)),
            destination_cid,
            bytes((len(source_cid),)),
            source_cid,
            token,
        )
    )
    return packet + retry_integrity_tag(original_destination_cid, packet, version)


def decode_retry(data: Buffer, *, original_destination_cid: bytes) -> Retry:
    """Read a Retry packet of version 1 or 2 and check its tag; raises `PacketDecodeError`."""
    invariants = decode_invariants(data)
    if invariants.version not in (VERSION_1, VERSION_2):
        raise PacketDecodeError("unknown version")
    packet = bytes(data)
    token = packet[invariants.end : -TAG_SIZE]
    if not token or len(packet) - invariants.end <= TAG_SIZE:
        raise PacketDecodeError("Retry without a token")
    if retry_integrity_tag(original_destination_cid, packet[:-TAG_SIZE], invariants.version) != packet[-TAG_SIZE:]:
        raise PacketDecodeError("Retry integrity tag does not match")
    return Retry(invariants.version, invariants.destination_cid, invariants.source_cid, token)
