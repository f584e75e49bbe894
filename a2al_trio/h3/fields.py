"""Heads of requests and responses, and the rules their fields keep (RFC 9114 §4.2 and §4.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import attrs

from a2al_trio.errors import LocalProtocolError

__all__ = ["Field", "Malformed", "RequestHead", "ResponseHead", "check_fields", "content_length", "section_size"]

Field: TypeAlias = tuple[bytes, bytes]
"""Name, in lower case, and value."""

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"[^\x00\r\n]*")
STATUS = re.compile(rb"[1-9][0-9]{2}")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
LENGTH = re.compile(rb"[0-9]{1,18}")
CONNECTION_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})


class Malformed(Exception):
    """A field section breaks the rules (RFC 9114 §4.1.2); becomes H3Error or LocalProtocolError."""


def check_fields(fields: Iterable[Field]) -> None:
    """Raise Malformed unless these may be the regular fields or trailers of a message."""
    for name, value in fields:
        if not NAME.fullmatch(name):
            raise Malformed(f"{name!r} is no field name in lower case")
        if not VALUE.fullmatch(value) or value != value.strip(b" \t"):
            raise Malformed(f"the value of {name!r} holds a forbidden character")
        if name in CONNECTION_FIELDS or (name == b"te" and value != b"trailers"):
            raise Malformed(f"{name!r} has no meaning in HTTP/3")


def section_size(fields: Iterable[Field]) -> int:
    """Size of a field section as RFC 9114 §4.2.2 counts it."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def content_length(headers: Iterable[Field]) -> int | None:
    """The announced length of the content, None if there is none; raises Malformed."""
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return None
    if len(values) > 1 or not LENGTH.fullmatch(value := values.pop()):
        raise Malformed("content-length is no number")
    return int(value)


def _split(fields: Sequence[Field], known: frozenset[bytes]) -> tuple[dict[bytes, bytes], tuple[Field, ...]]:
    """Pseudo-header fields, which come first and once each, and the rest."""
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in known or name in pseudo or not VALUE.fullmatch(value):
            raise Malformed(f"pseudo-header field {name!r} is unknown, repeated or not allowed here")
        pseudo[name] = value
        count += 1
    rest = tuple(fields[count:])
    check_fields(rest)
    return pseudo, rest


def _as_tuple(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(fields)


@attrs.frozen(slots=False)  # made for every message, which is half as much work without slots
class RequestHead:
    """What a request begins with. `headers` has no pseudo-header fields; CONNECT has no scheme and no path.

    Extended CONNECT has both, and names in `protocol` what the stream is for, such as b"websocket" (RFC 9220).
    """

    method: bytes
    authority: bytes
    path: bytes = b"/"
    headers: tuple[Field, ...] = attrs.field(default=(), converter=_as_tuple)
    scheme: bytes = b"https"
    protocol: bytes = b""

    def fields(self) -> list[Field]:
        """The field section to send; raises LocalProtocolError if it would be malformed."""
        pseudo = [(b":method", self.method)]
        if self.protocol:
            pseudo.append((b":protocol", self.protocol))
        if self.method != b"CONNECT" or self.protocol:
            pseudo += [(b":scheme", self.scheme), (b":path", self.path)]
        if self.authority:
            pseudo.append((b":authority", self.authority))
        fields = [*pseudo, *self.headers]
        try:
            RequestHead.from_fields(fields)
        except Malformed as error:
            raise LocalProtocolError(f"the request is malformed: {error}") from error
        return fields

    @classmethod
    def from_fields(cls, fields: Sequence[Field]) -> RequestHead:
        """Read a received field section (RFC 9114 §4.3.1); raises Malformed."""
        pseudo, headers = _split(fields, REQUEST_PSEUDO)
        method, authority = pseudo.get(b":method", b""), pseudo.get(b":authority", b"")
        scheme, path = pseudo.get(b":scheme", b""), pseudo.get(b":path", b"")
        if not TOKEN.fullmatch(method):
            raise Malformed("the request has no method")
        protocol = pseudo.get(b":protocol", b"")
        if protocol and (method != b"CONNECT" or not TOKEN.fullmatch(protocol)):
            raise Malformed("a protocol is named by extended CONNECT only")
        if method == b"CONNECT" and not protocol:
            if scheme or path or not authority:
                raise Malformed("CONNECT has an authority, no scheme and no path")
            return cls(method, authority, b"", headers, b"")
        if not scheme or not path:
            raise Malformed("the request has no scheme or no path")
        hosts = {value for name, value in headers if name == b"host"}
        if len(hosts) > 1 or (authority and hosts and hosts != {authority}):
            raise Malformed("the request names several hosts")
        if not authority and not any(hosts):
            raise Malformed("the request names no host")
        if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS"):
            raise Malformed("the path is not absolute")
        content_length(headers)
        return cls(method, authority or next(iter(hosts)), path, headers, scheme, protocol)


@attrs.frozen(slots=False)  # made for every message, which is half as much work without slots
class ResponseHead:
    """What a response begins with; `status` below 200 is interim, another head follows it."""

    status: int
    headers: tuple[Field, ...] = attrs.field(default=(), converter=_as_tuple)

    def fields(self) -> list[Field]:
        """The field section to send; raises LocalProtocolError if it would be malformed."""
        fields = [(b":status", str(self.status).encode()), *self.headers]
        try:
            ResponseHead.from_fields(fields)
        except Malformed as error:
            raise LocalProtocolError(f"the response is malformed: {error}") from error
        return fields

    @classmethod
    def from_fields(cls, fields: Sequence[Field]) -> ResponseHead:
        """Read a received field section (RFC 9114 §4.3.2); raises Malformed."""
        pseudo, headers = _split(fields, frozenset({b":status"}))
        if not STATUS.fullmatch(status := pseudo.get(b":status", b"")) or status == b"101":
            raise Malformed("the response has no status that HTTP/3 knows")
        content_length(headers)
        return cls(int(status), headers)
