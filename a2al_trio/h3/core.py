"""HTTP/3 without IO (RFC 9114): bytes of streams in, events out, for either side of one connection."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from a2al_trio.errors import LocalProtocolError
from a2al_trio.h3.config import H3Config
from a2al_trio.h3.datagrams import decode_datagram
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import (
    ConnectionEvent,
    GoAway,
    Head,
    MessageData,
    RequestEvent,
    SettingsReceived,
    Unblocked,
    Unwanted,
)
from a2al_trio.h3.fields import (
    Field,
    Malformed,
    RequestHead,
    ResponseHead,
    check_fields,
    content_length,
    section_size,
)
from a2al_trio.h3.frames import (
    DATA,
    HEADERS,
    HTTP2_FRAMES,
    FrameParser,
    FrameType,
    Setting,
    decode_settings,
    decode_single_id,
    encode_frame,
    encode_settings,
    frame_header,
)
from a2al_trio.h3.memo import VALUES, HeadMemo, Section
from a2al_trio.h3.message import END, MessageReceiver, receive_whole
from a2al_trio.h3.qpack import Qpack
from a2al_trio.quic.varint import MAX_VARINT, VarintError, decode_varint, encode_varint

__all__ = ["JOINED_SIZE", "H3Core", "StreamType"]

CONTROL_KEPT = frozenset({FrameType.SETTINGS, FrameType.GOAWAY, FrameType.MAX_PUSH_ID, FrameType.CANCEL_PUSH})
CONTROL_REFUSED = dict.fromkeys(
    (*HTTP2_FRAMES, FrameType.DATA, FrameType.HEADERS, FrameType.PUSH_PROMISE), ErrorCode.FRAME_UNEXPECTED
)
CONTROL_FRAME_SIZE = 4096
JOINED_SIZE = 4096
"""Content up to this size is copied behind its frame's header instead of being sent by itself."""
SMALL_SIZE = 1024
"""Sections that count more (RFC 9114 §4.2.2) use the dynamic table; whether they could do without is not tried."""


class StreamType(enum.IntEnum):
    """What a unidirectional stream begins with (RFC 9114 §6.2, RFC 9204 §4.2)."""

    CONTROL = 0x0
    PUSH = 0x1
    ENCODER = 0x2
    DECODER = 0x3


