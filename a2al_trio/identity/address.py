"""Agent addresses (AIDs) and the NodeIDs derived from them, binary and text (spec 01 §1 and §2).

Both are `bytes` subclasses of fixed length: they are dictionary keys, wire fields and hash inputs all day, and
as `bytes` they cost nothing there. Text is only for people, SNI and signed chain messages: addresses are
compared as bytes, since one address has several text forms.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

from a2al_trio.identity.encodings import base58check_decode, bech32_decode, bech32_encode
from a2al_trio.identity.errors import InvalidAddress
from a2al_trio.identity.hashes import keccak256

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

__all__ = ["UNICODE_WHITESPACE", "ZERO_ADDRESS", "Address", "AddressVersion", "NodeId"]

# The characters with the Unicode White_Space property. `str.strip()` would also take U+001C to U+001F.
UNICODE_WHITESPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_NATIVE_VERSIONS = range(0xA0, 0xB0)


class AddressVersion(enum.IntEnum):
    """First byte of an address: how the other 20 bytes follow from a public key."""

    ED25519 = 0xA0
    P256 = 0xA1
    PARALISM = 0xA2
    ETHEREUM = 0xA3
    EXPERIMENTAL = 0xAE
    PRIVATE = 0xAF


_AUTHENTICABLE = frozenset((AddressVersion.ED25519, AddressVersion.PARALISM, AddressVersion.ETHEREUM))


class NodeId(bytes):
    """Position of an address in the DHT's key space: 32 bytes, compared by XOR (spec 01 §1.2)."""

    __slots__ = ()

    def __new__(cls, raw: Buffer) -> Self:
        """Take the 32 raw bytes; raises `ValueError` for any other length."""
        node_id = super().__new__(cls, raw)
        if len(node_id) != 32:
            raise ValueError(f"a NodeID has 32 bytes, not {len(node_id)}")
        return node_id

    @classmethod
    def of(cls, address: bytes) -> Self:
        """NodeID of a 21-byte address: its SHA-256."""
        return bytes.__new__(cls, hashlib.sha256(address).digest())  # a digest has the right length

    def distance(self, other: NodeId) -> int:
        """XOR of both, as a 256-bit integer."""
        return int.from_bytes(self, "big") ^ int.from_bytes(other, "big")

    def common_prefix_len(self, other: NodeId) -> int:
        """Number of equal leading bits, 256 when equal."""
        return 256 - self.distance(other).bit_length()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"NodeId({self.hex()})"


