"""The control stream: which agent a connection is for, and what the two hosts tell each other (spec 04 §5).

Both halves are bounded in bytes, messages and records, and never fail the connection once the route is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import attrs
import trio

from a2al_trio.errors import DecodeError
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicStream
from a2al_trio.wire import (
    AgentInfo,
    AgentInfoHint,
    ControlMessage,
    ControlReader,
    ObservedAddress,
    RouteFrame,
    ServiceStream,
    SignedRecord,
    decode_route_frame,
    encode_control,
    encode_route_frame,
)

__all__ = ["ROUTE_FRAME_SIZE", "ControlReply", "answer_hint", "greet", "read_reply", "read_route"]

ROUTE_FRAME_SIZE = 25
MAX_RECORD_SIZE = 4096
"""Largest topic record sent as AgentInfo (spec 04 §5.2)."""
MAX_RECORDS = 64
"""Records sent or taken on one control stream (spec 04 §17 D7)."""


@attrs.frozen
class ControlReply:
    """What the acceptor said: our address as it sees it, if at all, records about the target, and what it takes."""

    observed: SocketAddress | None
    records: tuple[SignedRecord, ...]
    service_streams: bool = False


async def greet(stream: QuicStream, target: Address, held_sequence: int) -> None:
    """Dialer's half: name the target agent, say which topic records we hold, and finish at once.

    A dialer that leaves the stream open stalls a reference acceptor (spec 04 §16 no. 2).
    """
    await stream.send_all(encode_route_frame(target) + encode_control(AgentInfoHint(target, held_sequence)))
    await stream.send_eof()


async def read_reply(stream: QuicStream, target: Address) -> ControlReply:
    """Dialer's half: read what the acceptor tells until it ends, however it ends (spec 04 §5.3 no. 5).

    Records are only structurally checked here; those of other agents than the target are dropped (§17 D7).
    """
    observed: SocketAddress | None = None
    records: list[SignedRecord] = []
    service_streams = False
    for message in await _read_messages(stream):
        if isinstance(message, ObservedAddress):
            observed = message.address
        elif isinstance(message, AgentInfo) and message.record.address == target and len(records) < MAX_RECORDS:
            records.append(message.record)
        elif isinstance(message, ServiceStream):
            service_streams = True
    return ControlReply(observed, tuple(records), service_streams)


async def read_route(stream: QuicStream) -> RouteFrame | None:
    """Acceptor's half: the route frame, or None if the stream does not begin with one."""
    frame = bytearray()
    try:
        while len(frame) < ROUTE_FRAME_SIZE:
            chunk = await stream.receive_some(ROUTE_FRAME_SIZE - len(frame))
            if not chunk:
                return None
            frame += chunk
        return decode_route_frame(bytes(frame))
    except (DecodeError, trio.BrokenResourceError):
        return None


async def answer_hint(stream: QuicStream, dialer: SocketAddress, topics: Iterable[SignedRecord]) -> None:
    """Acceptor's half after the route frame: read the hint, send the observed address and newer topic records.

    `topics` are the target's topic records held here; those newer than the dialer's go out (spec 04 §5.3 no. 4).
    """
    held = 0
    for message in await _read_messages(stream):
        if isinstance(message, AgentInfoHint):
            held = message.held_sequence
    stream.stop(0)  # nothing more is read of a dialer that goes on and on
    reply = bytearray(encode_control(ObservedAddress(dialer)))
    newer = [record for record in topics if record.sequence > held and len(record.encoded) <= MAX_RECORD_SIZE]
    for record in newer[:MAX_RECORDS]:
        reply += encode_control(AgentInfo(record))
    reply += encode_control(ServiceStream())
    try:
        await stream.send_all(reply)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the connection does not depend on it, and may be over


async def _read_messages(stream: QuicStream) -> list[ControlMessage]:
    """All messages until the stream ends; a read error or nonsense only ends the list (spec 04 §5.3 no. 3)."""
    reader = ControlReader()
    messages: list[ControlMessage] = []
    with contextlib.suppress(DecodeError, trio.BrokenResourceError, trio.ClosedResourceError):
        while chunk := await stream.receive_some():
            reader.feed(chunk)
            while (message := reader.next_message()) is not None:
                messages.append(message)
    return messages
