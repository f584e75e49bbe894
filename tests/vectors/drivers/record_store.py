"""record_store.json: puts and reads run in order on one store per scenario."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from a2al_trio.dht.config import StoreLimits
from a2al_trio.dht.store import RecordStore, StaleRecord, standard_authority
from a2al_trio.errors import DecodeError
from a2al_trio.identity import NodeId, ed25519
from a2al_trio.wire.records import SignedRecord, decode_record
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree, unhex

REFUSALS = (DecodeError, StaleRecord)
NEVER = 2**40
REFERENCE = StoreLimits(
    max_bytes=2**40,
    per_source_bytes=2**40,
    per_publisher_bytes=2**40,
    retention_sovereign=NEVER,
    retention_topic=NEVER,
    retention_mailbox=NEVER,
    clock_tolerance=0,
    bind_content_to_key=False,
)
"""The reference's rules: its caps per key, no quotas, no clock tolerance, topics and mail under any key."""


def cases(document: Document) -> Iterator[Case]:
    """One case per step."""
    for scenario in document["scenarios"]:
        records = [decode_record(bytes.fromhex(text)) for text in scenario["records_cbor"]]
        store = RecordStore(
            REFERENCE,
            verify=ed25519.verify,
            authority=standard_authority(0) if scenario["authority_policy"] else None,
        )
        for number, step in enumerate(scenario["steps"]):
            last = step is scenario["steps"][-1]
            at_end = scenario["key_count_at_end"] if last else None
            run = partial(_run, store, records, step, at_end)
            yield Case("scenarios", f"{scenario['name']} step {number} {step['op']}", run)


def _run(
    store: RecordStore, records: Sequence[SignedRecord], step: Mapping[str, Any], at_end: int | None
) -> Iterable[Deviation]:
    deviations = STEPS[step["op"]](store, records, step)
    if at_end is not None:
        assert len(store) == at_end
    return deviations


def _put(store: RecordStore, records: Sequence[SignedRecord], step: Mapping[str, Any]) -> Iterable[Deviation]:
    key = unhex(step["key"])
    record = records[step["record"]]
    outcome = agree(
        step,
        lambda: store.put(record, step["now"], key=None if key is None else NodeId(key)),
        refusals=REFUSALS,
    )
    return outcome.deviations


def _get_all(store: RecordStore, records: Sequence[SignedRecord], step: Mapping[str, Any]) -> Iterable[Deviation]:
    found = store.get(bytes.fromhex(step["key"]), step["now"], step["rec_type"])
    assert [records.index(record) for record in found] == step["records"]
    return ()


def _get_endpoint(store: RecordStore, records: Sequence[SignedRecord], step: Mapping[str, Any]) -> Iterable[Deviation]:
    found = store.endpoint(bytes.fromhex(step["key"]), step["now"])
    assert (None if found is None else records.index(found)) == step["record"]
    return ()


STEPS: dict[str, Callable[[RecordStore, Sequence[SignedRecord], Mapping[str, Any]], Iterable[Deviation]]] = {
    "put": _put,
    "get_all": _get_all,
    "get_endpoint": _get_endpoint,
}
