"""What a hub looks at in a request before it becomes a WebSocket (spec 06 §4.1). Pure.

The WebSocket library reads the same bytes again; here only those requests are picked out that it would not refuse, or
not with the status clients of the reference see.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import attrs

__all__ = ["MAX_REQUEST_SIZE", "Request", "decode_request", "refusal"]

MAX_REQUEST_SIZE: Final = 16_384

_PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
}


@attrs.frozen
class Request:
    """The head of an HTTP request; header names are in lower case, of repeated query keys the first counts."""

    method: str
    path: str
    query: Mapping[str, str]
    version: str
    headers: Mapping[str, str]

    def has_token(self, header: str, token: str) -> bool:
        """Whether a comma-separated header contains a token, in any case."""
        return token in (part.strip().lower() for part in self.headers.get(header, "").split(","))


def decode_request(data: bytes | bytearray) -> Request | None:
    """Read the head of a request; `None` until it is complete or if it is no HTTP at all."""
    head, end, _ = bytes(data).partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        return None
    try:
        url = urlsplit(parts[1])
        pairs = parse_qsl(url.query, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return Request(parts[0], url.path, dict(reversed(pairs)), parts[2], headers)


def refusal(request: Request | None) -> bytes | None:
    """Return the answer to a request that does not become a WebSocket; `None` for one that does."""
    if request is None:
        return _answer(400, "not an HTTP request")
    if request.path not in ("/signal", "/ice"):
        return _answer(404, "not found")
    if request.path == "/signal" and request.method != "GET":
        return _answer(405, "method not allowed")
    if request.path == "/ice" and not request.query.get("room"):
        return _answer(400, "missing room")
    if request.path == "/ice" and request.query.get("target") and not request.query.get("caller"):
        return _answer(400, "missing caller")
    upgrades = request.has_token("connection", "upgrade") and request.has_token("upgrade", "websocket")
    if not upgrades or request.version == "HTTP/1.0":
        return _answer(426, "this is a WebSocket")
    if request.method != "GET":
        return _answer(405, "method not allowed")
    if request.headers.get("sec-websocket-version") != "13" or not _is_key(request.headers.get("sec-websocket-key")):
        return _answer(400, "bad WebSocket handshake")
    origin = request.headers.get("origin")
    if origin is not None and not _same_host(origin, request.headers.get("host", "")):
        return _answer(403, "foreign origin")
    return None


def _same_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_key(key: str | None) -> bool:
    try:
        return key is not None and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _answer(status: int, text: str) -> bytes:
    body = text + "\n"
    upgrade = "Upgrade: websocket\r\n" if status == 426 else ""
    return (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n{upgrade}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
