"""The short way of sending: one 1-RTT packet with what a few small streams have to say, and an ACK.

Requests and answers travel in such packets, one for each wake-up, so what a packet costs is what a request costs. There
is no run to be laid out and no column of headers to be masked here; whatever else may wait to be sent goes through
transmit.py.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from a2al_trio.net.datagram import Transmit
from a2al_trio.quic.app_frames import MIN_STREAM_ROOM, PacketContent, add_ack
from a2al_trio.quic.packet import MAX_CID_SIZE
from a2al_trio.quic.packet_crypto import TAG_SIZE
from a2al_trio.quic.recovery import SentRun
from a2al_trio.quic.tls import Level
from a2al_trio.quic.tracked import StreamSent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from a2al_trio.quic.app_frames import ApplicationFrames
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.packet_crypto import PacketKeys
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.recovery import Tracked
    from a2al_trio.quic.stream_order import SendOrder

__all__ = ["MOST_UNACKED", "SmallPacketWriter"]

NUMBER_SIZE = 2
"""Bytes of the packet numbers written here."""

MOST_UNACKED = 1 << 14
"""So far beyond the largest acknowledged number that many bytes tell it without doubt (RFC 9000 §A.2)."""


MOST_AROUND = 1 + MAX_CID_SIZE + NUMBER_SIZE + 1 + 8 + TAG_SIZE
"""The most that a packet with one message has around it: header, type and stream ID of the frame, and the tag."""


class SmallPacketWriter:
    """Writes single packets of one connection, with less than MOST_UNACKED numbers unacknowledged."""

    __slots__ = (
        "_cid", "_connection", "_first_byte", "_flow", "_frames", "_keys", "_order", "_pack", "_paths", "_space",
    )  # fmt: skip

    def __init__(self, connection: QuicConnectionCore, frames: ApplicationFrames) -> None:
        self._connection = connection
        self._frames = frames
        self._space, self._paths = connection.application, connection.paths
        self._order, self._flow = connection.streams.order, connection.flow
        # What the header is laid out for, see `_lay_out`.
        self._cid = b""
        self._keys: PacketKeys | None = None
        self._pack: Callable[..., bytes] = struct.pack
        self._first_byte = 0

    def send_lone(self, send: Callable[[Transmit], int], now: float) -> tuple[Transmit, int] | None:
        """Let `send` have the packet that consists of a lone message, and of an ACK perhaps, if that is all there is.

        The usual case of all: it goes straight, and what need not be done before the packet leaves is done after. None
        says that there is more to it, otherwise this returns the datagram and what `send` returned.
        """
        half = self._order.lone
        if half is None or (message := half.buffer.message) is None:
            return None
        connection, space, path = self._connection, self._space, self._paths.current
        number, size, most = space.next_number, len(message), path.mtu.size
        if (
            connection.closed
            or size > half.limit
            or size > self._flow.send_limit - self._flow.sent
            # No window is smaller than two datagrams, and what was left of the pacer's bucket may be more by now.
            or path.in_flight > most
            or path.pacer.tokens < most
            or number >= space.skip_at
            or number - space.largest_acked >= MOST_UNACKED
            or not (path.validated and connection.handshake_spaces_gone)
            or space.probes
            or path.challenge_pending
            or path.responses
            or self._frames.has_control
            or (self._paths.others and self._paths.need_probing)
        ):
            return None
        # Frame type 0x09: STREAM with the end, without offset and length, so it must be the last of the packet.
        payload = b"\x09" + half.id_field + message
        content = None
        if space.acks.is_worth_adding(now):
            content = PacketContent(most - MOST_AROUND - size)
            add_ack(content, space, now)
            payload = content.parts[0] + payload
        space.next_number = number + 1
        packet, ecn = self._seal(path, number, payload), path.ecn.codepoint
        transmit = Transmit(packet, len(packet), path.peer_address, ecn, path.local_host)
        taken = send(transmit)
        half.buffer.on_message_sent()
        self._order.deactivate(half)
        self._flow.sent += size
        connection.transmitter.paced_until = None
        contents: list[Tracked] = [StreamSent(half, 0, size, True)]
        if content is not None:
            contents += content.contents
        self._keep_books(path, number, payload, len(packet), contents, now)
        return transmit, taken

    def write(self, path: Path, now: float) -> Transmit | None:
        """Return a packet with frames of the streams whose turn it is, None if none of them may send.

        Only for a connection that has 1-RTT keys, a window with room for a whole packet, and no control frames waiting.
        """
        space, order = self._space, self._order
        content = PacketContent(path.mtu.size - 1 - len(path.peer_cid) - NUMBER_SIZE - TAG_SIZE)
        if space.acks.is_worth_adding(now):
            add_ack(content, space, now)
        self._frames.add_messages(content)
        if order.levels:
            self._add_streams(content, order)
        if not content.parts:
            return None
        payload = b"".join(content.parts)
        if len(payload) < 4:
            payload += bytes(4 - len(payload))
        number = space.take_number()
        packet, ecn = self._seal(path, number, payload), path.ecn.codepoint
        self._keep_books(path, number, payload, len(packet), content.contents if content.eliciting else (), now)
        return Transmit(packet, len(packet), path.peer_address, ecn, path.local_host)

    def _add_streams(self, content: PacketContent, order: SendOrder) -> None:
        """Add what is no whole message, as far as there is room."""
        add_stream = self._frames.add_stream
        while content.room >= MIN_STREAM_ROOM and (half := order.next()) is not None:
            if not add_stream(content, half):
                return

    def _seal(self, path: Path, number: int, payload: bytes) -> bytes:
        """Return the protected packet (RFC 9001 §5.3, §5.4)."""
        keys = self._connection.one_rtt.send  # type: ignore[union-attr] # 1-RTT packets have keys
        cid, low = path.peer_cid, number & 0xFFFF
        if keys is not self._keys or cid is not self._cid:
            self._lay_out(cid, keys)
        pack, first = self._pack, self._first_byte
        sealed = keys.encrypt((keys.iv ^ number).to_bytes(12, "big"), payload, pack(first, cid, low))
        # The sample begins four bytes behind the beginning of the number.
        mask = keys.masks(sealed[2:18])
        return pack(first ^ mask[0] & 0x1F, cid, low ^ (mask[1] << 8 | mask[2])) + sealed

    def _lay_out(self, cid: bytes, keys: PacketKeys) -> None:
        """Prepare for the headers of packets to `cid`, under `keys`."""
        self._cid, self._keys = cid, keys
        self._pack = struct.Struct(f">B{len(cid)}sH").pack
        self._first_byte = 0x40 | self._connection.one_rtt.phase << 2 | NUMBER_SIZE - 1  # type: ignore[union-attr]

    def _keep_books(
        self, path: Path, number: int, payload: bytes, size: int, contents: Sequence[Tracked], now: float
    ) -> None:
        """Note that a packet leaves; it elicits an ACK if it has `contents`."""
        connection, space, ecn = self._connection, self._space, path.ecn.codepoint
        if connection.observer is not None:
            connection.observer.packet_sent(now, Level.ONE_RTT, number, payload, size)
        if contents:
            space.sent.append(SentRun(number, number, now, size, path, contents=contents, ecn=ecn != 0))
            space.last_eliciting_at = now
            path.in_flight += size
            path.congestion.on_sent(now, size, path.in_flight)
            path.pacer.spend(size)
        if ecn:
            path.ecn.on_sent(1)
        path.bytes_sent += size
        connection.on_datagrams_sent(1, size, now)
