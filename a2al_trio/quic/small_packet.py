"""The short way of sending: one 1-RTT packet with what a few small streams have to say, and an ACK.

Requests and answers travel in such packets, one for each wake-up, so what a packet costs is what a request costs. There
is no run to be laid out and no column of headers to be masked here; whatever else may wait to be sent goes through
transmit.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.net.datagram import Transmit
from a2al_trio.quic.app_frames import MIN_STREAM_ROOM, PacketContent, add_ack
from a2al_trio.quic.packet import packet_number_size
from a2al_trio.quic.packet_crypto import SAMPLE_SIZE, TAG_SIZE
from a2al_trio.quic.recovery import SentRun
from a2al_trio.quic.tls import Level

if TYPE_CHECKING:
    from a2al_trio.quic.app_frames import ApplicationFrames
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.stream_order import SendOrder

__all__ = ["SmallPacketWriter"]

BYTES = tuple(bytes((value,)) for value in range(256))


class SmallPacketWriter:
    """Writes single packets of one connection."""

    __slots__ = ("_connection", "_frames")

    def __init__(self, connection: QuicConnectionCore, frames: ApplicationFrames) -> None:
        self._connection = connection
        self._frames = frames

    def write(self, path: Path, now: float) -> Transmit | None:
        """Return a packet with frames of the streams whose turn it is, None if none of them may send.

        Only for a connection that has 1-RTT keys, a window with room for a whole packet, and no control frames waiting.
        """
        connection = self._connection
        space, order = connection.application, connection.streams.order
        keys, phase = connection.one_rtt.send, connection.one_rtt.phase  # type: ignore[union-attr] # see above
        number, cid = space.next_number, path.peer_cid
        number_size = packet_number_size(number, space.largest_acked)
        content = PacketContent(path.mtu.size - 1 - len(cid) - number_size - TAG_SIZE)
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
        space.next_number = number + 1
        first_byte = 0x40 | phase << 2 | number_size - 1
        truncated = number & (1 << 8 * number_size) - 1
        header = b"".join((BYTES[first_byte], cid, truncated.to_bytes(number_size, "big")))
        sealed = keys.encrypt((keys.iv ^ number).to_bytes(12, "big"), payload, header)
        mask = keys.masks(sealed[4 - number_size : 4 - number_size + SAMPLE_SIZE])
        truncated ^= int.from_bytes(mask[1 : 1 + number_size], "big")
        first_byte ^= mask[0] & 0x1F
        packet = b"".join((BYTES[first_byte], cid, truncated.to_bytes(number_size, "big"), sealed))
        size, ecn = len(packet), path.ecn.codepoint
        if connection.observer is not None:
            connection.observer.packet_sent(now, Level.ONE_RTT, number, payload, size)
        if content.eliciting:
            run = SentRun(number, number, now, size, path, contents=content.contents, ecn=ecn != 0)
            space.sent.append(run)
            space.last_eliciting_at = now
            path.in_flight += size
            path.congestion.on_sent(now, size, path.in_flight)
            path.pacer.spend(size)
        if ecn:
            path.ecn.on_sent(1)
        path.bytes_sent += size
        connection.on_datagrams_sent(1, size, now)
        return Transmit(packet, size, path.peer_address, ecn, path.local_host)

    def _add_streams(self, content: PacketContent, order: SendOrder) -> None:
        """Add what is no whole message, as far as there is room."""
        add_stream = self._frames.add_stream
        while content.room >= MIN_STREAM_ROOM and (half := order.next()) is not None:
            if not add_stream(content, half):
                return
