"""The fast way of receiving: a run of 1-RTT packets of one size, as one GRO read delivers them.

One cipher call gives the masks of all headers, which come off by a few operations on whole columns of bytes. Packet
numbers are expected to rise, and packets to continue one stream: then each costs a decryption, a comparison and a
slice, and the stream gets all the data in one list. Whatever is different takes the ordinary way (receive.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from a2al_trio.quic.frame_handlers import FrameHandlers, PacketContext
from a2al_trio.quic.packet_builder import repeat_byte
from a2al_trio.quic.packet_crypto import SAMPLE_SIZE, InvalidTag, PacketKeys
from a2al_trio.quic.tls import Level
from a2al_trio.quic.varint import VarintError, decode_varint

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.stream import Stream

__all__ = ["RunReceiver", "RunResult"]

SMALL_OFFSET = (1 << 30) - (1 << 23)
"""Four-byte stream offsets are predicted up to here: no run of packets gets from there to where encodings change."""

_Unmasked = tuple[bytes, int, list[int]]


class _Prediction:
    """How the next packet should begin: `head` (frame type, stream ID), offset, and `tail` (length, if there is one).

    `whole` is the size a packet must have when its frame carries a length, else 0.
    """

    __slots__ = ("data_at", "head", "offset_size", "raw_offset", "stream", "tail", "whole")

    def __init__(self, stream: Stream, head: bytes, raw_offset: int, offset_size: int, tail: bytes, whole: int) -> None:
        self.stream = stream
        self.head = head
        self.raw_offset = raw_offset
        self.offset_size = offset_size
        self.tail = tail
        self.whole = whole
        self.data_at = len(head) + offset_size + len(tail)


class RunResult(NamedTuple):
    """What became of a run: how many packets opened, and the others as they arrived.

    The rest is of use if any opened: the lowest number of their last consecutive stretch, what the run was addressed
    to, and whether it did no more than probe a path.
    """

    opened: int
    failed: list[bytes]
    lowest: int = 0
    destination_cid: bytes = b""
    only_probing: bool = True


class RunReceiver:
    """Takes runs of packets for one connection that has its 1-RTT keys."""

    def __init__(self, connection: QuicConnectionCore, handlers: FrameHandlers) -> None:
        self._connection = connection
        self._handlers = handlers

    def receive(
        self, data: memoryview, size: int, keys: PacketKeys, *, phase: int, path: Path, ecn: int, now: float
    ) -> RunResult:
        """Take packets that are `size` bytes apart in `data`, which is written to.

        Raises what `FrameHandlers` raises.
        """
        connection = self._connection
        cid_end = 1 + connection.config.connection_id_length
        unmasked = self._unmask(data, size, keys, phase)
        if unmasked is None:
            return RunResult(0, [bytes(data[at : at + size]) for at in range(0, len(data), size)])
        masks, number_size, truncated = unmasked
        iv, decrypt = keys.iv, keys.decrypt
        body_at, number_mask = cid_end + number_size, (1 << 8 * number_size) - 1
        acks, reading, observer = connection.application.acks, connection.streams.reading, connection.observer
        context = PacketContext(2, path, bytes(data[1:cid_end]), now)
        expected = acks.largest + 1
        first_number = last_number = -2
        eliciting, opened, failed = 0, 0, []
        chunks: list[bytes] = []
        predicted: _Prediction | None = None
        start, raw, data_at, whole = b"", 0, 0, 0
        for index, low in enumerate(truncated):
            at = index * size
            ahead = (low - expected) & number_mask
            number = expected + ahead
            try:
                if ahead > number_mask >> 1:
                    raise InvalidTag  # an old number, which the ordinary way may know
                plain = decrypt(
                    (iv ^ number).to_bytes(12, "big"), data[at + body_at : at + size], data[at : at + body_at]
                )
            except InvalidTag:
                failed.append(self._mask_again(data[at : at + size], masks[SAMPLE_SIZE * index :], number_size))
                continue
            opened += 1
            if number != last_number + 1:
                if last_number >= 0:
                    acks.on_received(first_number, last_number, eliciting=eliciting, ecn=ecn, now=now)
                    eliciting = 0
                first_number = number
            last_number = number
            expected = number + 1
            if observer is not None:
                observer.packet_received(now, Level.ONE_RTT, number, plain, size)
            if predicted is None or not plain.startswith(start) or (whole and len(plain) != whole):
                if chunks and predicted is not None:
                    reading.on_chunks(predicted.stream, chunks)
                    chunks = []
                predicted = self._predict(plain)
                if predicted is None:
                    context.eliciting = False
                    self._handlers.process_application(plain, context)
                    eliciting += context.eliciting
                    continue
                raw, data_at, whole = predicted.raw_offset, predicted.data_at, predicted.whole
            chunks.append(plain[data_at:])
            eliciting += 1
            raw += len(plain) - data_at
            start = predicted.head + raw.to_bytes(predicted.offset_size, "big") + predicted.tail
        if chunks and predicted is not None:
            context.only_probing = False
            reading.on_chunks(predicted.stream, chunks)
        if opened:
            acks.on_received(first_number, last_number, eliciting=eliciting, ecn=ecn, now=now)
        return RunResult(opened, failed, first_number, context.destination_cid, context.only_probing)

    def _unmask(self, data: memoryview, size: int, keys: PacketKeys, phase: int) -> _Unmasked | None:
        """Take header protection off in place; None, and nothing changed, if the headers are not all alike.

        Returns the masks, the size of the packet numbers, and the truncated numbers.
        """
        total = len(data)
        number_at = 1 + self._connection.config.connection_id_length
        sample = number_at + 4
        masks = keys.masks(b"".join([data[at : at + SAMPLE_SIZE] for at in range(sample, total, size)]))
        count = len(masks) // SAMPLE_SIZE
        first_bits = int.from_bytes(masks[::SAMPLE_SIZE], "big") & repeat_byte(0x1F, count)
        first_bytes = int.from_bytes(bytes(data[0:total:size]), "big") ^ first_bits
        number_size = (first_bytes & 3) + 1
        # All but the spin bit must be as expected, the reserved bits zero (RFC 9000 §17.3.1).
        alike = repeat_byte(0x40 | phase << 2 | number_size - 1, count)
        if first_bytes & repeat_byte(0xDF, count) != alike:
            return None
        data[0:total:size] = first_bytes.to_bytes(count, "big")
        truncated = [0] * count
        for index in range(number_size):
            column = data[number_at + index : total : size]
            bits = int.from_bytes(masks[1 + index :: SAMPLE_SIZE], "big")
            clear = (int.from_bytes(column, "big") ^ bits).to_bytes(count, "big")
            column[:] = clear
            truncated = [number << 8 | byte for number, byte in zip(truncated, clear, strict=True)]
        return masks, number_size, truncated

    def _mask_again(self, packet: memoryview, mask: bytes, number_size: int) -> bytes:
        """Return a packet as it arrived."""
        number_at = 1 + self._connection.config.connection_id_length
        original = bytearray(packet)
        original[0] ^= mask[0] & 0x1F
        for index in range(number_size):
            original[number_at + index] ^= mask[1 + index]
        return bytes(original)

    def _predict(self, plain: bytes) -> _Prediction | None:
        """Expect more of what `plain` is: one STREAM frame, not the last one, that continues a stream in order."""
        kind = plain[0] if plain else 0
        if kind & 0xFD != 0x0C:
            return None
        try:
            stream_id, offset_at = decode_varint(plain, 1)
            offset, end = decode_varint(plain, offset_at)
            data_at, whole = end, 0
            if kind & 2:
                length, data_at = decode_varint(plain, end)
                whole = len(plain)
                if data_at + length != whole:
                    return None
        except VarintError:
            return None
        offset_size = end - offset_at
        if offset_size < 4 or (offset_size == 4 and offset > SMALL_OFFSET):
            return None
        stream = self._connection.streams.by_id.get(stream_id)
        half = stream.receive if stream is not None else None
        if stream is None or half is None or half.stop_code is not None or half.reset_code is not None:
            return None
        if offset != half.assembler.received_to:
            return None
        raw_offset = int.from_bytes(plain[offset_at:end], "big")
        return _Prediction(stream, plain[:offset_at], raw_offset, offset_size, plain[end:data_at], whole)
