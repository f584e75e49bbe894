"""signaling.json: room names, hub URLs, frames both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from a2al_trio.errors import ConfigurationError
from a2al_trio.signaling.frames import SUBPROTOCOL, Frame, decode_frame, encode_frame
from a2al_trio.signaling.room import room_id
from a2al_trio.signaling.urls import (
    caller_url,
    hub_from_bootstrap,
    relay_url,
    subscribe_url,
    with_query,
    with_room,
)
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree

URL_FUNCTIONS: dict[str, Callable[..., str]] = {
    "ice_relay_url": relay_url,
    "subscribe_url": subscribe_url,
    "append_room_query": lambda url, room: with_query(url, "room", room),
    "append_query": with_query,
    "append_room_to_ice_url": with_room,
    "caller_dial_url": lambda base, local, remote: caller_url(base, local=local, remote=remote),
    "derive_signal_base": hub_from_bootstrap,
}
KEYS = {
    "t": "type",
    "u": "ufrag",
    "p": "pwd",
    "c": "candidate",
    "a": "agent",
    "s": "signature",
    "r": "room",
    "f": "caller",
    "g": "target",
}


def frame_of(fields: dict[str, str]) -> Frame:
    return Frame(**{KEYS[key]: text for key, text in fields.items()})  # type: ignore[arg-type]


def check_room(item: dict[str, Any]) -> Iterable[Deviation]:
    assert room_id(item["a"], item["b"]) == item["room"]
    return ()


def check_url(item: dict[str, Any]) -> Iterable[Deviation]:
    found = agree(
        item,
        lambda: URL_FUNCTIONS[item["function"]](item["url"], *item["args"]),
        refusals=ConfigurationError,
    )
    if found.accepted:
        assert found.value == item["result"]
    return found.deviations


def check_encode(item: dict[str, Any]) -> Iterable[Deviation]:
    assert encode_frame(frame_of(item["frame"])).hex() == item["cbor"]
    return ()


def check_decode(item: dict[str, Any]) -> Iterable[Deviation]:
    found = agree(item, lambda: decode_frame(bytes.fromhex(item["cbor"])))
    if found.accepted:
        assert found.value == frame_of(item["frame"])
    return found.deviations


SECTIONS = {
    "room_id": check_room,
    "url": check_url,
    "frame_encode": check_encode,
    "frame_decode": check_decode,
}


def cases(document: Document) -> Iterator[Case]:
    assert document["subprotocol"] == SUBPROTOCOL
    for section, check in SECTIONS.items():
        for index, item in enumerate(document[section]):
            label = f"{item.get('name', item.get('function', section))} {index}"
            yield Case(section, label, lambda item=item, check=check: check(item))  # type: ignore[misc]
