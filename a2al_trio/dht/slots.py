"""Which records compete for one place under a key, and who leaves when a key is full (spec 03 §11.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from a2al_trio.dht.config import StoreLimits
from a2al_trio.wire.records import RecordCategory, RecordType, SignedRecord, record_category

__all__ = ["Held", "category_of", "slot_of", "surplus"]


@attrs.define(eq=False)
class Held:
    """A record in the store. `source` is the network it came from, empty for our own; `until` when it goes, in
    Unix seconds; `refreshed_at` when it last arrived; `pinned` marks records we publish ourselves.
    """

    record: SignedRecord
    key: bytes
    source: bytes
    until: int
    refreshed_at: float
    pinned: bool = False
    alive: bool = True
    lasting: int | None = None
    """Until when it may stay if its publisher is heard of in time; None for records that need no such word."""
    queued: bool = False
    """Whether a holder's renewal of it is due some time."""


def category_of(record_type: int) -> RecordCategory:
    """The category for storage: unknown types count as sovereign."""
    category = record_category(record_type)
    return RecordCategory.SOVEREIGN if category is RecordCategory.UNKNOWN else category


def slot_of(record: SignedRecord) -> tuple[object, ...]:
    """Records of equal slots under a key replace one another."""
    match category_of(record.record_type):
        case RecordCategory.TOPIC:
            return (RecordCategory.TOPIC, record.public_key)
        case RecordCategory.MAILBOX:
            return (RecordCategory.MAILBOX, record.public_key, record.payload, record.record_type)
        case _:
            return (RecordCategory.SOVEREIGN, record.address, record.record_type)


def _oldest(held: Iterable[Held]) -> Held:
    return min(held, key=lambda each: each.record.timestamp)


def _from_heaviest_source(held: Sequence[Held]) -> list[Held]:
    """Those from the network that holds most of them: a flood crowds out only itself.

    Timestamps are the sender's own choice, so they may not decide between networks (spec 03 §20.17).
    """
    counts = Counter(each.source for each in held if not each.pinned)
    if not counts:
        return list(held)
    most = max(counts.values())
    heaviest = {source for source, count in counts.items() if count == most}
    if most == 1:
        return [each for each in held if not each.pinned]
    return [each for each in held if each.source in heaviest and not each.pinned]


def surplus(records: Sequence[Held], newcomer: Held, limits: StoreLimits) -> list[Held]:
    """Who must leave a key after `newcomer` was appended; it may be the newcomer itself."""
    category = category_of(newcomer.record.record_type)
    same = [held for held in records if category_of(held.record.record_type) is category]
    leaving: list[Held] = []
    if category is RecordCategory.SOVEREIGN:
        if len(same) > limits.sovereign_per_key:
            others = [held for held in same if held.record.record_type != RecordType.ENDPOINT]
            leaving.append(others[0] if others else _oldest(same))
    elif category is RecordCategory.TOPIC:
        if len(same) > limits.topic_per_key:
            leaving.append(_oldest(_from_heaviest_source(same)))
    else:
        sender = newcomer.record.public_key
        own = [held for held in same if held.record.public_key == sender]
        if len(own) > limits.mailbox_per_sender:
            leaving.append(_oldest(own))
        elif len(same) > limits.mailbox_per_key:
            leaving.append(_oldest(_from_heaviest_source(same)))
    return leaving
