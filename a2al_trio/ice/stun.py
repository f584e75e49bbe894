"""STUN messages (RFC 8489) with the attributes of ICE (RFC 8445 §16.1) and TURN (RFC 8656 §18).

`decode_stun` keeps the received bytes, since integrity covers them as they came. Integrity uses HMAC-SHA1 or
HMAC-SHA256 keyed by a short-term password or a long-term key; whoever asks for a decision from an unauthenticated
message calls `StunMessage.has_integrity` first.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final

import attrs

from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.net.address import SocketAddress

__all__ = [
    "COOKIE",
    "Attribute",
    "Attributes",
    "StunClass",
    "StunMessage",
    "StunMethod",
    "decode_stun",
    "decode_xor_address",
    "encode_error",
    "encode_stun",
    "encode_xor_address",
    "is_stun",
    "long_term_key",
]

COOKIE: Final = bytes.fromhex("2112a442")
_FINGERPRINT_MASK: Final = 0x5354554E
_HEADER_SIZE: Final = 20
_MAX_ATTRIBUTES: Final = 64

Attributes = Sequence[tuple[int, bytes]]
"""Attribute types and values in wire order."""


class StunClass(IntEnum):
    """The class bits of a message type (RFC 8489 §5)."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class StunMethod(IntEnum):
    """The methods in use (RFC 8489 §18.2, RFC 8656 §17)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class Attribute(IntEnum):
    """Attribute types (RFC 8489 §18.3, RFC 8445 §20.1, RFC 8656 §18)."""

    MAPPED_ADDRESS = 0x0001
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    REQUESTED_TRANSPORT = 0x0019
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    XOR_MAPPED_ADDRESS = 0x0020
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    PASSWORD_ALGORITHMS = 0x8002
    XOR_MAPPED_ADDRESS_OLD = 0x8020
    SOFTWARE = 0x8022
    ALTERNATE_SERVER = 0x8023
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A


_KNOWN: Final = frozenset(int(attribute) for attribute in Attribute)


@attrs.frozen
class StunMessage:
    """One message. `raw` is the datagram it was decoded from, empty for a message of our own making."""

    message_class: StunClass
    method: int
    transaction_id: bytes
    attributes: Attributes = ()
    raw: bytes = attrs.field(default=b"", repr=False, eq=False)
    _integrity: tuple[tuple[int, int], ...] = attrs.field(default=(), repr=False, eq=False)

    def get(self, attribute: Attribute) -> bytes | None:
        """Return the first value of an attribute."""
        for kind, value in self.attributes:
            if kind == attribute:
                return value
        return None

    def number(self, attribute: Attribute) -> int | None:
        """Return an attribute as an unsigned integer; `None` if it is absent or longer than eight bytes."""
        value = self.get(attribute)
        return int.from_bytes(value, "big") if value is not None and len(value) in (4, 8) else None

    def text(self, attribute: Attribute) -> str | None:
        """Return an attribute as text; `None` if it is absent or not UTF-8."""
        value = self.get(attribute)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None

    def address(self, attribute: Attribute) -> SocketAddress | None:
        """Return an XOR-ed address attribute; `None` if it is absent or malformed."""
        value = self.get(attribute)
        return None if value is None else decode_xor_address(value, self.transaction_id)

    @property
    def mapped_address(self) -> SocketAddress | None:
        """Where the server saw the request come from; pre-standard and RFC 3489 forms are read too."""
        for attribute in (Attribute.XOR_MAPPED_ADDRESS, Attribute.XOR_MAPPED_ADDRESS_OLD):
            found = self.address(attribute)
            if found is not None:
                return found
        plain = self.get(Attribute.MAPPED_ADDRESS)
        return None if plain is None else _read_address(plain)

    @property
    def error(self) -> tuple[int, str] | None:
        """Code and reason of an error response (RFC 8489 §14.8)."""
        value = self.get(Attribute.ERROR_CODE)
        if value is None or len(value) < 4:
            return None
        return (value[2] & 7) * 100 + value[3] % 100, value[4:].decode(errors="replace")

    @property
    def unknown_required(self) -> tuple[int, ...]:
        """Comprehension-required attributes we do not know (RFC 8489 §14)."""
        return tuple(kind for kind, _ in self.attributes if kind < 0x8000 and kind not in _KNOWN)

    def has_integrity(self, key: bytes, *, sha256: bool | None = None) -> bool:
        """Whether the message was made by somebody who has `key`.

        By default the strongest integrity attribute present decides; `sha256` insists on one of the two kinds.
        """
        present = dict(self._integrity)
        kind = Attribute.MESSAGE_INTEGRITY_SHA256
        if sha256 is False or (sha256 is None and kind not in present):
            kind = Attribute.MESSAGE_INTEGRITY
        if kind not in present:
            return False
        offset = present[kind]
        size = int.from_bytes(self.raw[offset + 2 : offset + 4], "big")
        received = self.raw[offset + 4 : offset + 4 + size]
        expected = _hmac(key, self.raw[:offset], size, sha256=kind == Attribute.MESSAGE_INTEGRITY_SHA256)
        return hmac.compare_digest(received, expected[:size])


def is_stun(data: bytes | bytearray | memoryview) -> bool:
    """Whether a datagram is STUN and nothing else that shares our sockets (RFC 7983, RFC 9443)."""
    return len(data) >= _HEADER_SIZE and data[0] < 4 and data[4:8] == COOKIE


def decode_stun(data: bytes | bytearray | memoryview) -> StunMessage:
    """Decode one message; raises `StunDecodeError`.

    The fingerprint is checked when present. What follows the integrity attributes, and is not protected by
    them, is left out (RFC 8489 §14.5).
    """
    raw = bytes(data)
    if not is_stun(raw):
        raise StunDecodeError("not a STUN message")
    size = int.from_bytes(raw[2:4], "big")
    if size % 4 or _HEADER_SIZE + size != len(raw):
        raise StunDecodeError("the length does not match the datagram")
    first = int.from_bytes(raw[:2], "big")
    message_class = StunClass((first >> 4 & 1) | (first >> 7 & 2))
    method = (first & 0x000F) | (first >> 1 & 0x0070) | (first >> 2 & 0x0F80)
    attributes: list[tuple[int, bytes]] = []
    integrity: list[tuple[int, int]] = []
    for offset, kind, value in _walk(raw):
        if kind == Attribute.FINGERPRINT:
            if value != _fingerprint(raw[:offset]):
                raise StunDecodeError("wrong fingerprint")
            break
        if kind in (Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256):
            if any(seen == kind for seen, _ in integrity):
                continue
            _check_integrity_size(kind, len(value))
            integrity.append((kind, offset))
        elif not integrity:
            attributes.append((kind, value))
    return StunMessage(message_class, method, raw[8:20], tuple(attributes), raw, tuple(integrity))


def _walk(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = _HEADER_SIZE
    for _ in range(_MAX_ATTRIBUTES):
        if offset == len(raw):
            return
        kind = int.from_bytes(raw[offset : offset + 2], "big")
        end = offset + 4 + int.from_bytes(raw[offset + 2 : offset + 4], "big")
        if end > len(raw):
            raise StunDecodeError("an attribute is cut short")
        yield offset, kind, raw[offset + 4 : end]
        offset = end + -end % 4  # the whole length is a multiple of four, so padding is always there
    raise StunDecodeError("too many attributes")


def _check_integrity_size(kind: int, size: int) -> None:
    if kind == Attribute.MESSAGE_INTEGRITY and size != 20:
        raise StunDecodeError("MESSAGE-INTEGRITY has 20 bytes")
    if kind == Attribute.MESSAGE_INTEGRITY_SHA256 and (size % 4 or not 16 <= size <= 32):
        raise StunDecodeError("MESSAGE-INTEGRITY-SHA256 has 16 to 32 bytes")  # RFC 8489 §14.6


def encode_stun(
    message_class: StunClass,
    method: StunMethod,
    transaction_id: bytes,
    attributes: Attributes = (),
    *,
    key: bytes | None = None,
    sha256: bool = False,
    fingerprint: bool = True,
) -> bytes:
    """Return the bytes of a message, with integrity if there is a `key`."""
    kind = (
        (method & 0x000F)
        | (method & 0x0070) << 1
        | (method & 0x0F80) << 2
        | (message_class & 1) << 4
        | (message_class & 2) << 7
    )
    raw = bytearray(kind.to_bytes(2, "big") + b"\0\0" + COOKIE + transaction_id)
    for attribute, value in attributes:
        _put(raw, attribute, value)
    if key is not None:
        size = 32 if sha256 else 20
        code = _hmac(key, bytes(raw), size, sha256=sha256)
        _put(raw, Attribute.MESSAGE_INTEGRITY_SHA256 if sha256 else Attribute.MESSAGE_INTEGRITY, code)
    if fingerprint:
        _put(raw, Attribute.FINGERPRINT, _fingerprint(bytes(raw)))
    raw[2:4] = (len(raw) - _HEADER_SIZE).to_bytes(2, "big")
    return bytes(raw)


def _put(raw: bytearray, kind: int, value: bytes) -> None:
    raw += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def _with_length(head: bytes, extra: int) -> bytes:
    """Integrity and fingerprint are computed over a header whose length ends with themselves (RFC 8489 §14.5)."""
    return head[:2] + (len(head) - _HEADER_SIZE + extra).to_bytes(2, "big") + head[4:]


def _hmac(key: bytes, head: bytes, size: int, *, sha256: bool) -> bytes:
    return hmac.digest(key, _with_length(head, 4 + size), "sha256" if sha256 else "sha1")


def _fingerprint(head: bytes) -> bytes:
    return (zlib.crc32(_with_length(head, 8)) ^ _FINGERPRINT_MASK).to_bytes(4, "big")


def long_term_key(username: str, realm: str, password: str, *, sha256: bool = False) -> bytes:
    """Return the key of long-term credentials (RFC 8489 §9.2.2)."""
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.sha256(text).digest() if sha256 else hashlib.md5(text, usedforsecurity=False).digest()


def encode_xor_address(address: SocketAddress, transaction_id: bytes) -> bytes:
    """Return an XOR-ed address value (RFC 8489 §14.2)."""
    packed = ipaddress.ip_address(address.host.partition("%")[0]).packed
    port = address.port ^ 0x2112
    family = 1 if len(packed) == 4 else 2
    return bytes([0, family]) + port.to_bytes(2, "big") + _xor(packed, COOKIE + transaction_id)


def decode_xor_address(value: bytes, transaction_id: bytes) -> SocketAddress | None:
    """Read an XOR-ed address value; `None` if it is malformed."""
    return _read_address(value, COOKIE + transaction_id)


def _read_address(value: bytes, mask: bytes = bytes(16)) -> SocketAddress | None:
    if len(value) not in (8, 20) or value[1] != (1 if len(value) == 8 else 2):
        return None
    port = int.from_bytes(_xor(value[2:4], mask), "big")
    ip = ipaddress.ip_address(_xor(value[4:], mask))
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return SocketAddress(str(ip), port)


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))


def encode_error(code: int, reason: str) -> tuple[int, bytes]:
    """Return the ERROR-CODE attribute of an error response."""
    return Attribute.ERROR_CODE, bytes([0, 0, code // 100, code % 100]) + reason.encode()
