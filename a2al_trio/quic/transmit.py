"""What a connection sends next: handshake datagrams, runs of 1-RTT packets, probes, and its last words.

`Transmitter.transmits` is called once per wake-up, after a whole batch was taken in. The bulk path is `_stream_run`:
many packets of one stream in one pass, with one record for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.net.datagram import Transmit
from a2al_trio.quic.app_frames import ApplicationFrames, PacketContent, add_ack, add_crypto
from a2al_trio.quic.errors import TransportErrorCode
from a2al_trio.quic.frames import encode_connection_close
from a2al_trio.quic.packet import MIN_INITIAL_SIZE, PacketType, encode_long_header, packet_number_size
from a2al_trio.quic.packet_builder import BUFFER_SIZE, MAX_SEGMENTS, mask_long_header, stream_packet_struct
from a2al_trio.quic.packet_crypto import TAG_SIZE
from a2al_trio.quic.paths import MIN_DATAGRAM
from a2al_trio.quic.recovery import SentRun
from a2al_trio.quic.small_packet import MOST_UNACKED, SmallPacketWriter
from a2al_trio.quic.tls import Level
from a2al_trio.quic.varint import varint_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.spaces import PacketSpace
    from a2al_trio.quic.stream import SendHalf

__all__ = ["Transmitter"]

SMALL_OFFSET = 1 << 30
PACKET_TYPES = {
    Level.INITIAL: PacketType.INITIAL,
    Level.EARLY: PacketType.ZERO_RTT,
    Level.HANDSHAKE: PacketType.HANDSHAKE,
}


class Transmitter:
    """Builds the datagrams of one connection into the endpoint's buffer."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self._buffer = connection.buffer
        self.frames = ApplicationFrames(connection)
        self.small = SmallPacketWriter(connection, self.frames)
        self.paced_until: float | None = None

    def transmits(self, now: float) -> Iterator[Transmit]:
        """Yield everything that may leave now; each buffer is reused once the next is asked for."""
        connection = self._connection
        self.paced_until = None
        if not connection.handshake_spaces_gone:
            yield from self._handshake_datagrams(now)
        if connection.paths.need_probing:
            yield from self._path_datagrams(now)
        if connection.one_rtt is not None:
            yield from self._application_runs(now)
            mtu = connection.paths.current.mtu
            if mtu.enabled and mtu.size < mtu.ceiling:
                yield from self._mtu_probe(now)

    def small_datagram(self, now: float) -> Transmit | None:
        """Return the one packet that says all there is to say on a few small streams, None if there is more to it.

        That is what requests and answers are made of, so it goes without the generators of `transmits`. Of a single
        message `SmallPacketWriter.send_lone` has taken care before.
        """
        connection = self._connection
        if not connection.handshake_spaces_gone or connection.paths.need_probing:
            return None
        space, path = connection.application, connection.paths.current
        if space.probes or not connection.streams.order.is_little or self.frames.has_control:
            return None
        if space.next_number - space.largest_acked >= MOST_UNACKED:
            return None
        size = path.mtu.size
        # What was left of the pacer's bucket usually does, and there is no need to see how much it is by now.
        has_room = path.validated and path.pacer.tokens >= size and path.in_flight + size <= path.congestion.window
        if not has_room and self._allowance(path, now) < size:
            return None
        self.paced_until = None
        if space.next_number >= space.skip_at:
            self._maybe_skip_number(space)
        return self.small.write(path, now)

    @property
    def is_quiet(self) -> bool:
        """Whether a packet by `small_datagram` has left nothing to say."""
        connection = self._connection
        streams, mtu = connection.streams, connection.paths.current.mtu
        return not (
            streams.order.levels
            or streams.control
            or connection.flow.blocked_pending
            or (mtu.enabled and mtu.size < mtu.ceiling)
        )

    # Handshake packets

    def _handshake_datagrams(self, now: float) -> Iterator[Transmit]:
        connection = self._connection
        path = connection.paths.current
        while True:
            limit = min(path.mtu.size, path.amplification_credit)
            datagram = bytearray()
            packets: list[tuple[PacketSpace, PacketContent]] = []
            room = limit
            for space in connection.spaces[:2]:
                content = self._handshake_content(space, room, path, now)
                if content is not None:
                    packets.append((space, content))
                    room = content.room
            if connection.early_keys is not None and connection.one_rtt is None:
                content = self._early_content(room, path, now)
                if content is not None:
                    packets.append((connection.application, content))
            if not packets:
                return
            has_initial = packets[0][0].level is Level.INITIAL
            padded = has_initial and (connection.is_client or packets[0][1].eliciting)
            for space, content in packets:
                is_last = content is packets[-1][1]
                self._seal_long(
                    datagram, space, content, now, pad_to=min(MIN_INITIAL_SIZE, limit) if padded and is_last else 0
                )
            path.bytes_sent += len(datagram)
            connection.on_datagrams_sent(len(packets), len(datagram), now)
            yield Transmit(datagram, len(datagram), path.peer_address, 0, path.local_host)
            if connection.is_client and any(space.level is Level.HANDSHAKE for space, _ in packets):
                connection.establishment.discard_initial()

    def _handshake_content(self, space: PacketSpace, room: int, path: Path, now: float) -> PacketContent | None:
        """Collect the frames of an Initial or Handshake packet, None if there is nothing to say."""
        if space.send_keys is None:
            return None
        content = PacketContent(room - self._long_header_size(space) - TAG_SIZE)
        if content.room < MIN_DATAGRAM:
            return None
        if space.probes and not space.crypto.send.has_pending:
            space.crypto.send.rewind()  # a probe that carries the handshake on is worth more than a PING
        # Handshake data does not wait for the congestion window: 1-RTT data, which the peer cannot acknowledge before
        # it has this, may fill the window.
        wants_crypto = space.crypto.send.has_pending
        if space.acks.due_at <= now or (space.acks.is_worth_adding(now) and (wants_crypto or space.probes)):
            add_ack(content, space, now)
        if wants_crypto:
            add_crypto(content, space)
        if space.probes:
            space.probes -= 1
            if not content.eliciting:
                content.add(b"\x01")
        return content if content.parts else None

    def _early_content(self, room: int, path: Path, now: float) -> PacketContent | None:
        connection = self._connection
        content = PacketContent(room - self._long_header_size(connection.application) - TAG_SIZE)
        if content.room < MIN_DATAGRAM or path.in_flight + 1200 > path.congestion.window:
            return None
        self.frames.collect(content, now, early=True)
        return content if content.parts else None

    def _long_header_size(self, space: PacketSpace) -> int:
        connection = self._connection
        size = len(connection.initial_token)
        token = size + varint_size(size) if space.level is Level.INITIAL else 0
        return 1 + 4 + 1 + len(connection.paths.current.peer_cid) + 1 + len(connection.source_cid) + token + 2 + 4

    def _seal_long(
        self, datagram: bytearray, space: PacketSpace, content: PacketContent, now: float, *, pad_to: int
    ) -> None:
        connection = self._connection
        level = Level.EARLY if space.is_application else space.level
        keys = connection.early_keys if space.is_application else space.send_keys
        assert keys is not None
        start = len(datagram)
        payload = b"".join(content.parts)
        missing = pad_to - start - self._long_header_size(space) - len(payload) - TAG_SIZE
        payload += bytes(max(missing, 4 - len(payload), 0))
        number = space.take_number()
        path = connection.paths.current
        header = encode_long_header(
            connection.version, PACKET_TYPES[level], path.peer_cid, connection.source_cid,
            token=connection.initial_token, packet_number=number, payload_size=len(payload),
        )  # fmt: skip
        if connection.observer is not None:
            connection.observer.packet_sent(now, level, number, payload, len(header) + len(payload) + TAG_SIZE)
        datagram += header
        datagram += keys.seal(number, header, payload)
        mask_long_header(datagram, keys, start, start + len(header) - 4)
        if content.eliciting:
            self._record(space, number, len(datagram) - start, path, content, now)

    def _record(
        self, space: PacketSpace, number: int, size: int, path: Path, content: PacketContent, now: float
    ) -> None:
        """Remember a packet of mixed contents."""
        run = SentRun(number, number, now, size, path, contents=content.contents)
        if space.is_application and path.ecn.codepoint and self._connection.one_rtt is not None:
            run.ecn = True
        space.sent.append(run)
        space.last_eliciting_at = now
        path.in_flight += size
        path.congestion.on_sent(now, size, path.in_flight)

    # 1-RTT packets

    def _application_runs(self, now: float) -> Iterator[Transmit]:
        connection = self._connection
        path = connection.paths.current
        space = connection.application
        acks = space.acks
        streams = connection.streams
        order = streams.order
        while True:
            control = self.frames.has_control
            wants_data = control or order.levels != 0 or space.probes > 0
            if not wants_data and acks.due_at > now:
                return
            allowed = self._allowance(path, now) if wants_data else 0
            may_be_small = allowed >= path.mtu.size and not control and not space.probes
            if may_be_small and order.is_little and space.next_number - space.largest_acked < MOST_UNACKED:
                self._maybe_skip_number(space)
                transmit = self.small.write(path, now)
                if transmit is not None:
                    yield transmit
                if not order.levels and not streams.control and not connection.flow.blocked_pending:
                    return
                continue
            ecn = path.ecn.codepoint
            first_number = space.next_number
            end, size, in_flight_size = self._fill(path, allowed, now, control=control)
            if not end:
                return
            count = space.next_number - first_number
            path.bytes_sent += end
            if ecn:
                path.ecn.on_sent(count)
            if in_flight_size:
                path.pacer.spend(in_flight_size)
            connection.on_datagrams_sent(count, end, now)
            yield Transmit(self._buffer.view[:end], size, path.peer_address, ecn, path.local_host)

    def _allowance(self, path: Path, now: float) -> int:
        """Bytes that congestion control, pacing and anti-amplification allow to be in flight on top."""
        congestion = path.congestion
        allowed = min(congestion.window - path.in_flight, path.amplification_credit)
        if allowed < path.mtu.size:
            return max(allowed, 0) if path.in_flight < path.mtu.size else 0
        if not path.rtt.has_sample:
            return allowed
        rate = congestion.pacing_rate(path.rtt.smoothed)
        budget = path.pacer.budget(now, rate)
        if budget < path.mtu.size:
            self.paced_until = path.pacer.ready_at(now, rate)
            return 0
        return min(allowed, budget)

    def _fill(self, path: Path, allowed: int, now: float, *, control: bool) -> tuple[int, int, int]:
        """Fill the buffer with packets of one size (the last may be shorter).

        `allowed` bytes may be in flight on top; `control` tells whether control frames wait. Returns the end of what
        was written, the size of a full packet, and the bytes counted as in flight.
        """
        connection, space = self._connection, self._connection.application
        one_rtt = connection.one_rtt
        assert one_rtt is not None
        keys, size = one_rtt.send, path.mtu.size
        self._maybe_skip_number(space)
        number_size = packet_number_size(space.next_number, space.largest_acked)
        first_byte = 0x40 | one_rtt.phase << 2 | number_size - 1
        number_at = 1 + len(path.peer_cid)
        capacity = min(BUFFER_SIZE // size, MAX_SEGMENTS)
        before, at = path.in_flight, 0
        plain = space.probes == 0 and space.acks.due_at > now and not control
        while at < capacity * size:
            full_packets = min((allowed - at) // size, capacity - at // size)
            half = connection.streams.order.next() if plain and full_packets > 0 else None
            is_bulk = half is not None and half.buffer.pending_bytes >= size
            count = self._stream_run(half, at, full_packets, first_byte, number_size, now) if half and is_bulk else 0
            if count:
                at += count * size
                continue
            room = min(size, path.amplification_credit - at)
            if room < MIN_DATAGRAM:
                break
            content = PacketContent(room - number_at - number_size - TAG_SIZE)
            self._collect(content, space, now, eliciting=allowed - at >= min(size, allowed) > 0, control=control)
            if not content.parts:
                break
            payload = b"".join(content.parts)
            if len(payload) < 4:
                payload += bytes(4 - len(payload))
            number = space.take_number()
            header = b"".join((
                bytes((first_byte,)), path.peer_cid, (number & (1 << 8 * number_size) - 1).to_bytes(number_size, "big")
            ))  # fmt: skip
            end = self._buffer.write_packet(at, keys, number, header, payload)
            if connection.observer is not None:
                connection.observer.packet_sent(now, Level.ONE_RTT, number, payload, end - at)
            if content.eliciting:
                self._record(space, number, end - at, path, content, now)
            is_short = end - at < size
            at = end
            if is_short:
                break
            control = self.frames.has_control
            plain = space.probes == 0 and not control
        if at:
            self._buffer.mask_short_headers(keys, at, size, number_at=number_at, number_size=number_size)
        return at, size, path.in_flight - before

    def _collect(
        self, content: PacketContent, space: PacketSpace, now: float, *, eliciting: bool, control: bool
    ) -> None:
        """Collect the frames of one 1-RTT packet; `eliciting` tells whether it may count as in flight."""
        acks = space.acks
        if not eliciting and not space.probes:
            if acks.due_at <= now:
                self.frames.collect_ack_only(content, space, now, may_ping=not space.sent)
            return
        wants_more = control or space.probes > 0 or self._connection.streams.order.levels != 0
        if acks.due_at <= now and not wants_more:
            self.frames.collect_ack_only(content, space, now, may_ping=not space.sent)
            return
        if acks.due_at <= now or acks.is_worth_adding(now):
            add_ack(content, space, now)
        self.frames.collect(content, now, control=control)
        if space.probes:
            space.probes -= 1
            if not content.eliciting:
                content.add(b"\x01")

    def _stream_run(self, half: SendHalf, at: int, most: int, first_byte: int, number_size: int, now: float) -> int:
        """Write up to `most` packets at `at`, each filled by one STREAM frame of `half`; returns how many.

        This is the hot loop of sending. The layout is the same in every packet, so a header is one `pack_into`
        and the views for sealing were made before; one `SentRun` remembers them all.
        """
        connection, buffer = self._connection, half.buffer
        observer = connection.observer
        path, space = connection.paths.current, connection.application
        start, stop = buffer.next_range()
        is_new = start >= buffer.next_offset
        if is_new:
            stop = min(stop, half.limit, start + connection.flow.send_credit)
        size, cid, id_field = path.mtu.size, path.peer_cid, half.id_field
        offset_size = 4 if stop < SMALL_OFFSET else 8
        header_size = 1 + len(cid) + number_size
        length = size - header_size - 1 - len(id_field) - offset_size - TAG_SIZE
        count = min(most, (stop - start) // length)
        if count <= 0:
            return 0
        stop = start + count * length
        pack_into = stream_packet_struct(len(cid), number_size, len(id_field), offset_size, length).pack_into
        keys = connection.one_rtt.send  # type: ignore[union-attr] # 1-RTT packets have keys
        iv, encrypt_into, data = keys.iv, keys.encrypt_into, self._buffer.data
        slots = self._buffer.slots(size, header_size)
        number = first_number = space.next_number
        number_mask = (1 << 8 * number_size) - 1
        wire_offset = start | (0x80000000 if offset_size == 4 else 0xC000000000000000)
        slot = at // size
        for piece in buffer.pieces(start, length, count):
            # Frame type 0x0c: STREAM with an offset, without a length, so it fills the packet.
            pack_into(data, at, first_byte, cid, number & number_mask, 0x0C, id_field, wire_offset, piece)
            plaintext, header, sealed = slots[slot]
            if observer is not None:
                observer.packet_sent(now, Level.ONE_RTT, number, plaintext, size)
            encrypt_into((iv ^ number).to_bytes(12, "big"), plaintext, header, sealed)
            at += size
            number += 1
            slot += 1
            wire_offset += length
        space.next_number = number
        run = SentRun(
            first_number, number - 1, now, size, path, stream=half, offset=start, length=length,
            ecn=bool(path.ecn.codepoint),
        )  # fmt: skip
        space.sent.append(run)
        space.last_eliciting_at = now
        path.in_flight += count * size
        path.congestion.on_sent(now, count * size, path.in_flight)
        buffer.on_sent(start, stop, fin=False)
        if is_new:
            connection.flow.sent += stop - start
            half.writing.on_sent_new(half)
        if buffer.has_pending:
            half.writing.order.rotate(half)
        else:
            half.writing.order.deactivate(half)
        return count

    def _maybe_skip_number(self, space: PacketSpace) -> None:
        """Now and then leave out a packet number (RFC 9000 §21.4)."""
        if space.next_number >= space.skip_at:
            if space.skip_at:
                space.skip_number()
            space.skip_at = space.next_number + 500 + self._connection.entropy(1)[0] * 16

    # Single packets outside the run

    def _single(self, path: Path, content: PacketContent, now: float, *, pad_to: int, probe: bool = False) -> Transmit:
        """Write one 1-RTT packet of its own datagram on any path, padded to `pad_to` bytes."""
        connection, space = self._connection, self._connection.application
        one_rtt = connection.one_rtt
        assert one_rtt is not None
        number = space.take_number()
        number_at = 1 + len(path.peer_cid)
        header = b"".join(
            (bytes((0x43 | one_rtt.phase << 2,)), path.peer_cid, (number & 0xFFFFFFFF).to_bytes(4, "big"))
        )
        payload = b"".join(content.parts)
        payload += bytes(max(pad_to - len(header) - TAG_SIZE - len(payload), 0))
        if connection.observer is not None:
            connection.observer.packet_sent(now, Level.ONE_RTT, number, payload, len(header) + len(payload) + TAG_SIZE)
        end = self._buffer.write_packet(0, one_rtt.send, number, header, payload)
        self._buffer.mask_short_headers(one_rtt.send, end, end, number_at=number_at, number_size=4)
        # An MTU probe is not held against the window: a large one would keep everything else waiting for its fate.
        size = 0 if probe else end
        run = SentRun(number, number, now, size, path, contents=content.contents, probe=end if probe else 0)
        space.sent.append(run)
        space.last_eliciting_at = now
        path.in_flight += size
        path.bytes_sent += end
        connection.on_datagrams_sent(1, end, now)
        return Transmit(self._buffer.view[:end], end, path.peer_address, 0, path.local_host)

    def _path_datagrams(self, now: float) -> Iterator[Transmit]:
        """PATH_CHALLENGE and PATH_RESPONSE, each in a full-size datagram on its own path (RFC 9000 §8.2)."""
        connection = self._connection
        if connection.one_rtt is None:
            return
        for path in list(connection.paths):
            while path.challenge_pending or path.responses:
                size = min(MIN_INITIAL_SIZE, path.amplification_credit)
                if size < MIN_DATAGRAM:
                    break
                content = PacketContent(size)
                if path.responses:
                    content.add(b"\x1b" + path.responses.pop(0))
                if path.challenge_pending and path.challenge is not None:
                    content.add(b"\x1a" + path.challenge)
                    path.on_challenge_sent(now)
                path.challenge_pending = False
                yield self._single(path, content, now, pad_to=size)

    def _mtu_probe(self, now: float) -> Iterator[Transmit]:
        path = self._connection.paths.current
        if not path.mtu.enabled or not path.validated or not self._connection.handshake_confirmed:
            return
        size = path.mtu.probe_size(now)
        if size is None:
            return
        content = PacketContent(size)
        content.add(b"\x01")
        yield self._single(path, content, now, pad_to=size, probe=True)

    # The end

    def close_datagrams(self, now: float) -> Iterator[Transmit]:
        """Yield CONNECTION_CLOSE at every level the peer may be able to read (RFC 9000 §10.2.3).

        The 1-RTT packet goes first and alone: a peer that can read it must not take the Handshake packet, which
        cannot carry an application's code, for the whole truth.
        """
        connection = self._connection
        if connection.one_rtt is not None:
            if connection.is_client and not connection.handshake_confirmed:
                yield from self._handshake_datagrams(now)
            yield self._close_application(now)
        if not connection.handshake_confirmed:
            datagram = self._close_handshake(now)
            if datagram:
                path = connection.paths.current
                path.bytes_sent += len(datagram)
                connection.on_datagrams_sent(1, len(datagram), now)
                yield Transmit(datagram, len(datagram), path.peer_address, 0, path.local_host)

    def _close_application(self, now: float) -> Transmit:
        connection = self._connection
        code, reason = connection.ending.wire_code
        content = PacketContent(1000)
        is_application = connection.ending.is_application
        content.parts.append(encode_connection_close(code, reason, is_application=is_application))
        return self._single(connection.paths.current, content, now, pad_to=0)

    def _close_handshake(self, now: float) -> bytearray:
        connection = self._connection
        path = connection.paths.current
        limit = min(path.mtu.size, path.amplification_credit, MIN_INITIAL_SIZE)
        code, reason = connection.ending.wire_code
        if connection.ending.is_application:
            # Early packets must not carry what only the application should see.
            code, reason = TransportErrorCode.APPLICATION_ERROR, ""
        spaces = [space for space in connection.spaces[:2] if space.send_keys is not None]
        datagram = bytearray()
        for space in spaces:
            room = limit - len(datagram) - self._long_header_size(space) - TAG_SIZE
            if room < MIN_DATAGRAM:
                break
            content = PacketContent(room)
            content.parts.append(encode_connection_close(code, reason, is_application=False, room=min(room, 300)))
            is_padded = connection.is_client and spaces[0].level is Level.INITIAL and space is spaces[-1]
            self._seal_long(datagram, space, content, now, pad_to=limit if is_padded else 0)
        return datagram
