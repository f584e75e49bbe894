"""Records gathered from answers: checked, filtered, the newest of each kept (spec 03 §9, §20.22)."""

from __future__ import annotations

from a2al_trio.dht.environment import Environment
from a2al_trio.dht.slots import category_of
from a2al_trio.dht.store import Authority, KeyMismatch
from a2al_trio.identity.address import NodeId
from a2al_trio.wire.content import check_content_key
from a2al_trio.wire.errors import WireDecodeError
from a2al_trio.wire.records import (
    RecordCategory,
    SignedRecord,
    check_record,
    is_newer,
)

__all__ = ["Collection", "is_good"]

LIMIT = 512


class Collection:
    """What a value search has found under `key`. A signature is checked once, however many nodes give the record."""

    def __init__(self, env: Environment, key: NodeId, record_type: int, *, authority: Authority) -> None:
        self._env = env
        self._key = key
        self._record_type = record_type
        self._authority = authority
        self._seen: dict[bytes, SignedRecord | None] = {}
        self._newest: dict[tuple[object, ...], SignedRecord] = {}
        self.invalid = 0

    def __len__(self) -> int:
        return len(self._newest)

    def add(self, record: SignedRecord, *, trusted: bool = False) -> bool:
        """Take a record if it is good and belongs here; returns whether it says something new.

        A `trusted` one comes from our own store, where it was checked already.
        """
        if self._record_type not in {0, record.record_type}:
            return False
        known = self._seen.get(record.encoded, self)
        if known is not self:
            return False
        if len(self._seen) >= LIMIT:
            return False
        good = trusted or is_good(self._env, record, self._key, self._authority)
        self._seen[record.encoded] = record if good else None
        if not good:
            self.invalid += 1
            return False
        slot = self._slot(record)
        held = self._newest.get(slot)
        if held is not None and not is_newer(record, held):
            return False
        self._newest[slot] = record
        return True

    @staticmethod
    def _slot(record: SignedRecord) -> tuple[object, ...]:
        match category_of(record.record_type):
            case RecordCategory.TOPIC:
                return (record.record_type, record.public_key)
            case RecordCategory.MAILBOX:
                return (record.record_type, record.public_key, record.payload)
            case _:
                return (record.record_type, record.address)

    def records(self) -> list[SignedRecord]:
        """The newest of each, in the order first found."""
        return list(self._newest.values())


def is_good(env: Environment, record: SignedRecord, key: NodeId, authority: Authority) -> bool:
    """Whether a record is intact, valid now, signed by who may sign it, and belongs under the key."""
    now, tolerance = env.unix_seconds(), env.config.store.clock_tolerance
    try:
        check_record(record, now=now, tolerance=tolerance, verify=env.verify)
        if category_of(record.record_type) is RecordCategory.SOVEREIGN and key != record.address.node_id:
            raise KeyMismatch("a sovereign record under a foreign key")
        authority(record, key, now)
        check_content_key(record, key)
    except WireDecodeError:
        return False
    return True
