"""Which frames go into the next packet outside the bulk path: acknowledgements, control frames, small stream pieces."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from a2al_trio.quic.ack_frame import encode_ack
from a2al_trio.quic.frames import encode_new_connection_id, encode_varints
from a2al_trio.quic.tracked import AckSent, CryptoSent, OnAcked, Resend, StreamSent
from a2al_trio.quic.varint import encode_varint

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.recovery import Tracked
    from a2al_trio.quic.spaces import PacketSpace
    from a2al_trio.quic.stream import SendHalf, Stream

__all__ = ["ApplicationFrames", "PacketContent", "add_ack", "add_crypto"]

MIN_STREAM_ROOM = 24
"""Below this a STREAM frame would be mostly header."""

MESSAGE_OVERHEAD = 1 + 8 + 2
"""The most that a STREAM frame without an offset adds to its data, and what is reckoned for each."""

MAX_FRAME_DATA = 0x3FFF
"""What a two-byte length field can say."""

STREAM_TYPES = {(False, False): b"\x0a", (False, True): b"\x0b", (True, False): b"\x0e", (True, True): b"\x0f"}
"""Frame types by whether there is an offset, and whether it is the end; all with a length (RFC 9000 §19.8)."""

ACK_DELAY_EXPONENT = 3
PING_EVERY = 24
"""An ACK-only packet in this many carries a PING, so that the peer's ACK lets us forget ranges (RFC 9000 §13.2.4)."""


class PacketContent:
    """Frames of one packet being put together, and what must be tracked; `room` is what is left in bytes."""

    __slots__ = ("contents", "eliciting", "parts", "room")

    def __init__(self, room: int) -> None:
        self.room = room
        self.parts: list[bytes] = []
        self.contents: list[Tracked] = []
        self.eliciting = False

    def add(self, frame: bytes, tracked: Tracked | None = None) -> None:
        """Add an ack-eliciting frame."""
        self.parts.append(frame)
        self.room -= len(frame)
        self.eliciting = True
        if tracked is not None:
            self.contents.append(tracked)


def add_ack(content: PacketContent, space: PacketSpace, now: float) -> None:
    """Add an ACK of everything received in `space` so far."""
    acks = space.acks
    _, ect1, ect0, ce = acks.ecn_counts
    ecn = (ect0, ect1, ce) if ect0 or ect1 or ce else None
    delay = int((now - acks.largest_at) * 1_000_000) >> ACK_DELAY_EXPONENT if space.is_application else 0
    frame = encode_ack(acks.received, delay if delay > 0 else 0, ecn_counts=ecn, room=min(content.room, 600))
    content.parts.append(frame)
    content.room -= len(frame)
    content.contents.append(AckSent(acks, acks.largest))
    acks.on_ack_sent(now)


def add_crypto(content: PacketContent, space: PacketSpace) -> None:
    """Add CRYPTO frames as far as there is room."""
    buffer = space.crypto.send
    while buffer.has_pending and content.room > MIN_STREAM_ROOM:
        start, stop = buffer.next_range()
        head = b"\x06" + encode_varint(start)
        stop = min(stop, start + content.room - len(head) - 2, start + MAX_FRAME_DATA)
        size = stop - start
        content.add(
            head + (0x4000 | size).to_bytes(2, "big") + buffer.peek(start, stop), CryptoSent(buffer, start, stop)
        )
        buffer.on_sent(start, stop, fin=False)


