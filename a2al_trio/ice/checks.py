"""Connectivity checks: their bytes (RFC 8445 §7) and their retransmission.

A check is one STUN transaction. It is repeated faster than RFC 8489 would: hole punching needs the first packets of
both sides to cross soon, and the reference node spends its whole budget for a pair within 1.4 s (spec 06 §13.2).
"""

from __future__ import annotations

from typing import Final

import attrs

from a2al_trio.ice.pairs import Pair
from a2al_trio.ice.stun import (
    Attribute,
    Attributes,
    StunClass,
    StunMessage,
    StunMethod,
    encode_error,
    encode_stun,
    encode_xor_address,
)
from a2al_trio.net.address import SocketAddress

__all__ = [
    "RETRANSMIT_GAPS",
    "Check",
    "CheckTable",
    "Credentials",
    "encode_check",
    "encode_failure",
    "encode_success",
]

RETRANSMIT_GAPS: Final = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.4, 0.8, 1.6, 1.6)
"""Seconds between the sends of one check; after the last it fails. About 5.5 s in all, eight sends in the first one."""

_ANSWER_LIFE: Final = 8.0
_MAX_CHECKS: Final = 512


@attrs.frozen
class Credentials:
    """The short-term credentials of one side (RFC 8445 §5.3)."""

    ufrag: str
    pwd: str = attrs.field(repr=False)


@attrs.define(eq=False)
class Check:
    """One transaction. `repeats` counts the sends after the first; a consent check is never repeated."""

    pair: Pair
    transaction_id: bytes
    data: bytes = attrs.field(repr=False)
    controlling: bool
    nominating: bool
    consent: bool
    sent_at: float
    repeats: int = 0
    next_at: float | None = None


def encode_check(
    transaction_id: bytes,
    *,
    local: Credentials,
    remote: Credentials,
    controlling: bool,
    tie_breaker: bytes,
    priority: int,
    nominate: bool,
) -> bytes:
    """Return a check, its attributes in the order the reference uses (spec 06 §12)."""
    attributes: list[tuple[int, bytes]] = [(Attribute.USERNAME, f"{remote.ufrag}:{local.ufrag}".encode())]
    if nominate:
        attributes.append((Attribute.USE_CANDIDATE, b""))
    attributes += [
        (Attribute.ICE_CONTROLLING if controlling else Attribute.ICE_CONTROLLED, tie_breaker),
        (Attribute.PRIORITY, priority.to_bytes(4, "big")),
    ]
    return encode_stun(StunClass.REQUEST, StunMethod.BINDING, transaction_id, attributes, key=remote.pwd.encode())


def encode_success(request: StunMessage, source: SocketAddress, local: Credentials) -> bytes:
    """Return the answer to a check that came from `source`."""
    mapped = encode_xor_address(source, request.transaction_id)
    return _answer(StunClass.SUCCESS, request, [(Attribute.XOR_MAPPED_ADDRESS, mapped)], local)


def encode_failure(
    request: StunMessage, code: int, reason: str, local: Credentials, attributes: Attributes = ()
) -> bytes:
    """Return an error answer to an authenticated check."""
    return _answer(StunClass.ERROR, request, [encode_error(code, reason), *attributes], local)


def _answer(kind: StunClass, request: StunMessage, attributes: Attributes, local: Credentials) -> bytes:
    return encode_stun(kind, StunMethod.BINDING, request.transaction_id, attributes, key=local.pwd.encode())


class CheckTable:
    """The checks under way, and for a while those given up, since a late answer still counts."""

    def __init__(self) -> None:
        self._checks: dict[bytes, Check] = {}

    def add(self, check: Check) -> None:
        """Remember a check that was just sent for the first time."""
        if len(self._checks) >= _MAX_CHECKS:
            del self._checks[next(iter(self._checks))]
        check.next_at = check.sent_at + (_ANSWER_LIFE if check.consent else RETRANSMIT_GAPS[0])
        self._checks[check.transaction_id] = check

    def take(self, transaction_id: bytes) -> Check | None:
        """Take the check an answer is for."""
        return self._checks.pop(transaction_id, None)

    def peek(self, transaction_id: bytes) -> Check | None:
        """Look at the check an answer claims to be for."""
        return self._checks.get(transaction_id)

    def cancel(self, pair: Pair | None = None) -> None:
        """Stop repeating all checks, or the ordinary ones of one pair; their answers still count."""
        for check in self._checks.values():
            if (pair is None or (check.pair is pair and not check.nominating)) and not check.consent:
                check.repeats = len(RETRANSMIT_GAPS) + 1

    def next_at(self) -> float | None:
        """When `due` has something to do."""
        return min((check.next_at for check in self._checks.values() if check.next_at is not None), default=None)

    def due(self, now: float) -> tuple[list[Check], list[Check]]:
        """Return the checks to repeat now, and those that have just failed."""
        repeat, failed = [], []
        for check in list(self._checks.values()):
            if check.next_at is None or check.next_at > now:
                continue
            if now >= check.sent_at + _ANSWER_LIFE or check.consent:
                del self._checks[check.transaction_id]
                continue
            check.repeats += 1
            if check.repeats < len(RETRANSMIT_GAPS):
                repeat.append(check)
                check.next_at = now + RETRANSMIT_GAPS[check.repeats]
                continue
            if check.repeats == len(RETRANSMIT_GAPS):
                failed.append(check)
            check.next_at = check.sent_at + _ANSWER_LIFE
        return repeat, failed
