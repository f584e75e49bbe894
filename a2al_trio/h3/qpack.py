"""QPACK (RFC 9204) by pylsqpack, with bounds on what a peer can make it do."""

from __future__ import annotations

from pylsqpack import (
    Decoder,
    DecoderStreamError,
    DecompressionFailed,
    Encoder,
    EncoderStreamError,
    StreamBlocked,
)

from a2al_trio.h3.config import H3Config
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.fields import Field

__all__ = ["Qpack", "count_field_lines"]

SMALL = 64
"""Encoded sections up to this size do without the dynamic table: a few bytes less are not worth acknowledgements."""
ACKNOWLEDGEMENTS = 32
"""Field sections whose acknowledgements are worth a packet while the dynamic table stays as it is; fewer wait."""


def _skip_integer(block: bytes, offset: int, prefix: int) -> tuple[int, int]:
    """The prefixed integer at `offset` and what follows it (RFC 7541 §5.1); IndexError when cut off."""
    mask = (1 << prefix) - 1
    value = block[offset] & mask
    offset += 1
    if value < mask:
        return value, offset
    shift = 0
    while True:
        octet = block[offset]
        offset += 1
        value += (octet & 0x7F) << shift
        shift += 7
        if octet < 0x80:
            return value, offset
        if shift > 62:
            raise IndexError


def _skip_string(block: bytes, offset: int, prefix: int) -> int:
    size, offset = _skip_integer(block, offset, prefix)
    if size > len(block) - offset:
        raise IndexError
    return offset + size


def count_field_lines(block: bytes) -> int:
    """Count the field lines of an encoded section without decoding them (RFC 9204 §4.5); raises H3Error."""
    count = 0
    try:
        _, offset = _skip_integer(block, 0, 8)
        _, offset = _skip_integer(block, offset, 7)
        while offset < len(block):
            first = block[offset]
            if first & 0x80:  # indexed
                _, offset = _skip_integer(block, offset, 6)
            elif first & 0x40:  # literal with a name of the table
                _, offset = _skip_integer(block, offset, 4)
                offset = _skip_string(block, offset, 7)
            elif first & 0x20:  # literal with a literal name
                offset = _skip_string(block, _skip_string(block, offset, 3), 7)
            elif first & 0x10:  # indexed behind the base
                _, offset = _skip_integer(block, offset, 4)
            else:  # literal with a name of the table behind the base
                _, offset = _skip_integer(block, offset, 3)
                offset = _skip_string(block, offset, 7)
            count += 1
    except IndexError:
        raise H3Error(ErrorCode.QPACK_DECOMPRESSION_FAILED, "a field section is cut off") from None
    return count


class Qpack:
    """Both directions of field compression on one connection.

    `encoder_output` and `decoder_output` collect what goes on our two QPACK streams; `due` says when to send it.

    A few acknowledgements of field sections may wait: until they come the peer's encoder only keeps entries it might
    drop. A packet of their own for each would cost more than all the rest. While the table changes fewer may wait:
    sections that refer to new entries count as blocked until they are acknowledged (RFC 9204 §2.1.2).
    """

    def __init__(self, config: H3Config) -> None:
        self._config = config
        self._encoder = Encoder()
        self._plain = Encoder()  # without settings it has no dynamic table
        self._decoder = Decoder(config.table_capacity, config.blocked_streams)
        self._waiting: set[int] = set()
        self._unsaid = 0
        self._patience = ACKNOWLEDGEMENTS
        self.encoder_output = bytearray()
        self.decoder_output = bytearray()
        self.due = False

    def output_taken(self) -> None:
        """Both outputs have been taken and emptied."""
        self._unsaid = 0
        self._patience = ACKNOWLEDGEMENTS
        self.due = False

    def apply_settings(self, *, table_capacity: int, blocked_streams: int) -> None:
        """Learn what the peer's decoder allows; never more than we want ourselves is used."""
        instructions = self._encoder.apply_settings(
            max_table_capacity=min(table_capacity, self._config.table_capacity),
            blocked_streams=min(blocked_streams, self._config.blocked_streams),
        )
        self._instruct(instructions)

    def encode_small(self, fields: list[Field]) -> bytes | None:
        """Encode a field section without the dynamic table, for any stream; None if that makes it large."""
        _, block = self._plain.encode(0, fields)
        return block if len(block) <= SMALL else None

    def encode(self, stream_id: int, fields: list[Field]) -> bytes:
        """Encode a field section to send on `stream_id`."""
        instructions, block = self._encoder.encode(stream_id, fields)
        if instructions:
            self._instruct(instructions)
        return block

    def _instruct(self, instructions: bytes) -> None:
        self.encoder_output += instructions
        self.due = True

    def decode(self, stream_id: int, block: bytes) -> list[Field] | None:
        """Decode a section; None if it waits for the encoder stream, then `resume` once told. Raises H3Error."""
        if stream_id in self._waiting:
            return None
        # A line is a byte at least, so that a short block need not be looked at.
        if len(block) - 2 > self._config.field_lines and count_field_lines(block) > self._config.field_lines:
            raise H3Error(ErrorCode.EXCESSIVE_LOAD, "a field section has too many lines", stream_id)
        try:
            instructions, fields = self._decoder.feed_header(stream_id, block)
        except StreamBlocked:
            self._waiting.add(stream_id)
            return None
        except DecompressionFailed as error:
            raise H3Error(ErrorCode.QPACK_DECOMPRESSION_FAILED, "a field section does not decode") from error
        if instructions:
            self._answer(instructions)
        return fields

    def resume(self, stream_id: int) -> list[Field]:
        """Decode the section that waited; raises H3Error."""
        self._waiting.discard(stream_id)
        try:
            instructions, fields = self._decoder.resume_header(stream_id)
        except (DecompressionFailed, StreamBlocked) as error:
            raise H3Error(ErrorCode.QPACK_DECOMPRESSION_FAILED, "a field section does not decode") from error
        if instructions:
            self._answer(instructions)
        return fields

    def decode_known(self, stream_id: int, block: bytes) -> None:
        """Do for a section what `decode` did for an equal one; the dynamic table has not changed since.

        That is to acknowledge it, if it refers to the table: if its Required Insert Count is not 0.
        """
        if block[0]:
            self._answer(self._decoder.feed_header(stream_id, block)[0])

    def cancel(self, stream_id: int) -> None:
        """Tell the peer's encoder that nothing more of the stream will be read (RFC 9204 §4.4.2)."""
        self._waiting.discard(stream_id)
        self._answer(self._decoder.cancel_stream(stream_id))

    def _answer(self, instructions: bytes) -> None:
        self.decoder_output += instructions
        self._unsaid += 1
        if self._unsaid >= self._patience:
            self.due = True

    def receive_encoder(self, data: bytes) -> list[int]:
        """Take bytes of the peer's encoder stream; returns the streams that wait no more. Raises H3Error."""
        self._patience = max(1, self._config.blocked_streams // 2)
        self.due = self.due or self._unsaid >= self._patience
        try:
            return self._decoder.feed_encoder(data)
        except EncoderStreamError as error:
            raise H3Error(ErrorCode.QPACK_ENCODER_STREAM_ERROR, "the encoder stream makes no sense") from error

    def receive_decoder(self, data: bytes) -> None:
        """Take bytes of the peer's decoder stream; raises H3Error."""
        try:
            self._encoder.feed_decoder(data)
        except DecoderStreamError as error:
            raise H3Error(ErrorCode.QPACK_DECODER_STREAM_ERROR, "the decoder stream makes no sense") from error
