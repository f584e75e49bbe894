"""Received packets: header protection off, payload opened, frames to their owners (RFC 9000 §12, RFC 9001 §5).

This is the ordinary way, packet by packet and frame by frame; runs of 1-RTT packets go through receive_run.py first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.quic.errors import PacketDecodeError, QuicTransportError, TransportErrorCode
from a2al_trio.quic.frame_handlers import FrameHandlers, PacketContext
from a2al_trio.quic.frames import FrameContext
from a2al_trio.quic.packet import (
    FIXED_BIT,
    MIN_INITIAL_SIZE,
    LongHeader,
    PacketType,
    decode_invariants,
    decode_long_header,
    decode_packet_number,
)
from a2al_trio.quic.packet_crypto import SAMPLE_SIZE, TAG_SIZE, InvalidTag, PacketKeys
from a2al_trio.quic.tls import Level

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.packet_crypto import OneRttKeys
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.spaces import PacketSpace

__all__ = ["Receiver"]

SAMPLE_END = 4 + SAMPLE_SIZE
"""Where the sample for header protection ends, counted from the packet number (RFC 9001 §5.4.2)."""
MAX_STASHED = 10
MAX_STASHED_BYTES = 16 * 1024
"""Packets kept while the keys for them are not there yet (RFC 9001 §5.7), and their bytes."""

_SPACES = {PacketType.INITIAL: 0, PacketType.ZERO_RTT: 2, PacketType.HANDSHAKE: 1}
_ALLOWED = {
    PacketType.INITIAL: FrameContext.INITIAL,
    PacketType.HANDSHAKE: FrameContext.HANDSHAKE,
    PacketType.ZERO_RTT: FrameContext.ZERO_RTT,
}


class Receiver:
    """Takes the datagrams of one connection."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self.handlers = FrameHandlers(connection)
        self._short_number_at = 1 + connection.config.connection_id_length
        self.stash: list[tuple[bytes, Path, int]] = []
        """Packets that wait for keys."""
        self.undecryptable = 0
        self.packets = 0

    # Any datagram

    def receive_datagram(self, datagram: memoryview | bytes, *, now: float, path: Path, ecn: int) -> bool:
        """Take one datagram, which may hold several packets; returns whether any of them was genuine."""
        genuine, start, first_cid = False, 0, None
        data = bytes(datagram)
        while start < len(data):
            if not data[start] & 0x80:
                # A short header packet is always the last (RFC 9000 §12.2).
                if not data[start] & FIXED_BIT:
                    return genuine
                return self.receive_short(data[start:], now, path, ecn) or genuine
            try:
                invariants = decode_invariants(data, start)
                if first_cid is None:
                    first_cid = invariants.destination_cid
                if invariants.destination_cid != first_cid or invariants.version not in self._connection.known_versions:
                    return genuine
                header = decode_long_header(data, invariants, start)
            except PacketDecodeError:
                return genuine
            if self._receive_long(data, header, now=now, path=path, ecn=ecn):
                genuine = True
            start = header.end
        return genuine

    def replay_stash(self, now: float) -> None:
        """Keys have come: try again what arrived too early."""
        stash, self.stash = self.stash, []
        for data, path, ecn in stash:
            self.receive_datagram(data, now=now, path=path, ecn=ecn)

    def _stash_packet(self, data: bytes, path: Path, ecn: int) -> None:
        size = len(data) + sum(len(kept) for kept, _, _ in self.stash)
        if len(self.stash) < MAX_STASHED and size <= MAX_STASHED_BYTES:
            self.stash.append((data, path, ecn))

    # Long headers

    def _receive_long(self, data: bytes, header: LongHeader, *, now: float, path: Path, ecn: int) -> bool:
        connection = self._connection
        space = connection.spaces[_SPACES[header.packet_type]]
        if space.discarded or not connection.establishment.accepts_source(header):
            return False
        if header.packet_type is PacketType.INITIAL:
            if not connection.is_client and len(data) < MIN_INITIAL_SIZE:
                return False
            keys = connection.handshake.initial_keys_for(header.version)
        elif header.version != connection.version:
            return False
        elif header.packet_type is PacketType.ZERO_RTT:
            keys = connection.handshake.early_receive_keys
        else:
            keys = space.receive_keys
        if keys is None:
            if header.packet_type is not PacketType.INITIAL and not connection.ready:
                self._stash_packet(data[header.start : header.end], path, ecn)
            return False
        opened = self._open(
            data[header.start : header.end],
            header.packet_number_offset - header.start,
            keys,
            space,
        )
        if opened is None:
            return False
        number, payload = opened
        connection.establishment.on_long_packet(header, path)
        context = PacketContext(connection.spaces.index(space), path, header.destination_cid, now)
        self._process(payload, _ALLOWED[header.packet_type], space, number, context, ecn)
        return True

    def _open(self, packet: bytes, number_at: int, keys: PacketKeys, space: PacketSpace) -> tuple[int, bytes] | None:
        """Unprotect one packet with a long header; None if it is not genuine or was seen before."""
        sample_end = number_at + 4 + SAMPLE_SIZE
        if len(packet) < sample_end:
            self.undecryptable += 1
            return None
        mask = keys.masks(packet[sample_end - SAMPLE_SIZE : sample_end])
        first = packet[0] ^ (mask[0] & 0x0F)
        size = (first & 3) + 1
        start = number_at + size
        truncated = int.from_bytes(packet[number_at:start], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        acks = space.acks
        number = decode_packet_number(truncated, 8 * size, acks.largest + 1)
        header = b"%c%b%b" % (first, packet[1:number_at], truncated.to_bytes(size, "big"))
        try:
            payload = keys.open(number, header, packet[start:])
        except InvalidTag:
            self._on_undecryptable(keys)
            return None
        if first & 0x0C:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "reserved header bits are set")
        if number <= acks.largest and acks.is_duplicate(number):
            return None
        return number, payload

    def _on_undecryptable(self, keys: PacketKeys) -> None:
        self.undecryptable += 1
        if self.undecryptable > keys.suite.integrity_limit:
            raise QuicTransportError(TransportErrorCode.AEAD_LIMIT_REACHED, "too many forged packets")

    def _process(
        self, payload: bytes, allowed: frozenset[int], space: PacketSpace, number: int, context: PacketContext, ecn: int
    ) -> None:
        connection, now = self._connection, context.now
        newest = number > space.acks.largest
        self.packets += 1
        if connection.observer is not None:
            level = Level.EARLY if allowed is FrameContext.ZERO_RTT else space.level
            connection.observer.packet_received(now, level, number, payload, len(payload) + TAG_SIZE)
        self.handlers.process(payload, allowed, context)
        space.acks.on_received(number, number, eliciting=1 if context.eliciting else 0, ecn=ecn, now=now)
        if context.path is not connection.paths.current and space.is_application:
            connection.migration.on_packet(
                context.path, context.destination_cid, moved=newest and not context.only_probing
            )

    # Short headers

    def receive_short(self, packet: bytes, now: float, path: Path, ecn: int) -> bool:
        """Take a short header packet, which is all of its datagram or what is left of it; whether it was genuine.

        Every request and every answer comes this way, so the usual packet is opened here: the next one, under the
        current keys, with a packet number of two bytes.
        """
        connection, number_at = self._connection, self._short_number_at
        one_rtt = connection.one_rtt
        if one_rtt is None or not connection.ready:
            self._stash_packet(packet, path, ecn)
            return False
        sample_end, start, first_at = number_at + SAMPLE_END, number_at + 2, 8 * number_at + 8
        if len(packet) < sample_end:
            self.undecryptable += 1
            return False
        keys, acks = one_rtt.receive, connection.application.acks
        masks = keys.masks(packet[number_at + 4 : sample_end])
        mask = int.from_bytes(masks[:3], "big")
        header = int.from_bytes(packet[:start], "big") ^ (mask >> 16 & 0x1F) << first_at ^ mask & 0xFFFF
        number = expected = acks.largest + 1
        if header >> first_at == 0x41 | one_rtt.phase << 2 and header & 0xFFFF == number & 0xFFFF:
            try:
                payload = keys.decrypt(
                    (keys.iv ^ number).to_bytes(12, "big"), packet[start:], header.to_bytes(start, "big")
                )
            except InvalidTag:
                self._on_undecryptable(keys)
                return False
            if number < one_rtt.lowest_received:
                connection.key_updates.on_opened(keys, number, now)
        else:
            opened = self._open_short(packet, masks, one_rtt, now)
            if opened is None:
                return False
            number, payload = opened
        self.packets += 1
        if connection.observer is not None:
            connection.observer.packet_received(now, Level.ONE_RTT, number, payload, len(payload) + TAG_SIZE)
        position, eliciting, only_probing = self.handlers.process_streams(payload, 0), True, False
        if position == 0 or position < len(payload):
            context = PacketContext(2, path, packet[1:number_at], now)
            self.handlers.process_mixed(payload, position, context)
            eliciting, only_probing = context.eliciting, context.only_probing
        if eliciting and number == expected:
            acks.on_next(ecn, now)
        else:
            acks.on_received(number, number, eliciting=1 if eliciting else 0, ecn=ecn, now=now)
        if path is not connection.paths.current:
            connection.migration.on_packet(path, packet[1:number_at], moved=number >= expected and not only_probing)
        return True

    def _open_short(self, packet: bytes, masks: bytes, one_rtt: OneRttKeys, now: float) -> tuple[int, bytes] | None:
        """Unprotect any short header packet; None if it is not genuine or was seen before."""
        connection, number_at = self._connection, self._short_number_at
        keys, acks = one_rtt.receive, connection.application.acks
        first = packet[0] ^ masks[0] & 0x1F
        size = (first & 3) + 1
        start = number_at + size
        truncated = int.from_bytes(packet[number_at:start], "big") ^ int.from_bytes(masks[1 : 1 + size], "big")
        number = acks.largest + 1
        if truncated != number & (1 << 8 * size) - 1:
            number = decode_packet_number(truncated, 8 * size, number)
        header = b"%c%b%b" % (first, packet[1:number_at], truncated.to_bytes(size, "big"))
        if first >> 2 & 1 != one_rtt.phase:
            chosen = one_rtt.for_packet(first >> 2 & 1, number)
            if chosen is None:
                self.undecryptable += 1
                return None
            keys = chosen
        try:
            payload = keys.open(number, header, packet[start:])
        except InvalidTag:
            self._on_undecryptable(keys)
            return None
        if first & 0x18:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "reserved header bits are set")
        if number <= acks.largest and acks.is_duplicate(number):
            return None
        if keys is not one_rtt.receive or number < one_rtt.lowest_received:
            connection.key_updates.on_opened(keys, number, now)
        return number, payload