class ApplicationFrames:
    """Collects the frames of 1-RTT and 0-RTT packets of one connection."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._flow = connection.flow
        self._ack_frequency = connection.ack_frequency
        self._crypto = connection.application.crypto.send
        self._queues = (
            connection.streams.control, connection.streams.counts.limits_pending,
            connection.streams.counts.blocked_pending, connection.local_cids.pending,
            connection.peer_cids.retire_pending, connection.datagrams.outgoing, connection.tokens_pending,
        )  # fmt: skip
        """What may hold control frames that wait, for a look at all at once."""
        self._acks_without_ping = 0

    @property
    def has_control(self) -> bool:
        """Whether frames other than ACK and STREAM wait. Asked for each packet, so it is kept lean."""
        connection, flow, crypto = self._connection, self._flow, self._crypto
        return (
            any(self._queues)
            or flow.update_pending
            or flow.blocked_pending
            or connection.ping_pending
            or connection.handshake_done_pending
            or self._ack_frequency.pending
            or (crypto.acked_to < crypto.end and crypto.has_pending)
        )

    def collect(self, content: PacketContent, now: float, *, control: bool = True, early: bool = False) -> None:
        """Fill a packet that may be ack-eliciting: control frames first, then datagrams, then streams in turn.

        `control` is what `has_control` said.
        """
        connection = self._connection
        if control:
            if not early:
                self._add_connection_frames(content)
            self._add_flow_frames(content, now)
            self._add_datagrams(content)
        order = connection.streams.order
        while content.room >= MIN_STREAM_ROOM:
            half = order.next()
            if half is None or not self.add_stream(content, half):
                break
        if connection.ping_pending and (content.eliciting or content.room > 0):
            self._add_ping(content)

    def collect_ack_only(self, content: PacketContent, space: PacketSpace, now: float, *, may_ping: bool) -> None:
        """Fill a packet that congestion control allows no more than an ACK."""
        add_ack(content, space, now)
        self._acks_without_ping += 1
        if may_ping and self._acks_without_ping >= PING_EVERY:
            self._acks_without_ping = 0
            content.add(b"\x01")

    def _add_ping(self, content: PacketContent) -> None:
        connection = self._connection
        connection.ping_pending = False
        if not content.eliciting:
            content.add(b"\x01")
        if connection.ping_awaited:
            connection.ping_awaited = False
            content.contents.append(OnAcked(connection.reports.on_ping_acked, connection.ping))

    # Frames about the connection

    def _add_connection_frames(self, content: PacketContent) -> None:
        connection = self._connection
        add_crypto(content, connection.application)
        if connection.handshake_done_pending and content.room > 1:
            connection.handshake_done_pending = False
            content.add(b"\x1e", Resend(partial(setattr, connection, "handshake_done_pending", True)))
        if connection.ack_frequency.pending and content.room > 32:
            connection.ack_frequency.add_frame(content)
        cids = connection.local_cids
        while cids.pending and content.room > 48:
            sequence = cids.pending.pop(0)
            entry = cids.entry(sequence)
            if entry is not None:
                frame = encode_new_connection_id(sequence, cids.retire_prior_to, *entry)
                content.add(frame, Resend(partial(cids.pending.append, sequence)))
        retired = connection.peer_cids
        while retired.retire_pending and content.room > 10:
            sequence = retired.retire_pending.pop(0)
            content.add(encode_varints(0x19, sequence), Resend(partial(retired.retire_pending.append, sequence)))
        tokens = connection.tokens_pending
        while tokens and content.room > len(tokens[0]) + 4:
            token = tokens.pop(0)
            content.add(b"\x07" + encode_varint(len(token)) + token, Resend(partial(tokens.append, token)))

    # Flow control

    def _add_flow_frames(self, content: PacketContent, now: float) -> None:
        connection = self._connection
        flow, streams, counts = connection.flow, connection.streams, connection.streams.counts
        rtt = connection.paths.current.rtt.smoothed
        if flow.update_pending and content.room > 10:
            flow.update_pending = False
            content.add(
                encode_varints(0x10, flow.receive.grant(now, rtt)),
                Resend(partial(setattr, flow, "update_pending", True)),
            )
        if flow.blocked_pending and content.room > 10:
            flow.blocked_pending = False
            content.add(encode_varints(0x14, flow.send_limit), Resend(partial(self._again_blocked, flow.send_limit)))
        for kind in (0, 1):
            if kind in counts.limits_pending and content.room > 10:
                counts.limits_pending.remove(kind)
                again = Resend(partial(counts.limits_pending.add, kind))
                content.add(encode_varints(0x12 + kind, counts.grant(kind)), again)
            if kind in counts.blocked_pending and content.room > 10:
                counts.blocked_pending.remove(kind)
                content.add(encode_varints(0x16 + kind, counts.local_limit(kind)))
        while streams.control and content.room > 32:
            _, stream = streams.control.popitem()
            self._add_stream_control(content, stream, now, rtt)

    def _again_blocked(self, limit: int) -> None:
        flow = self._connection.flow
        if flow.send_limit == limit:
            flow.blocked_pending = True

    def _add_stream_control(self, content: PacketContent, stream: Stream, now: float, rtt: float) -> None:
        reading, writing = self._connection.streams.reading, self._connection.streams.writing
        stream_id = stream.stream_id
        send, receive = stream.send, stream.receive
        if send is not None and send.reset_pending and send.reset_code is not None:
            send.reset_pending = False
            frame = encode_varints(0x04, stream_id, send.reset_code, send.reset_size)
            content.add(frame, OnAcked(partial(writing.on_reset_acked, stream), partial(writing.resend_reset, stream)))
        if send is not None and send.blocked_pending:
            send.blocked_pending = False
            content.add(encode_varints(0x15, stream_id, send.limit))
        if receive is not None and receive.stop_pending and receive.stop_code is not None:
            receive.stop_pending = False
            frame = encode_varints(0x05, stream_id, receive.stop_code)
            content.add(frame, Resend(partial(reading.resend_stop, stream)))
        if receive is not None and receive.credit_pending:
            receive.credit_pending = False
            if receive.assembler.final_size is None and receive.stop_code is None:
                frame = encode_varints(0x11, stream_id, receive.window.grant(now, rtt))
                content.add(frame, Resend(partial(reading.resend_credit, stream)))

    # Data

    def _add_datagrams(self, content: PacketContent) -> None:
        outgoing = self._connection.datagrams.outgoing
        while outgoing:
            frame = b"\x31" + encode_varint(len(outgoing[0])) + outgoing[0]
            if len(frame) <= content.room:
                content.add(frame)
            elif content.parts:
                return
            # Otherwise the path shrank below what was accepted, and the datagram goes the way of datagrams.
            outgoing.pop(0)

    def add_messages(self, content: PacketContent) -> None:
        """Add the small messages that stand first in the sending order, each a STREAM frame with all of a stream."""
        order, flow = self._connection.streams.order, self._connection.flow
        parts, contents = content.parts, content.contents
        room, credit, added = content.room, flow.send_limit - flow.sent, 0
        first = order.first_level
        for half in first.values():
            message = half.buffer.message
            if message is None:
                break
            size = len(message)
            left = room - size - MESSAGE_OVERHEAD
            if left < 0 or size > credit or size > half.limit:
                break
            parts += (b"\x0b", half.id_field, (0x4000 | size).to_bytes(2, "big"), message)
            contents.append(StreamSent(half, 0, size, True))
            half.buffer.on_message_sent()
            room, credit, added = left, credit - size, added + 1
        if added:
            flow.sent = flow.send_limit - credit
            content.room, content.eliciting = room, True
            order.drop_first(added)

    def add_stream(self, content: PacketContent, half: SendHalf) -> bool:
        """Add a STREAM frame of `half`; False when the packet is full."""
        connection = self._connection
        flow, buffer = connection.flow, half.buffer
        start, stop = buffer.lost.first if buffer.lost else (buffer.next_offset, buffer.end)
        is_new = start >= buffer.next_offset
        if is_new and stop > start:
            stop = min(stop, half.limit, start + flow.send_limit - flow.sent)
            if stop <= start:
                half.writing.block(half)
                return True
        elif not buffer.has_pending:
            half.writing.order.deactivate(half)
            return True
        # The start of a stream, all there is of a small message, goes without an offset.
        head = half.id_field + encode_varint(start) if start else half.id_field
        stop = min(stop, start + content.room - len(head) - 3, start + MAX_FRAME_DATA)
        fin = buffer.final and stop == buffer.end
        if stop <= start and not fin:
            return False
        size = stop - start
        frame_type = STREAM_TYPES[start > 0, fin]
        content.add(
            b"".join((frame_type, head, (0x4000 | size).to_bytes(2, "big"), buffer.peek(start, stop))),
            StreamSent(half, start, stop, fin),
        )
        buffer.on_sent(start, stop, fin=fin)
        if is_new:
            flow.sent += size
            if half.wants_writable:
                half.writing.on_sent_new(half)
        if stop < buffer.end and buffer.has_pending:
            half.writing.order.rotate(half)
        else:
            half.writing.order.deactivate(half)
        return True