class H3Core:
    """One side of one HTTP/3 connection.

    The driver opens three unidirectional streams and sends on them what `take_output` gives; it hands in what comes
    on the peer's. Each request stream is handed in by itself, when its reader wants more: nothing of a body is held.
    After an H3Error whose `stream_id` is None the connection is to be closed with its code.
    """

    def __init__(self, *, is_client: bool, config: H3Config | None = None, datagrams: bool = False) -> None:
        self.config = config or H3Config()
        self.is_client = is_client
        self.offers_datagrams = datagrams
        """Whether we take HTTP datagrams, because our side takes QUIC datagrams (RFC 9297 §2.1.1)."""
        self.qpack = Qpack(self.config)
        self._memo = HeadMemo(self.qpack, is_client=is_client, limit=self.config.field_section_size)
        self._known, self._written = self._memo.known, self._memo.written
        settings: dict[int, int] = {
            Setting.QPACK_MAX_TABLE_CAPACITY: self.config.table_capacity,
            Setting.MAX_FIELD_SECTION_SIZE: self.config.field_section_size,
            Setting.QPACK_BLOCKED_STREAMS: self.config.blocked_streams,
        }
        if self.config.extended_connect and not is_client:
            settings[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        if datagrams:
            settings[Setting.H3_DATAGRAM] = 1
        self._control_output = bytearray(encode_settings(settings))
        self._control = FrameParser(kept=CONTROL_KEPT, refused=CONTROL_REFUSED, limit=CONTROL_FRAME_SIZE)
        self._beginnings: dict[int, bytes] = {}
        self._critical: dict[StreamType, int] = {}
        self._messages: dict[int, MessageReceiver] = {}
        self._unblocked: set[int] = set()
        self._heads_asked: set[int] = set()
        self._peer_field_section_size = MAX_VARINT
        self._peer_max_push_id = -1
        self.settings: dict[int, int] | None = None
        """The peer's, once they have come."""
        self.peer_goaway: int | None = None
        """Identifier of the peer's latest GOAWAY."""
        self.goaway: int | None = None
        """First request stream that our GOAWAY refused."""

    # --- sending -------------------------------------------------------------------------------------------------

    def head_section(self, head: RequestHead | ResponseHead) -> Section:
        """Return the field section for a head, to be given to `send_section`; raises LocalProtocolError."""
        section = self._written.get(VALUES[type(head)](head))
        return self._new_head_section(head) if section is None else section

    def _new_head_section(self, head: RequestHead | ResponseHead) -> Section:
        if type(head) is RequestHead and head.protocol and not self.takes_extended_connect:
            raise LocalProtocolError("the server has not said that it takes extended CONNECT (RFC 9220 §3)")
        section = self._section(head.fields(), content_length(head.headers) or 0)
        self._memo.remember(head, section)
        return section

    @property
    def takes_extended_connect(self) -> bool:
        """Whether the peer's settings, once they have come, allow requests with a `protocol`."""
        return self.settings is not None and self.settings.get(Setting.ENABLE_CONNECT_PROTOCOL) == 1

    @property
    def takes_datagrams(self) -> bool:
        """Whether HTTP datagrams may be sent in QUIC datagrams: both sides have said that they take them."""
        return self.offers_datagrams and self.settings is not None and self.settings.get(Setting.H3_DATAGRAM) == 1

    def trailer_section(self, trailers: Iterable[Field]) -> Section:
        """Return the field section for trailers, to be given to `send_section`; raises LocalProtocolError."""
        fields = list(trailers)
        try:
            check_fields(fields)
        except Malformed as error:
            raise LocalProtocolError(f"the trailers are malformed: {error}") from error
        return self._section(fields)

    def _section(self, fields: list[Field], announced: int = -1) -> Section:
        size = section_size(fields)
        if size > self._peer_field_section_size:
            raise LocalProtocolError(f"the fields count {size} bytes, the peer takes {self._peer_field_section_size}")
        block = self.qpack.encode_small(fields) if size <= SMALL_SIZE else None
        frame = None if block is None else encode_frame(HEADERS, block)
        asks_head = fields[:1] == [(b":method", b"HEAD")]
        if frame is None or asks_head or not 0 <= announced <= JOINED_SIZE:
            return Section(fields, size, frame, asks_head)
        opening = frame + frame_header(DATA, announced) if announced else frame
        return Section(fields, size, frame, asks_head, opening, announced)

    def send_section(self, stream_id: int, section: Section) -> bytes:
        """Return the bytes that carry a field section on a request stream."""
        if section.asks_head:
            self._heads_asked.add(stream_id)
        if section.frame is not None:
            return section.frame
        return encode_frame(HEADERS, self.qpack.encode(stream_id, section.fields))

    def send_goaway(self, stream_id: int) -> None:
        """Announce that no request from `stream_id` on is taken (RFC 9114 §5.2); a server's word only."""
        if self.goaway is None or stream_id < self.goaway:
            self.goaway = stream_id
            self._control_output += encode_frame(FrameType.GOAWAY, encode_varint(stream_id))

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would give something that should not wait, see Qpack."""
        return self.qpack.due or bool(self._control_output)

    def take_output(self) -> list[tuple[StreamType, bytes]]:
        """What is due on our unidirectional streams, without the types they begin with."""
        output = []
        for kind, buffer in (
            (StreamType.CONTROL, self._control_output),
            (StreamType.ENCODER, self.qpack.encoder_output),
            (StreamType.DECODER, self.qpack.decoder_output),
        ):
            if buffer:
                output.append((kind, bytes(buffer)))
                buffer.clear()
        self.qpack.output_taken()
        return output

    # --- request streams -----------------------------------------------------------------------------------------

    def receive_whole(self, stream_id: int, data: bytes) -> tuple[Any, bytes] | None:
        """Take all bytes of a request stream, up to its end, if they are a head and content in one piece.

        Most small messages are. The head is of a request for a server, of a response for a client. None if it is
        another message, which `receive_request` takes; that raises the same. Neither knows the stream afterwards.
        """
        try:
            # A section of less than 64 bytes lies behind its type and size; that these are so the opening tells.
            known = None if self._heads_asked else self._known.get(data[2 : 2 + data[1]])
        except IndexError:
            return None
        if known is not None and len(data) == known.whole_size and data.startswith(known.opening):
            return known.event.head, data[len(known.opening) :]
        if len(data) > self.config.field_block_size:
            return None
        whole = receive_whole(stream_id, data, self._memo, no_content=stream_id in self._heads_asked)
        if whole is not None:
            self._heads_asked.discard(stream_id)
            if self.qpack.due:
                self._check_output()
        return whole

    def receive_request(self, stream_id: int, data: bytes, *, end: bool = False) -> list[RequestEvent]:
        """Take bytes of a request stream.

        Give none while `is_blocked`: they would be held. Raises H3Error; if it has a `stream_id`, that stream is to be
        reset and stopped with its code, and `abandon` called.
        """
        message = self._messages.get(stream_id)
        if message is None:
            if end and (whole := self.receive_whole(stream_id, data)) is not None:
                head, content = whole
                return [Head(head), MessageData(content), END] if content else [Head(head), END]
            message = MessageReceiver(stream_id, self.qpack, self._memo, self.config, is_client=self.is_client)
            self._messages[stream_id] = message
        no_content = stream_id in self._heads_asked
        resumed = []
        if stream_id in self._unblocked:
            self._unblocked.discard(stream_id)
            resumed.append(message.resume(no_content=no_content))
        events = resumed + message.receive(data, end=end, no_content=no_content)
        self._check_output()
        return events

    def is_blocked(self, stream_id: int) -> bool:
        """Whether the stream waits for the dynamic table; `Unblocked` ends that."""
        message = self._messages.get(stream_id)
        return message is not None and message.blocked and stream_id not in self._unblocked

    def forget(self, stream_id: int) -> None:
        """The message on this stream has been received to its end."""
        self._messages.pop(stream_id, None)
        self._heads_asked.discard(stream_id)

    def abandon(self, stream_id: int) -> None:
        """The stream was reset, or its reader wants no more: its field sections will not be decoded."""
        self.forget(stream_id)
        self._unblocked.discard(stream_id)
        self.qpack.cancel(stream_id)

    def receive_datagram(self, data: bytes) -> tuple[int, bytes]:
        """Take a QUIC datagram; returns the request stream it is for, and its payload. Raises H3Error."""
        return decode_datagram(data)

    # --- unidirectional streams ----------------------------------------------------------------------------------

    def receive_unidirectional(self, stream_id: int, data: bytes, *, end: bool = False) -> list[ConnectionEvent]:
        """Take bytes of a unidirectional stream of the peer; raises H3Error, always of the connection."""
        events: list[ConnectionEvent] = []
        kind = next((kind for kind, critical in self._critical.items() if critical == stream_id), None)
        if kind is None:
            data = self._beginnings.pop(stream_id, b"") + data
            try:
                number, offset = decode_varint(data, 0)
            except VarintError:
                if not end:
                    self._beginnings[stream_id] = data
                return events
            kind = self._identify(number, stream_id)
            if kind is None:
                return [Unwanted(stream_id)]
            data = data[offset:]
        if data:
            if kind is StreamType.CONTROL:
                self._receive_control(data, events)
            elif kind is StreamType.ENCODER:
                self._receive_encoder(data, events)
            else:
                self.qpack.receive_decoder(data)
        if end:
            self.unidirectional_reset(stream_id)
        self._check_output()
        return events

    def unidirectional_reset(self, stream_id: int) -> None:
        """A unidirectional stream ended or was reset; raises H3Error if the connection needs it (RFC 9114 §6.2.1)."""
        self._beginnings.pop(stream_id, None)
        if stream_id in self._critical.values():
            raise H3Error(ErrorCode.CLOSED_CRITICAL_STREAM, "the peer closed a stream that the connection needs")

    def _identify(self, number: int, stream_id: int) -> StreamType | None:
        if number not in StreamType.__members__.values():
            return None
        kind = StreamType(number)
        if kind is StreamType.PUSH:
            code = ErrorCode.ID_ERROR if self.is_client else ErrorCode.STREAM_CREATION_ERROR
            raise H3Error(code, "a push stream, which nobody allowed")
        if kind in self._critical:
            raise H3Error(ErrorCode.STREAM_CREATION_ERROR, f"a second {kind.name.lower()} stream")
        self._critical[kind] = stream_id
        return kind

    def _receive_encoder(self, data: bytes, events: list[ConnectionEvent]) -> None:
        self._memo.forget_read()
        for stream_id in self.qpack.receive_encoder(data):
            if stream_id in self._messages:
                self._unblocked.add(stream_id)
                events.append(Unblocked(stream_id))

    def _receive_control(self, data: bytes, events: list[ConnectionEvent]) -> None:
        self._control.feed(data)
        while True:
            frame = self._control.next_frame()
            if self._control.first not in (None, FrameType.SETTINGS):
                raise H3Error(ErrorCode.MISSING_SETTINGS, "the control stream does not begin with SETTINGS")
            if frame is None:
                return
            if frame.kind == FrameType.SETTINGS:
                self._take_settings(decode_settings(frame.payload))
                events.append(SettingsReceived(self.settings or {}))
                continue
            identifier = decode_single_id(frame.payload)
            if frame.kind == FrameType.GOAWAY:
                self._take_goaway(identifier)
                events.append(GoAway(identifier))
            elif frame.kind == FrameType.MAX_PUSH_ID:
                self._take_max_push_id(identifier)
            else:  # CANCEL_PUSH, of a push that there cannot be
                raise H3Error(ErrorCode.ID_ERROR, "there are no pushes to cancel")

    def _take_settings(self, settings: dict[int, int]) -> None:
        if self.settings is not None:
            raise H3Error(ErrorCode.FRAME_UNEXPECTED, "SETTINGS come twice")
        self.settings = settings
        self._peer_field_section_size = settings.get(Setting.MAX_FIELD_SECTION_SIZE, MAX_VARINT)
        self._memo.forget_written()  # which was not held against this limit
        self.qpack.apply_settings(
            table_capacity=settings.get(Setting.QPACK_MAX_TABLE_CAPACITY, 0),
            blocked_streams=settings.get(Setting.QPACK_BLOCKED_STREAMS, 0),
        )

    def _take_goaway(self, identifier: int) -> None:
        if self.is_client and identifier % 4:
            raise H3Error(ErrorCode.ID_ERROR, "GOAWAY names no request stream")
        if self.peer_goaway is not None and identifier > self.peer_goaway:
            raise H3Error(ErrorCode.ID_ERROR, "GOAWAY takes back what was refused")
        self.peer_goaway = identifier

    def _take_max_push_id(self, identifier: int) -> None:
        if self.is_client:
            raise H3Error(ErrorCode.FRAME_UNEXPECTED, "MAX_PUSH_ID is a client's word")
        if identifier < self._peer_max_push_id:
            raise H3Error(ErrorCode.ID_ERROR, "MAX_PUSH_ID goes down")
        self._peer_max_push_id = identifier

    def _check_output(self) -> None:
        """A peer that takes no instructions on our QPACK streams must not make us collect them for ever."""
        if len(self.qpack.decoder_output) + len(self.qpack.encoder_output) > self.config.held_size:
            raise H3Error(ErrorCode.EXCESSIVE_LOAD, "the peer does not read our QPACK streams")
