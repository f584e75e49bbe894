"""The text a chain key's owner signs to delegate: its exact template and the lenient reader (spec 01 §6.5, §6.6)."""

from __future__ import annotations

import attrs

from a2al_trio.identity.address import UNICODE_WHITESPACE, Address, AddressVersion
from a2al_trio.identity.errors import InvalidAddress, InvalidDelegation

__all__ = ["Statement", "compose_statement", "parse_statement"]

_CHAIN_NAMES = {AddressVersion.ETHEREUM: "Ethereum", AddressVersion.PARALISM: "Paralism"}
_FIELDS = frozenset(("op_key", "agent", "scope", "issued_at", "expires_at"))
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_MAX_U8 = 2**8 - 1
_MAX_U64 = 2**64 - 1


@attrs.frozen
class Statement:
    """What a signed text says. A key or agent that does not read is None, which matches no proof."""

    operational_key: bytes | None
    agent: Address | None
    scope: int
    issued_at: int
    expires_at: int


def compose_statement(agent: Address, operational_key: bytes, *, scope: int, issued_at: int, expires_at: int) -> str:
    """The text for a wallet to sign, byte for byte as the protocol has it.

    Raises `InvalidDelegation` when `agent` is not an address of a chain key.
    """
    chain = _CHAIN_NAMES.get(AddressVersion(agent.version)) if agent.authenticable else None
    if chain is None:
        raise InvalidDelegation(f"{agent} is not the address of an Ethereum or Paralism key")
    return (
        "A2AL Delegation Authorization\n"
        f"Authorize this Ed25519 key to operate on behalf of your {chain} address.\n"
        "\n"
        f"op_key:{operational_key.hex()}\n"
        f"agent:{agent}\n"
        f"scope:{scope}\n"
        f"issued_at:{issued_at}\n"
        f"expires_at:{expires_at}\n"
    )


def parse_statement(text: str) -> Statement:
    """Read the five `name:value` lines of a signed text, wherever they stand; the last of a name wins.

    Raises `InvalidDelegation` for a bad number or a missing field.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, separator, value = line.partition(":")
        name = name.strip(UNICODE_WHITESPACE)
        value = value.strip(UNICODE_WHITESPACE)
        if not separator or name not in _FIELDS:
            continue
        if name == "scope":
            _parse_number(name, value, _MAX_U8)
        elif name in ("issued_at", "expires_at"):
            _parse_number(name, value, _MAX_U64)
        found[name] = value
    missing = _FIELDS - found.keys()
    if missing:
        raise InvalidDelegation(f"the signed text lacks {', '.join(sorted(missing))}")
    return Statement(
        operational_key=_parse_key(found["op_key"]),
        agent=_parse_agent(found["agent"]),
        scope=_parse_number("scope", found["scope"], _MAX_U8),
        issued_at=_parse_number("issued_at", found["issued_at"], _MAX_U64),
        expires_at=_parse_number("expires_at", found["expires_at"], _MAX_U64),
    )


def _parse_number(name: str, value: str, maximum: int) -> int:
    digits = value.lstrip("0")
    # The length is looked at first: `int` refuses, or takes long over, thousands of digits.
    if not value.isascii() or not value.isdigit() or len(digits) > 20 or int(value[-20:]) > maximum:
        raise InvalidDelegation(f"{name} of the signed text is not a number in range")
    return int(value[-20:])


def _parse_key(value: str) -> bytes | None:
    digits = value.removeprefix("0x").removeprefix("0X")
    if len(digits) != 64 or not _HEX_DIGITS.issuperset(digits):
        return None
    return bytes.fromhex(digits)


def _parse_agent(value: str) -> Address | None:
    try:
        return Address.parse(value)
    except InvalidAddress:
        return None
