"""What records carry: endpoints, topic registrations and agent profiles (spec 02 §10).

Encoders write the canonical form and hold the limits; decoders take any payload within them. A list that was null on
the wire is None where null and empty are written differently, else an empty tuple.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, Self, TypeVar

import attrs

from a2al_trio.cbor import CborDecodeError, CborKey, CborValue, Encodable, decode, encode
from a2al_trio.identity import NodeId
from a2al_trio.wire.errors import InvalidPayload, PayloadTooLarge, WireEncodeError

__all__ = [
    "MAX_BRIEF_CHARACTERS",
    "MAX_MAILBOX_PAYLOAD",
    "MAX_PROFILE_PAYLOAD",
    "MAX_TOPIC_PAYLOAD",
    "PROFILE_PAYLOAD_ADVICE",
    "EndpointPayload",
    "NatType",
    "ProfilePayload",
    "TopicPayload",
    "check_payload",
    "decode_payload",
    "filter_topics",
    "topic_key",
]

MAX_TOPIC_PAYLOAD: Final = 512
MAX_MAILBOX_PAYLOAD: Final = 512
MAX_PROFILE_PAYLOAD: Final = 700
PROFILE_PAYLOAD_ADVICE: Final = 350
"""Profiles over this many bytes are legal but may not fit an answer beside other records."""
MAX_BRIEF_CHARACTERS: Final = 140
_MAX_SIGNAL_BYTES = 2048
_MAX_SIGNALS = 8
_MAX_TURNS = 16
_MAX_TURN_BYTES = 512

Fields = Mapping[CborKey, CborValue]
Meta = Mapping[str, Encodable]


class NatType(enum.IntEnum):
    """What a publisher found out about its NAT (spec 02 §10.1; newer meaning in spec 08 §6.3)."""

    UNKNOWN = 0
    FULL_CONE = 1
    RESTRICTED = 2
    PORT_RESTRICTED = 3
    SYMMETRIC = 4


@attrs.frozen
class EndpointPayload:
    """Where an agent can be reached: payload of an endpoint record (spec 02 §10.1).

    `endpoints` are URLs `quic://host:port`, `signals` WebSocket base URLs of signaling hubs, preferred over the older
    single `signal`; `turns` are read from old records, not published.
    """

    record_type: ClassVar = 0x01
    endpoints: tuple[str, ...] | None = None
    nat_type: int = NatType.UNKNOWN
    signal: str = ""
    turns: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()

    @property
    def signal_urls(self) -> tuple[str, ...]:
        """All hubs in the order of preference."""
        return self.signals or ((self.signal,) if self.signal else ())

    def encode(self) -> bytes:
        """Canonical payload bytes. Raises WireEncodeError for what peers would refuse."""
        _check_number(self.nat_type, NatType.SYMMETRIC, "nat_type")
        if problem := self._over_limit():
            raise PayloadTooLarge(problem)
        fields: dict[CborKey, Encodable] = {1: self.endpoints, 2: self.nat_type}
        return encode(fields | _present({3: self.signal, 4: self.turns, 5: self.signals}))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises InvalidPayload."""
        fields = _fields(data)
        payload = cls(
            _texts_or_none(fields, 1), _uint8(fields, 2), _text(fields, 3), _texts(fields, 4), _texts(fields, 5)
        )
        if payload.nat_type > NatType.SYMMETRIC:
            raise InvalidPayload(f"nat_type {payload.nat_type}")
        if problem := payload._over_limit():
            raise InvalidPayload(problem)
        return payload

    def _over_limit(self) -> str | None:
        if len(self.signal.encode()) > _MAX_SIGNAL_BYTES or any(
            len(url.encode()) > _MAX_SIGNAL_BYTES for url in self.signals
        ):
            return f"a signaling URL has more than {_MAX_SIGNAL_BYTES} bytes"
        if len(self.signals) > _MAX_SIGNALS:
            return f"{len(self.signals)} signaling URLs, more than {_MAX_SIGNALS}"
        if len(self.turns) > _MAX_TURNS or any(len(url.encode()) > _MAX_TURN_BYTES for url in self.turns):
            return f"more than {_MAX_TURNS} TURN URLs, or one over {_MAX_TURN_BYTES} bytes"
        return None


