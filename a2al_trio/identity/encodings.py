"""Text encodings of the Paralism address form: bech32, bech32m and Base58Check (spec 01 §2.4).

These are the plain encodings with their checksums; what the decoded bytes must look like is up to the caller.
Every decoder raises `ValueError` with the detail.
"""

from __future__ import annotations

import hashlib

__all__ = ["base58check_decode", "bech32_decode", "bech32_encode"]

_BECH32_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES = {character: value for value, character in enumerate(_BECH32_ALPHABET)}
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANT = 1
_BECH32M_CONSTANT = 0x2BC830A3
_CHECKSUM_GROUPS = 6

_BASE58_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUES = {character: value for value, character in enumerate(_BASE58_ALPHABET)}


def _polymod(groups: list[int]) -> int:
    """BCH checksum state over 5-bit groups (BIP-173)."""
    state = 1
    for group in groups:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ group
        for bit, generator in enumerate(_BECH32_GENERATORS):
            if top >> bit & 1:
                state ^= generator
    return state


def _expand_prefix(prefix: str) -> list[int]:
    codes = prefix.encode("ascii")
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def bech32_encode(prefix: str, data: bytes) -> str:
    """Lower-case bech32 text of `data`, regrouped to 5 bits as one block with zero padding."""
    bits = len(data) * 8
    padding = -bits % 5
    number = int.from_bytes(data, "big") << padding
    count = (bits + padding) // 5
    groups = [number >> 5 * (count - 1 - index) & 31 for index in range(count)]
    checked = _expand_prefix(prefix) + groups + [0] * _CHECKSUM_GROUPS
    checksum = _polymod(checked) ^ _BECH32_CONSTANT
    groups += [checksum >> 5 * (_CHECKSUM_GROUPS - 1 - index) & 31 for index in range(_CHECKSUM_GROUPS)]
    return prefix + "1" + "".join(_BECH32_ALPHABET[group] for group in groups)


def bech32_decode(text: str) -> tuple[str, bytes]:
    """Prefix and whole bytes of a bech32 or bech32m text of 8 to 90 characters.

    Left-over bits must be at most 4 and zero. The prefix comes back in lower case.
    """
    if not 8 <= len(text) <= 90:
        raise ValueError("bech32 text must have 8 to 90 characters")
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("character outside the bech32 range")
    if text not in (text.lower(), text.upper()):
        raise ValueError("bech32 text must not mix upper and lower case")
    prefix, separator, payload = text.lower().rpartition("1")
    if not separator or not prefix or len(payload) < _CHECKSUM_GROUPS:
        raise ValueError("bech32 prefix or checksum is missing")
    try:
        groups = [_BECH32_VALUES[character] for character in payload]
    except KeyError:
        raise ValueError("character outside the bech32 alphabet") from None
    if _polymod(_expand_prefix(prefix) + groups) not in (_BECH32_CONSTANT, _BECH32M_CONSTANT):
        raise ValueError("bech32 checksum does not match")
    groups = groups[:-_CHECKSUM_GROUPS]
    number = 0
    for group in groups:
        number = number << 5 | group
    size, rest = divmod(len(groups) * 5, 8)
    if rest > 4 or number & (1 << rest) - 1:
        raise ValueError("incomplete group of bits at the end of the bech32 data")
    return prefix, (number >> rest).to_bytes(size, "big")


def base58check_decode(text: str) -> bytes:
    """Payload of a Base58Check text (version byte included, checksum removed)."""
    number = 0
    for character in text:
        value = _BASE58_VALUES.get(character)
        if value is None:
            raise ValueError("character outside the Base58 alphabet")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    payload, checksum = raw[:-4], raw[-4:]
    if len(raw) < 5 or hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4] != checksum:
        raise ValueError("Base58 checksum does not match")
    return payload
