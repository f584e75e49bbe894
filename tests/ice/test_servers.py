from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.ice import HmacCredentials, RelayFailed, RestCredentials, StaticCredentials, TurnServer
from a2al_trio.ice.driver.credentials import current_credentials
from a2al_trio.ice.servers import decode_rest_answer, parse_server


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("stun:h", "stun:h:3478"),
        ("STUN:h.example:19302", "stun:h.example:19302"),
        ("stuns:h", "stuns:h:5349"),
        ("turn:h", "turn:h:3478?transport=udp"),
        ("turn:h?transport=TCP", "turn:h:3478?transport=tcp"),
        ("turns:[2001:db8::1]:443", "turns:[2001:db8::1]:443?transport=tcp"),
        ("turn:user:pass@h:1", "turn:h:1?transport=udp"),
    ],
)
def test_uris(url: str, text: str) -> None:
    assert str(parse_server(url)) == text


def test_credentials_in_a_uri() -> None:
    assert parse_server("turn:user:pa:ss@h").credentials == StaticCredentials("user", "pa:ss")
    assert parse_server("turn:user@h").credentials is None


@pytest.mark.parametrize(
    "url", ["", "h:3478", "http://h", "stun://h", "stun:h:0", "stun:h?transport=udp", "turn:h?x=1", "turn:"]
)
def test_what_is_no_uri(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_server(url)


def test_passwords_are_never_repeated() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_server("turn:user:sesame@h:99999")
    assert "sesame" not in str(refused.value)
    server = TurnServer("turn:h", StaticCredentials("user", "sesame"))
    assert "sesame" not in repr(server)
    assert "sesame" not in repr(TurnServer("turn:user:sesame@h"))
    assert "sesame" not in repr(HmacCredentials("user", "sesame"))
    assert "sesame" not in repr(RestCredentials("http://x", "sesame"))


def test_shared_secrets_have_the_vectors_of_the_specification() -> None:
    assert HmacCredentials("alice", "north").at(1_700_000_000) == StaticCredentials(
        "1700003600:alice", "wjwSXO2ch1B6VaLTLMy2Avn5O9o="
    )
    assert HmacCredentials("", "north").at(1_700_000_000) == StaticCredentials(
        "1700003600:", "UNAJbq17nQ9gVsQ5VwW3xSDo4pU="
    )


@pytest.mark.parametrize(
    "answer",
    [
        {"username": "u", "password": "p", "ttl": 60, "uris": []},
        {"username": "u", "credential": "p", "password": ""},
        {"username": "u", "credential": "p", "ice_servers": [{}]},
    ],
)
def test_rest_answers(answer: object) -> None:
    assert decode_rest_answer(json.dumps(answer).encode()) == StaticCredentials("u", "p")


@given(
    st.one_of(
        st.binary(max_size=50), st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_any_answer_is_credentials_or_a_failure(body: bytes) -> None:
    with pytest.raises(RelayFailed):
        decode_rest_answer(body)


def test_answers_too_large_or_too_deep() -> None:
    for body in (b" " * 70_000, b"[" * 60_000):
        with pytest.raises(RelayFailed):
            decode_rest_answer(body)


async def serve_http(answer: Callable[[bytes], bytes], nursery: trio.Nursery) -> int:
    """A web server that answers every request with what `answer` makes of its head."""

    async def handle(stream: trio.SocketStream) -> None:
        head = bytes(await stream.receive_some())
        await stream.send_all(answer(head))
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, handle, listeners)
    port: int = listeners[0].socket.getsockname()[1]
    return port


async def test_credentials_by_rest(no_leaks: None) -> None:
    seen: list[bytes] = []

    def answer(head: bytes) -> bytes:
        seen.append(head)
        body = b'{"username": "u", "password": "p"}'
        if head.startswith(b"POST /ok"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        if head.startswith(b"POST /moved"):
            return b"HTTP/1.1 307 Moved\r\nLocation: /ok\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        return b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    async with trio.open_nursery() as nursery:
        port = await serve_http(answer, nursery)
        for path in ("ok", "moved"):
            rest = RestCredentials(f"http://127.0.0.1:{port}/{path}", "Bearer token")
            assert await current_credentials(TurnServer("turn:h", rest)) == StaticCredentials("u", "p")
        assert b"authorization: bearer token" in seen[0].lower()
        for url, problem in (
            (f"http://127.0.0.1:{port}/no", "answered 403"),
            ("http://127.0.0.1:1/", "cannot be asked"),
        ):
            with pytest.raises(RelayFailed, match=problem):
                await current_credentials(TurnServer("turn:h", RestCredentials(url)))
        nursery.cancel_scope.cancel()