@attrs.frozen
class TopicPayload:
    """A registration under a topic: payload of a topic record (spec 02 §10.3)."""

    record_type: ClassVar = 0x10
    topic: str
    name: str = ""
    protocols: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    brief: str = ""
    meta: Meta | None = None
    version: int = 1

    def encode(self) -> bytes:
        """Canonical payload bytes; version 0 is written as 1. Raises PayloadTooLarge or WireEncodeError."""
        _check_number(self.version, 0xFF, "version")
        if len(self.brief) > MAX_BRIEF_CHARACTERS:
            raise PayloadTooLarge(f"the brief has {len(self.brief)} characters, more than {MAX_BRIEF_CHARACTERS}")
        fields: dict[CborKey, Encodable] = {
            1: self.version or 1,
            2: self.topic,
            3: self.name,
            4: self.protocols,
            5: self.tags,
            6: self.brief,
        }
        data = encode(fields | _present({7: _encodable_meta(self.meta)}))
        if len(data) > MAX_TOPIC_PAYLOAD:
            raise PayloadTooLarge(f"the topic entry has {len(data)} bytes, more than {MAX_TOPIC_PAYLOAD}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises InvalidPayload."""
        if len(data) > MAX_TOPIC_PAYLOAD:
            raise InvalidPayload(f"a topic entry of {len(data)} bytes")
        fields = _fields(data)
        payload = cls(
            version=_uint8(fields, 1),
            topic=_text(fields, 2),
            name=_text(fields, 3),
            protocols=_texts_or_none(fields, 4),
            tags=_texts_or_none(fields, 5),
            brief=_text(fields, 6),
            meta=_meta(fields, 7),
        )
        if not payload.topic:
            raise InvalidPayload("an empty topic")
        if len(payload.brief) > MAX_BRIEF_CHARACTERS:
            raise InvalidPayload(f"a brief of {len(payload.brief)} characters")
        return payload


@attrs.frozen
class ProfilePayload:
    """What an agent says about itself: payload of a profile record (spec 02 §10.2)."""

    record_type: ClassVar = 0x02
    name: str = ""
    brief: str = ""
    protocols: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    card_hash: bytes = b""
    modalities: tuple[str, ...] = ()
    meta: Meta | None = None
    version: int = 1

    def encode(self) -> bytes:
        """Canonical payload bytes; version 0 is written as 1. Raises PayloadTooLarge or WireEncodeError.

        Keep them under `PROFILE_PAYLOAD_ADVICE` where possible.
        """
        _check_number(self.version, 0xFF, "version")
        fields: dict[CborKey, Encodable] = {1: self.version or 1}
        optional: dict[int, Encodable] = {
            2: self.name,
            3: self.brief,
            4: self.protocols,
            5: self.skills,
            6: self.card_hash,
            8: self.modalities,
            9: _encodable_meta(self.meta),
        }
        data = encode(fields | _present(optional))
        if len(data) > MAX_PROFILE_PAYLOAD:
            raise PayloadTooLarge(f"the profile has {len(data)} bytes, more than {MAX_PROFILE_PAYLOAD}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises InvalidPayload."""
        if len(data) > MAX_PROFILE_PAYLOAD:
            raise InvalidPayload(f"a profile of {len(data)} bytes")
        fields = _fields(data)
        card_hash = fields.get(6)
        if card_hash is not None and not isinstance(card_hash, bytes):
            raise InvalidPayload("card_hash is not a byte string")
        return cls(
            version=_uint8(fields, 1),
            name=_text(fields, 2),
            brief=_text(fields, 3),
            protocols=_texts(fields, 4),
            skills=_texts(fields, 5),
            card_hash=card_hash or b"",
            modalities=_texts(fields, 8),
            meta=_meta(fields, 9),
        )


def topic_key(topic: str) -> NodeId:
    """The DHT key of a topic; the text counts exactly as it is (spec 02 §10.4)."""
    return NodeId(hashlib.sha256(b"topic:" + topic.encode()).digest())


PayloadT = TypeVar("PayloadT", EndpointPayload, TopicPayload, ProfilePayload)


def decode_payload(kind: type[PayloadT], record_type: int, data: bytes) -> PayloadT:
    """Read a record's payload as `kind`; raises InvalidPayload, also if the record is of another type."""
    if record_type != kind.record_type:
        raise InvalidPayload(f"a record of type {record_type:#04x}, not {kind.record_type:#04x}")
    return kind.decode(data)


def check_payload(record_type: int, payload: bytes) -> None:
    """The checks a payload's record type asks of every holder (spec 02 §9.1 step 3). Raises InvalidPayload."""
    if record_type == EndpointPayload.record_type:
        EndpointPayload.decode(payload)
    elif record_type == TopicPayload.record_type:
        TopicPayload.decode(payload)
    elif 0x80 <= record_type <= 0x8F and len(payload) > MAX_MAILBOX_PAYLOAD:
        raise InvalidPayload(f"a mailbox payload of {len(payload)} bytes")


def filter_topics(
    entries: Iterable[TopicPayload], *, protocols: Sequence[str] = (), tags: Sequence[str] = ()
) -> list[TopicPayload]:
    """The entries that share at least one of `protocols` and have all of `tags`; empty lists ask for nothing."""
    return [
        entry
        for entry in entries
        if (not protocols or not set(protocols).isdisjoint(entry.protocols or ()))
        and set(tags).issubset(entry.tags or ())
    ]


def _check_number(number: int, limit: int, name: str) -> None:
    if not 0 <= number <= limit:
        raise WireEncodeError(f"{name} is 0 to {limit}, not {number}")


def _present(fields: Mapping[int, Encodable]) -> dict[CborKey, Encodable]:
    """The optional fields that are not empty; empty ones are never written (spec 02 §2 rule 8)."""
    return {key: value for key, value in fields.items() if value}


def _encodable_meta(meta: Meta | None) -> Encodable:
    if meta is None:
        return None
    for key in meta:
        if not isinstance(key, str):
            raise WireEncodeError(f"meta keys are texts, not {type(key).__name__}")
    return meta


def _fields(data: bytes) -> Fields:
    try:
        value = decode(data)
    except CborDecodeError as error:
        raise InvalidPayload(f"not a payload: {error}") from error
    if value is None:  # as good as an empty map (spec 02 §3)
        return {}
    if not isinstance(value, Mapping):
        raise InvalidPayload("a payload is a map")
    return value


def _uint8(fields: Fields, key: int) -> int:
    value = fields.get(key)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= 0xFF:
        raise InvalidPayload(f"field {key} is not an 8-bit number")
    return value


def _text(fields: Fields, key: int) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidPayload(f"field {key} is not a text")
    return value


def _texts_or_none(fields: Fields, key: int) -> tuple[str, ...] | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidPayload(f"field {key} is not a list of texts")
    texts = []
    for item in value:
        text = "" if item is None else item  # null stands for an empty text (spec 02 §3)
        if not isinstance(text, str):
            raise InvalidPayload(f"field {key} is not a list of texts")
        texts.append(text)
    return tuple(texts)


def _texts(fields: Fields, key: int) -> tuple[str, ...]:
    return _texts_or_none(fields, key) or ()


def _meta(fields: Fields, key: int) -> dict[str, CborValue] | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidPayload("meta is not a map")
    meta: dict[str, CborValue] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise InvalidPayload("meta has a key that is not a text")
        meta[name] = item
    return meta
