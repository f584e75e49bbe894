"""STUN and TURN servers: their URIs (RFC 7064, RFC 7065, spec 06 §11.2) and TURN credentials (§11.3). Pure."""

from __future__ import annotations

import base64
import hmac
import json
import re
from typing import Final

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.ice.errors import RelayFailed

__all__ = [
    "HmacCredentials",
    "RestCredentials",
    "ServerAddress",
    "StaticCredentials",
    "TurnCredentials",
    "TurnServer",
    "decode_rest_answer",
    "parse_server",
]

REST_ANSWER_LIMIT: Final = 65_536
_HMAC_LIFE: Final = 3600
_URL = re.compile(
    r"(?P<scheme>stuns?|turns?):(?:(?P<user>[^@]*)@)?(?P<host>\[[^\[\]]+\]|[^:\[\]@?/]+)(?::(?P<port>\d{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE | re.ASCII,
)


@attrs.frozen
class StaticCredentials:
    """A user name and password that stay."""

    username: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class HmacCredentials:
    """Passwords made from a secret shared with the server, good for an hour (coturn's `use-auth-secret`)."""

    username: str
    secret: str = attrs.field(repr=False)

    def at(self, unix_time: int) -> StaticCredentials:
        """Return the credentials of now, in seconds since 1970."""
        username = f"{unix_time + _HMAC_LIFE}:{self.username}"
        code = hmac.digest(self.secret.encode(), username.encode(), "sha1")
        return StaticCredentials(username, base64.b64encode(code).decode())


@attrs.frozen
class RestCredentials:
    """Credentials asked for at a web service by POST; `authorization` goes into that header as it is."""

    url: str
    authorization: str = attrs.field(default="", repr=False)


TurnCredentials = StaticCredentials | HmacCredentials | RestCredentials


@attrs.frozen
class ServerAddress:
    """What a server URI says. `transport` is `udp` or `tcp`, `secure` whether it is inside (D)TLS."""

    host: str
    port: int
    relays: bool
    transport: str = "udp"
    secure: bool = False
    credentials: StaticCredentials | None = None

    def __str__(self) -> str:
        scheme = ("turn" if self.relays else "stun") + ("s" if self.secure else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = f"?transport={self.transport}" if self.relays else ""
        return f"{scheme}:{host}:{self.port}{query}"


@attrs.frozen
class TurnServer:
    """A relay: its URI, such as `turn:host:3478?transport=tcp`, and how to log in.

    Credentials may also stand in the URI (`turn:user:password@host`).
    """

    url: str = attrs.field(repr=lambda url: repr(_masked(url)))
    credentials: TurnCredentials | None = None

    @property
    def address(self) -> ServerAddress:
        """The parsed URI; raises `ConfigurationError`."""
        address = parse_server(self.url)
        if not address.relays:
            raise ConfigurationError(f"{address} is no TURN server: its URI must begin with turn: or turns:")
        if self.credentials is None and address.credentials is None:
            raise ConfigurationError(f"{address} needs credentials: give a user name and password, secret or REST URL")
        if address.secure and address.transport == "udp":
            raise ConfigurationError(f"{address}: TURN over DTLS is not supported; use ?transport=tcp")
        return address


def parse_server(url: str) -> ServerAddress:
    """Read a STUN or TURN URI; raises `ConfigurationError`, which never repeats a password."""
    match = _URL.fullmatch(url.strip())
    shown = _masked(url)
    if match is None:
        raise ConfigurationError(f"{shown!r} is no STUN or TURN URI, such as stun:host:3478 or turn:host?transport=tcp")
    scheme = match["scheme"].lower()
    relays, secure = scheme.startswith("turn"), scheme.endswith("s")
    if match["transport"] and not relays:
        raise ConfigurationError(f"{shown!r}: only TURN URIs have a transport")
    port = int(match["port"] or (5349 if secure else 3478))
    if not 0 < port <= 0xFFFF:
        raise ConfigurationError(f"{shown!r}: the port is out of range")
    credentials = None
    if match["user"] is not None:
        username, _, password = match["user"].partition(":")
        credentials = StaticCredentials(username, password) if username and password else None
    transport = (match["transport"] or ("tcp" if secure else "udp")).lower()
    return ServerAddress(match["host"].strip("[]"), port, relays, transport, secure, credentials)


def _masked(url: str) -> str:
    """The URI without what stands before its `@`."""
    return re.sub(r":[^@]*@", ":...@", url)


def decode_rest_answer(body: bytes) -> StaticCredentials:
    """Read what a credential service answers; raises `RelayFailed`."""
    if len(body) > REST_ANSWER_LIMIT:
        raise RelayFailed("the credential service sent too much")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RelayFailed("the credential service sent no JSON") from error
    if isinstance(answer, dict):
        username, password = answer.get("username"), answer.get("password") or answer.get("credential")
        if isinstance(username, str) and isinstance(password, str) and username and password:
            return StaticCredentials(username, password)
    raise RelayFailed("the credential service sent no username and password")
