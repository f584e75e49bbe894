"""Every kind of case where this package differs from the reference on purpose, with the reason.

A driver decides by a property of the case itself (its bytes, or its `weakness_` name), never by its place in a file,
so another directory with other cases of the same kinds is judged alike. Any difference not named here fails.
"""

from __future__ import annotations

import enum

import attrs

__all__ = [
    "DEVIATIONS",
    "EXTRA_SIGNED_KEYS",
    "FOREIGN_PUBLIC_HALF",
    "NOT_CANONICAL",
    "SMALL_ORDER_KEY",
    "UNSIGNED_EXTRA_KEYS",
    "UNVERIFIED_PEER_ADDRESS",
    "WEAKNESS",
    "Deviation",
    "Direction",
]


class Direction(enum.Enum):
    """Which of the two accepts less."""

    STRICTER = "refused here, accepted by the reference"
    LAXER = "accepted here, refused by the reference"


@attrs.frozen
class Deviation:
    """A named kind of difference and why it stands."""

    name: str
    direction: Direction
    reason: str


NOT_CANONICAL = Deviation(
    "not_canonical",
    Direction.STRICTER,
    "non-canonical, duplicate, tagged or incomplete input is refused: honest senders write the canonical form only, "
    "and then a signature over the bytes as received is a signature over their meaning (spec 02 §3, §5)",
)
EXTRA_SIGNED_KEYS = Deviation(
    "extra_signed_keys",
    Direction.LAXER,
    "a signature over the bytes as received counts, also when they hold keys or explicit zeros the reference would "
    "drop before checking: newer releases sign such keys (spec 02 §5 (a), spec 08 §2.1)",
)
UNSIGNED_EXTRA_KEYS = Deviation(
    "unsigned_extra_keys",
    Direction.STRICTER,
    "the other side of the same rule: keys added to a header or body after signing break the signature over the bytes "
    "as received, where the reference would drop them before checking (spec 02 §5 (a))",
)
WEAKNESS = Deviation(
    "weakness",
    Direction.STRICTER,
    "cases named weakness_ record what the reference accepts although it should not",
)
UNVERIFIED_PEER_ADDRESS = Deviation(
    "unverified_peer_address",
    Direction.STRICTER,
    "the address in a certificate's delegation extension counts only with a valid proof (spec 04 §17 D1 to D3)",
)
FOREIGN_PUBLIC_HALF = Deviation(
    "foreign_public_half",
    Direction.STRICTER,
    "a key file whose public half is not that of its seed is refused: signing under two public halves leaks the key "
    "(spec 01 §10.1)",
)
SMALL_ORDER_KEY = Deviation(
    "small_order_key",
    Direction.STRICTER,
    "an Ed25519 key of small order verifies forged signatures and belongs to nobody",
)

DEVIATIONS = (
    NOT_CANONICAL,
    EXTRA_SIGNED_KEYS,
    UNSIGNED_EXTRA_KEYS,
    WEAKNESS,
    UNVERIFIED_PEER_ADDRESS,
    FOREIGN_PUBLIC_HALF,
    SMALL_ORDER_KEY,
)
