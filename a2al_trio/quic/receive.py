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
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.spaces import PacketSpace

__all__ = ["Receiver"]

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
        self._stash: list[tuple[bytes, Path, int]] = []
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
                return self.receive_short(data[start:], now=now, path=path, ecn=ecn) or genuine
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
        stash, self._stash = self._stash, []
        for data, path, ecn in stash:
            self.receive_datagram(data, now=now, path=path, ecn=ecn)

    @property
    def has_stash(self) -> bool:
        """Whether packets wait for keys."""
        return bool(self._stash)

    def _stash_packet(self, data: bytes, path: Path, ecn: int) -> None:
        size = len(data) + sum(len(kept) for kept, _, _ in self._stash)
        if len(self._stash) < MAX_STASHED and size <= MAX_STASHED_BYTES:
            self._stash.append((data, path, ecn))

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
            is_short=False,
            now=now,
        )
        if opened is None:
            return False
        number, payload = opened
        connection.establishment.on_long_packet(header, path)
        context = PacketContext(connection.spaces.index(space), path, header.destination_cid, now)
        self._process(payload, _ALLOWED[header.packet_type], space, number, context, ecn)
        return True

    def _open(
        self, packet: bytes, number_at: int, keys: PacketKeys, space: PacketSpace, *, is_short: bool, now: float
    ) -> tuple[int, bytes] | None:
        """Unprotect one packet; None if it is not genuine or was seen before."""
        sample_end = number_at + 4 + SAMPLE_SIZE
        if len(packet) < sample_end:
            self.undecryptable += 1
            return None
        mask = keys.masks(packet[sample_end - SAMPLE_SIZE : sample_end])
        first = packet[0] ^ (mask[0] & (0x1F if is_short else 0x0F))
        size = (first & 3) + 1
        start = number_at + size
        truncated = int.from_bytes(packet[number_at:start], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        acks = space.acks
        number = acks.largest + 1
        if truncated != number & (1 << 8 * size) - 1:
            number = decode_packet_number(truncated, 8 * size, number)
        header = b"%c%b%b" % (first, packet[1:number_at], truncated.to_bytes(size, "big"))
        one_rtt = self._connection.one_rtt if is_short else None
        if one_rtt is not None and first >> 2 & 1 != one_rtt.phase:
            chosen = one_rtt.for_packet(first >> 2 & 1, number)
            if chosen is None:
                self.undecryptable += 1
                return None
            keys = chosen
        try:
            payload = keys.decrypt((keys.iv ^ number).to_bytes(12, "big"), packet[start:], header)
        except InvalidTag:
            self._on_undecryptable(keys)
            return None
        if first & (0x18 if is_short else 0x0C):
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "reserved header bits are set")
        if number <= acks.largest and acks.is_duplicate(number):
            return None
        if one_rtt is not None and (keys is not one_rtt.receive or number < one_rtt.lowest_received):
            self._connection.key_updates.on_opened(keys, number, now)
        return number, payload

    def _on_undecryptable(self, keys: PacketKeys) -> None:
        self.undecryptable += 1
        if self.undecryptable > keys.suite.integrity_limit:
            raise QuicTransportError(TransportErrorCode.AEAD_LIMIT_REACHED, "too many forged packets")

    def _process(
        self, payload: bytes, allowed: frozenset[int], space: PacketSpace, number: int, context: PacketContext, ecn: int
    ) -> None:
        connection, acks, now = self._connection, space.acks, context.now
        newest = number > acks.largest
        self.packets += 1
        if connection.observer is not None:
            level = Level.EARLY if allowed is FrameContext.ZERO_RTT else space.level
            connection.observer.packet_received(now, level, number, payload, len(payload) + TAG_SIZE)
        self.handlers.process(payload, allowed, context)
        acks.on_received(number, number, eliciting=1 if context.eliciting else 0, ecn=ecn, now=now)
        if context.path is not connection.paths.current and space.is_application:
            connection.migration.on_packet(
                context.path, context.destination_cid, moved=newest and not context.only_probing
            )

    # Short headers

    def receive_short(self, packet: bytes, *, now: float, path: Path, ecn: int) -> bool:
        """Take a short header packet, which is all of its datagram or what is left of it; whether it was genuine."""
        connection = self._connection
        one_rtt = connection.one_rtt
        if one_rtt is None or not connection.ready:
            self._stash_packet(packet, path, ecn)
            return False
        number_at = 1 + connection.config.connection_id_length
        space = connection.application
        opened = self._open(packet, number_at, one_rtt.receive, space, is_short=True, now=now)
        if opened is None:
            return False
        number, payload = opened
        context = PacketContext(2, path, packet[1:number_at], now)
        self._process(payload, FrameContext.ONE_RTT, space, number, context, ecn)
        return True
