"""Topic keys, topic and profile payloads, and the topic filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from a2al_trio.wire import (
    InvalidRecord,
    PayloadTooLarge,
    ProfilePayload,
    TopicPayload,
    decode_payload,
    filter_topics,
    topic_key,
)
from a2al_trio.wire.payloads import PROFILE_PAYLOAD_ADVICE
from tests.vectors.canonical import is_canonical
from tests.vectors.deviations import NOT_CANONICAL, Deviation
from tests.vectors.harness import Case, Document, agree, unhex

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["topic_key"]:
        yield Case("topic_key", case["topic"], partial(key, case))
    for case in document["topic_payload"]:
        yield Case("topic_payload", case["name"], partial(topic_payload, case))
    for case in document["filter"]:
        yield Case("filter", str(case["filter_protocols"]), partial(filter_, case))
    for case in document["profile_payload"]:
        yield Case("profile_payload", case["name"], partial(profile_payload, case))
    for case in document["profile_parse"]:
        yield Case("profile_parse", case["name"], partial(profile_parse, case))


def texts(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def meta_of(case: Json) -> Json | None:
    """The meta of a case; all its numbers are floats (see the vectors' README)."""
    return json.loads(case["meta_json"], parse_int=float) if case["meta_json"] else None


def shown_meta(meta: Any) -> Any:
    """Meta as the files show it, byte strings as a map, with all numbers as floats."""
    match meta:
        case bool():
            return meta
        case int():
            return float(meta)
        case dict():
            return {name: shown_meta(item) for name, item in meta.items()} or None
        case list():
            return [shown_meta(item) for item in meta]
        case bytes():
            return {"$bytes": meta.hex()}
    return meta


def key(case: Json) -> tuple[Deviation, ...]:
    assert topic_key(case["topic"]).hex() == case["node_id"]
    return ()


def topic_of(fields: Json, meta: Any) -> TopicPayload:
    return TopicPayload(
        topic=fields["topic"],
        name=fields["name"],
        protocols=texts(fields["protocols"]),
        tags=texts(fields["tags"]),
        brief=fields["brief"],
        meta=meta,
        version=fields["version"],
    )


def topic_payload(case: Json) -> tuple[Deviation, ...]:
    payload = topic_of(case["payload"], meta_of(case))
    judged = agree(case, payload.encode, refusals=PayloadTooLarge)
    if not judged.accepted or judged.value is None:
        return judged.deviations
    assert judged.value.hex() == case["payload_cbor"]
    read = agree(case["parsed"], partial(TopicPayload.decode, judged.value), refusals=InvalidRecord)
    if read.accepted and read.value is not None:
        expected = case["parsed"]["payload"]
        assert shown_meta(read.value.meta) == shown_meta(expected["meta"])
        assert read.value == topic_of(expected, read.value.meta)
    return read.deviations


def filter_(case: Json) -> tuple[Deviation, ...]:
    entries = [
        TopicPayload(str(index), protocols=texts(entry["protocols"]), tags=texts(entry["tags"]))
        for index, entry in enumerate(case["entries"])
    ]
    kept = filter_topics(entries, protocols=case["filter_protocols"] or (), tags=case["filter_tags"] or ())
    assert [int(entry.topic) for entry in kept] == case["kept_indexes"]
    return ()


def profile_of(fields: Json, meta: Any) -> ProfilePayload:
    return ProfilePayload(
        name=fields["name"],
        brief=fields["brief"],
        protocols=tuple(fields["protocols"] or ()),
        skills=tuple(fields["skills"] or ()),
        card_hash=unhex(fields["card_hash"]) or b"",
        modalities=tuple(fields["modalities"] or ()),
        meta=meta,
        version=fields["version"],
    )


def profile_payload(case: Json) -> tuple[Deviation, ...]:
    payload = profile_of(case["payload"], meta_of(case))
    is_advice = case["error_class"] == "payload_approaching_limit"  # the bytes come all the same
    judged = agree({"ok": True} if is_advice else case, payload.encode, refusals=PayloadTooLarge)
    if judged.accepted and judged.value is not None:
        assert judged.value.hex() == case["payload_cbor"]
        assert (len(judged.value) > PROFILE_PAYLOAD_ADVICE) == is_advice
    return judged.deviations


def profile_parse(case: Json) -> tuple[Deviation, ...]:
    data = bytes.fromhex(case["payload_cbor"])
    judged = agree(
        case,
        partial(decode_payload, ProfilePayload, case["rec_type"], data),
        refusals=InvalidRecord,
        excuse=lambda: None if is_canonical(data) else NOT_CANONICAL,
    )
    if judged.accepted and judged.value is not None:
        assert shown_meta(judged.value.meta) == shown_meta(case["payload"]["meta"])
        assert judged.value == profile_of(case["payload"], judged.value.meta)
    return judged.deviations
