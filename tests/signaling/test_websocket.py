"""What answers where a hub should be is never more than a hub that cannot be reached."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed

from a2al_trio.signaling import Hub, HubUnreachable, SignalingError, open_call, open_signaling
from a2al_trio.signaling.websocket import open_hub_socket

Clock = trio.testing.MockClock
Server = Callable[[trio.abc.Stream], Awaitable[None]]


def says(answer: bytes) -> Server:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    return serve


def says_and_waits(answer: bytes) -> Server:
    async def serve(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await trio.sleep_forever()

    return serve


SERVERS: dict[str, Server] = {
    "not found": says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found"),
    "not found, bare": says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "not found, endless": says(b"HTTP/1.1 404 Not Found\r\n\r\nnot found"),
    "not found, cut": says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot"),
    "web page": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    "moved": says(b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"),
    "no key": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    "garbage": says(b"\x16\x03\x01\x00\x00 this is no HTTP \r\n\r\n"),
    "nothing": says(b""),
    "half": says(b"HTTP/1.1 101 Swit"),
    "silence": says_and_waits(b""),
    "half and silence": says_and_waits(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot"),
    "endless header": says(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 100_000),
}


class Street:
    """One server after the other at the same address."""

    def __init__(self, nursery: trio.Nursery, server: Server) -> None:
        self.nursery, self.server, self.dials = nursery, server, 0

    async def dial(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        self.dials += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.server, theirs)
        return ours


@pytest.mark.parametrize("name", SERVERS)
async def test_what_is_no_hub_cannot_be_reached(autojump_clock: Clock, name: str) -> None:
    async with trio.open_nursery() as nursery:
        street = Street(nursery, SERVERS[name])
        with pytest.raises(HubUnreachable, match="hub ws://hub"):
            async with open_hub_socket("ws://hub/signal", dial=street.dial):
                pass
        with pytest.raises(HubUnreachable):
            async with open_call(["ws://hub"], local="a", remote="b", credentials=("u", "p"), dial=street.dial):
                pass
        async with open_signaling(["ws://hub"], ["a"], dial=street.dial) as signaling:
            await trio.sleep(100)
            assert signaling.active_hubs == ()
        assert street.dials < 20
        nursery.cancel_scope.cancel()


frames = st.one_of(st.binary(max_size=40), st.sampled_from([b"\x88\x00", b"\x89\x00", b"\xff\xff"]))


@given(st.lists(frames, max_size=6))
@settings(max_examples=40)
def test_any_bytes_after_the_handshake_end_the_socket_at_most(chunks: list[bytes]) -> None:
    """The same bytes for a hub from its client, and for a client from its hub."""

    async def scenario() -> None:
        key = base64.b64encode(bytes(16)).decode()
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Hub().serve_stream, theirs, "192.0.2.1")
            await ours.send_all(
                f"GET /signal HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            with contextlib.suppress(trio.BrokenResourceError):
                for chunk in chunks:
                    await ours.send_all(chunk)
                    await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
        async with trio.open_nursery() as nursery:

            async def serve(stream: trio.abc.Stream) -> None:
                request = bytes(await stream.receive_some()).decode()
                key = next(line[19:] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key"))
                digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False)
                accept = base64.b64encode(digest.digest()).decode()
                await stream.send_all(
                    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
                )
                with contextlib.suppress(trio.BrokenResourceError):
                    for chunk in chunks:
                        await stream.send_all(chunk)
                await stream.aclose()

            with contextlib.suppress(SignalingError, ConnectionClosed):
                async with open_hub_socket("ws://hub/signal", dial=Street(nursery, serve).dial) as socket:
                    while True:
                        await socket.get_message()

    trio.run(scenario, clock=Clock(autojump_threshold=0))


async def test_an_error_of_the_body_stays_what_it_is(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.abc.Stream) -> None:
            await Hub().serve_stream(stream, "192.0.2.1")

        street = Street(nursery, serve)
        for error in (OSError("mine"), ValueError("mine")):
            with pytest.raises(type(error), match="mine"):
                async with open_hub_socket("ws://hub/signal", dial=street.dial):
                    raise error
        nursery.cancel_scope.cancel()
