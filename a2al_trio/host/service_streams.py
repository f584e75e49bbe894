"""Streams that begin with admission: `a2s1`, and who may open streams at all (spec 08 §4).

A dialer whose peer offers it begins a stream with its tokens and waits for the verdict, so the service behind the
peer is there before the first byte; that is what protocols need in which the server speaks first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from a2al_trio.errors import DecodeError, Refused, StreamReset, StreamStopped
from a2al_trio.quic import QuicStream
from a2al_trio.wire import (
    STREAM_MAGIC_SIZE,
    AccessResult,
    AccessToken,
    ControlMessage,
    ControlReader,
    KeysDone,
    StreamErrorCode,
    encode_control,
    encode_service_start,
)

__all__ = ["Offers", "admit_service_stream", "refuse_stream", "start_service_stream"]

HEAD = 3
MAX_TOKENS = 8
"""Tokens looked at on one stream."""
ANSWER_LIMIT = 10.0
"""Seconds the peer has for its part of the admission."""

REASONS = {
    StreamErrorCode.ACCESS_DENIED: "access denied",
    StreamErrorCode.NO_SERVICE: "no service is bound to the agent",
    StreamErrorCode.SERVICE_UNREACHABLE: "the agent's service cannot be reached",
}


@attrs.define(eq=False)
class Offers:
    """What an acceptor takes beyond raw streams, known when its control stream has ended."""

    service_streams: bool = False
    _known: trio.Event = attrs.field(factory=trio.Event)

    def settle(self, *, service_streams: bool) -> None:
        """Say what it is; the first word counts."""
        if not self._known.is_set():
            self.service_streams = service_streams
            self._known.set()

    async def wait_known(self) -> None:
        """Wait for it; ends within the limit the acceptor has for its control stream."""
        await self._known.wait()


async def start_service_stream(stream: QuicStream, token: str) -> None:
    """Dialer's half: send the token, if any, and wait for the verdict.

    Raises Refused with the peer's reason, and what the stream raises if the peer breaks off.
    """
    reader = ControlReader(max_messages=8)
    verdict: ControlMessage | None = None
    try:
        await stream.send_all(encode_service_start(token))
        with trio.move_on_after(ANSWER_LIMIT):
            while not isinstance(verdict, AccessResult):
                verdict = await _read_message(stream, reader)
    except (StreamReset, StreamStopped) as error:
        raise Refused(f"the peer refused the stream: {_reason(error.code)}") from error
    except DecodeError as error:
        raise Refused(f"the peer did not admit the stream: {error}") from error
    if not isinstance(verdict, AccessResult):
        raise Refused(f"the peer did not answer within {ANSWER_LIMIT:.0f} s")
    if not verdict.allowed:
        raise Refused(f"the peer refused the stream: {verdict.reason or 'access denied'}")


async def admit_service_stream(stream: QuicStream, decide: Callable[[Sequence[str]], bool]) -> bool:
    """Acceptor's half: read the tokens after the magic, answer; whether service bytes follow.

    A stream that is refused, or does not come to its point in time, is over afterwards.
    """
    tokens: list[str] | None = None
    try:
        with trio.move_on_after(ANSWER_LIMIT):
            tokens = await _read_tokens(stream)
        if tokens is not None and decide(tokens):
            await stream.send_all(encode_control(AccessResult(allowed=True)))
            return True
        if tokens is not None:
            await stream.send_all(encode_control(AccessResult(allowed=False, reason="access denied")))
            await stream.send_eof()
            stream.stop(StreamErrorCode.ACCESS_DENIED)
            await stream.aclose()
            return False
    except (DecodeError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # whoever cannot say what it wants gets no service
    refuse_stream(stream, StreamErrorCode.ACCESS_DENIED)
    return False


def refuse_stream(stream: QuicStream, code: int) -> None:
    """End both directions with a code."""
    stream.reset(code)
    stream.stop(code)


async def _read_tokens(stream: QuicStream) -> list[str]:
    tokens: list[str] = []
    await _receive_exactly(stream, STREAM_MAGIC_SIZE)
    reader = ControlReader(max_messages=2 * MAX_TOKENS)
    while not isinstance(message := await _read_message(stream, reader), KeysDone):
        if isinstance(message, AccessToken) and len(tokens) < MAX_TOKENS:
            tokens.append(message.token)
    return tokens


async def _read_message(stream: QuicStream, reader: ControlReader) -> ControlMessage:
    """Take one framed message and not a byte more: what follows the last one belongs to the service."""
    head = await _receive_exactly(stream, HEAD)
    reader.feed(head)
    message = reader.next_message()  # complains about a length that is out of bounds
    if message is None:
        reader.feed(await _receive_exactly(stream, int.from_bytes(head[1:], "big")))
        message = reader.next_message()
    assert message is not None, "a whole message was fed"
    return message


async def _receive_exactly(stream: QuicStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            raise DecodeError("the stream ended inside its admission")
        data += chunk
    return bytes(data)


def _reason(code: int) -> str:
    try:
        return REASONS[StreamErrorCode(code)]
    except ValueError:
        return f"code {code:#x}"
