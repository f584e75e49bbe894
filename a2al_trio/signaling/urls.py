"""Hub addresses: from a base URL to the URLs that are dialled (spec 06 §3).

The path of a base is always replaced and its query kept; the scheme is lower-cased and everything else of the
authority kept as written, non-ASCII characters percent-encoded as UTF-8.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.signaling.room import room_id

__all__ = [
    "callee_url",
    "caller_url",
    "hub_authority",
    "hub_from_bootstrap",
    "relay_url",
    "subscribe_url",
    "with_query",
    "with_room",
]

_TLS_PORTS: Final = frozenset({443, 8443})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST = re.compile(r"(?:[^@]*@)?(?:\[[0-9A-Fa-f:.%A-Za-z]*\]|[^:\[\]]*)(?::[0-9]*)?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@attrs.frozen
class _Url:
    scheme: str
    authority: str
    path: str
    query: str
    fragment: str

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.authority}{self.path}"
        if self.query:
            text += "?" + self.query
        if self.fragment:
            text += "#" + self.fragment
        return text


def _split(text: str) -> _Url:
    match = _URL.fullmatch(text)
    if match is None or any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ConfigurationError(f"{text!r} is not a URL; a hub is given as ws://host:port or wss://host:port")
    scheme, authority, path, query, fragment = match.groups()
    if _HOST.fullmatch(authority) is None or _BAD_ESCAPE.search(authority + path) or " " in authority:
        raise ConfigurationError(f"{text!r} has a malformed host, port or path")
    authority = quote(authority, safe="!$&'()*+,;=:@[]%-._~<>\"")
    return _Url(scheme.lower(), authority, path, query or "", fragment or "")


def _hub_base(base: str) -> _Url:
    url = _split(base.strip())
    if url.scheme not in ("ws", "wss"):
        raise ConfigurationError(f"{base!r} is no hub: its scheme must be ws or wss")
    return url


def subscribe_url(base: str) -> str:
    """Return where a callee of the hub at `base` registers; raises `ConfigurationError` for a bad base."""
    return str(attrs.evolve(_hub_base(base), path="/signal", query=""))


def hub_authority(base: str) -> str:
    """Return `host:port` of a hub, as it stands in the Host header of those who dial it."""
    return _hub_base(base).authority.rpartition("@")[2]


def relay_url(base: str) -> str:
    """Return the URL of the hub's relay, yet without a room."""
    return str(attrs.evolve(_hub_base(base), path="/ice"))


def with_query(url: str, key: str, value: str) -> str:
    """Set one query parameter of any URL; keys come out sorted and form-encoded."""
    parts = _split(url)
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != key]
    pairs.append((key, value))
    pairs.sort(key=lambda pair: pair[0])  # stable: equal keys keep their order
    query = "&".join(f"{quote_plus(name)}={quote_plus(text)}" for name, text in pairs)
    return str(attrs.evolve(parts, query=query))


def with_room(base: str, room: str) -> str:
    """Return the relay URL of one room."""
    return with_query(relay_url(base), "room", room)


def callee_url(base: str, *, local: str, remote: str) -> str:
    """Return the URL with which agent `local` joins the room of a call from `remote`.

    Our own AID goes along as `callee`, which other hubs ignore: it lets ours tell two calls in opposite
    directions apart, which share a room (spec 06 D2, D8).
    """
    return with_query(with_room(base, room_id(local, remote)), "callee", local)


def caller_url(base: str, *, local: str, remote: str) -> str:
    """Return the URL with which agent `local` calls agent `remote`."""
    url = with_room(base, room_id(local, remote))
    return with_query(with_query(url, "target", remote), "caller", local)


def hub_from_bootstrap(endpoint: str) -> str:
    """Return the hub a bootstrap node `host:port` conventionally runs on the same port number.

    Raises `ConfigurationError` if the port is missing or the text is no endpoint.
    """
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):([+-]?[0-9]+)", endpoint)
    if match is None:
        raise ConfigurationError(f"{endpoint!r} is not host:port (an IPv6 host goes in brackets)")
    scheme = "wss" if int(match[2]) in _TLS_PORTS else "ws"
    return f"{scheme}://{endpoint}"
