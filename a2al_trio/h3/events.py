"""What the HTTP/3 core tells its driver."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from a2al_trio.h3.fields import Field, RequestHead, ResponseHead

__all__ = [
    "ConnectionEvent",
    "GoAway",
    "Head",
    "MessageData",
    "MessageEnd",
    "RequestEvent",
    "SettingsReceived",
    "Trailers",
    "Unblocked",
    "Unwanted",
]


@attrs.frozen
class Head:
    """A message begins; several may come in a response, all but the last interim."""

    head: RequestHead | ResponseHead


@attrs.frozen
class MessageData:
    """A piece of the content, not empty."""

    data: bytes


@attrs.frozen
class Trailers:
    """Fields behind the content."""

    fields: tuple[Field, ...]


@attrs.frozen
class MessageEnd:
    """The message is complete."""


@attrs.frozen
class SettingsReceived:
    """The peer's settings, known ones and others."""

    settings: dict[int, int]


@attrs.frozen
class GoAway:
    """The peer takes no requests from `identifier` on (RFC 9114 §5.2); from a client it is a push ID."""

    identifier: int


@attrs.frozen
class Unblocked:
    """A request stream waits for the dynamic table no more: call `receive_request` with no bytes to go on."""

    stream_id: int


@attrs.frozen
class Unwanted:
    """A unidirectional stream is of a type we do not know: stop it with STREAM_CREATION_ERROR (RFC 9114 §6.2)."""

    stream_id: int


RequestEvent: TypeAlias = Head | MessageData | Trailers | MessageEnd
ConnectionEvent: TypeAlias = SettingsReceived | GoAway | Unblocked | Unwanted
