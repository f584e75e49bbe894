"""The `/debug` pages of a host as an ASGI application (spec 04 §14): only GET, only what is known here anyway."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from importlib.resources import files
from typing import Any, TypeAlias

import attrs

from a2al_trio.host import Host
from a2al_trio.host.report import DEBUG_SECTIONS

__all__ = ["Asgi", "debug_app"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

PREFIX = "/debug"
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# The page shows what strangers say about themselves: nothing but our own script may run in it.
SECURITY = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@attrs.frozen
class _Answer:
    status: int
    content_type: str
    body: bytes


def debug_app(host: Host, *, allowed_hosts: Iterable[str] | None = None) -> Asgi:
    """An ASGI app for `/debug/identity`, `/routing`, `/store`, `/stats`, `/host` and `/connections`, and the page.

    The page is at `/debug/`. Mount the app wherever you like; it has no authentication of its own. With
    `allowed_hosts`, requests for other names (the Host header without its port) are refused with 421, so that no
    web page can read a server on loopback under a name of its own (DNS rebinding).
    """
    names = None if allowed_hosts is None else frozenset(name.lower() for name in allowed_hosts)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await _send(send, _answer(host, scope, names), body=scope["method"] != "HEAD")
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    return app


def _answer(host: Host, scope: Message, names: frozenset[str] | None) -> _Answer:
    if names is not None and _requested_host(scope) not in names:
        return _Answer(421, TEXT, b"misdirected request\n")
    if scope["method"] not in ("GET", "HEAD"):
        return _Answer(405, TEXT, b"method not allowed\n")
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    if path == PREFIX:
        path += "/"
    # Mounted at /debug by somebody else's router, only the rest of the path is left.
    section = path.removeprefix(PREFIX).removeprefix("/")
    if section in DEBUG_SECTIONS:
        return _Answer(200, JSON, json.dumps(host.debug(section), indent=2, ensure_ascii=False).encode() + b"\n")
    if section in FILES:
        name, content_type = FILES[section]
        return _Answer(200, content_type, files(__package__).joinpath(name).read_bytes())
    return _Answer(404, TEXT, b"not found\n")


def _requested_host(scope: Message) -> str:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    name = values[0].lower() if len(values) == 1 else ""
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


async def _send(send: Send, answer: _Answer, *, body: bool) -> None:
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *SECURITY,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if body else b""})


async def _live(receive: Receive, send: Send) -> None:
    while (event := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{event}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