class Address(bytes):
    """An agent address (AID): a version byte and a 20-byte hash of the owner's public key.

    `str(address)` is the canonical text form, `Address.parse(text)` accepts every text form.
    """

    __slots__ = ()

    def __new__(cls, raw: Buffer) -> Self:
        """Take the 21 raw bytes, of any version; raises `InvalidAddress` for any other length."""
        address = super().__new__(cls, raw)
        if len(address) != 21:
            raise InvalidAddress(f"an agent address has 21 bytes, not {len(address)}")
        return address

    @classmethod
    def from_public_key(cls, public_key: bytes) -> Self:
        """Address of a 32-byte Ed25519 public key."""
        if len(public_key) != 32:
            raise InvalidAddress(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
        return bytes.__new__(cls, b"\xa0" + hashlib.sha256(public_key).digest()[:20])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read any text form (spec 01 §2.2): native, Ethereum, Paralism bech32 or P2PKH.

        Raises `InvalidAddress`. The first form that claims the text decides; no other is tried after it.
        """
        text = text.strip(UNICODE_WHITESPACE)
        if len(text) == 42 and text[:2] in ("0x", "0X"):
            return cls(_parse_ethereum(text))
        if _looks_paralism(text):
            return cls(_parse_paralism(text))
        if len(text) == 42 and _HEX_DIGITS.issuperset(text):
            return cls(_parse_native(text))
        raise InvalidAddress(f"not an agent address in any known form: {_shorten(text)}")

    @classmethod
    def parse_ethereum(cls, text: str) -> Self:
        """Read the Ethereum form only; raises `InvalidAddress`."""
        return cls(_parse_ethereum(text.strip(UNICODE_WHITESPACE)))

    @classmethod
    def parse_paralism(cls, text: str) -> Self:
        """Read the Paralism forms only; raises `InvalidAddress`."""
        return cls(_parse_paralism(text.strip(UNICODE_WHITESPACE)))

    @property
    def version(self) -> int:
        """The version byte; see `AddressVersion`."""
        return self[0]

    @property
    def node_id(self) -> NodeId:
        """The address's place in the DHT."""
        return NodeId.of(self)

    @property
    def authenticable(self) -> bool:
        """Whether any mechanism exists by which a peer can prove to own this address."""
        return self[0] in _AUTHENTICABLE

    def __str__(self) -> str:
        if self[0] == AddressVersion.PARALISM:
            return bech32_encode("bc", b"\x00" + self[1:])
        if self[0] == AddressVersion.ETHEREUM:
            body = self[1:].hex()
            return "0x" + _checksum_case(body, keccak256(body.encode("ascii")))
        if not any(self):
            return "0" * 42
        body = self.hex()
        return _checksum_case(body, hashlib.sha256(body.encode("ascii")).digest())

    def __repr__(self) -> str:
        return f"Address({self})"


ZERO_ADDRESS = Address(bytes(21))
"""Stands for "none"; never a valid identity."""


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _checksum_case(lower: str, digest: bytes) -> str:
    """Capitalise letter i of `lower` where nibble i of `digest` is 8 or more (EIP-55 rule)."""
    nibbles = digest.hex()
    return "".join(
        character.upper() if nibble >= "8" else character for character, nibble in zip(lower, nibbles, strict=False)
    )


def _parse_native(text: str) -> bytes:
    lower = text.lower()
    if text not in (lower, _checksum_case(lower, hashlib.sha256(lower.encode("ascii")).digest())):
        raise InvalidAddress(f"checksum capitals do not match in {_shorten(text)}; check for a typing error")
    raw = bytes.fromhex(lower)
    if raw[0] not in _NATIVE_VERSIONS:
        raise InvalidAddress(f"address version {raw[0]:#x} is outside 0xa0 to 0xaf in {_shorten(text)}")
    return raw


def _parse_ethereum(text: str) -> bytes:
    body = text[2:]
    if len(text) != 42 or text[:2] not in ("0x", "0X") or not _HEX_DIGITS.issuperset(body):
        raise InvalidAddress(f"not an Ethereum address: {_shorten(text)}")
    lower = body.lower()
    if body not in (lower, _checksum_case(lower, keccak256(lower.encode("ascii")))):
        raise InvalidAddress(f"checksum capitals do not match in {_shorten(text)}; check for a typing error")
    return b"\xa3" + bytes.fromhex(lower)


def _looks_paralism(text: str) -> bool:
    if text[:3].lower() in ("bc1", "pr1"):
        return True
    return 26 <= len(text) <= 35 and text[0] == "1"


def _parse_paralism(text: str) -> bytes:
    if not _looks_paralism(text):
        raise InvalidAddress(f"not a Paralism address: {_shorten(text)}")
    try:
        payload = base58check_decode(text) if text[0] == "1" else _bech32_payload(text)
    except ValueError as error:
        raise InvalidAddress(f"not a Paralism address: {_shorten(text)}: {error}") from None
    if len(payload) != 21 or payload[0] != 0:
        raise InvalidAddress(f"not a Paralism address: {_shorten(text)}: expected 0x00 and 20 bytes of hash")
    return b"\xa2" + payload[1:]


def _bech32_payload(text: str) -> bytes:
    if len(text) == 42:
        # Version as a group of its own and 160 bits: what Bitcoin calls P2WPKH. A2AL regroups 168 bits.
        raise ValueError("this is a Bitcoin P2WPKH address; A2AL writes such addresses with 43 characters")
    prefix, payload = bech32_decode(text)
    if prefix not in ("bc", "pr"):
        raise ValueError("the prefix is neither bc nor pr")
    return payload
