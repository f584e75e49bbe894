"""Receiving one message: HEADERS, DATA, trailers, in that order and no more (RFC 9114 §4.1)."""

from __future__ import annotations

import enum

from a2al_trio.h3.config import H3Config
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import MessageData, MessageEnd, RequestEvent, Trailers
from a2al_trio.h3.fields import Field, Malformed, RequestHead, ResponseHead, check_fields
from a2al_trio.h3.frames import DATA, HTTP2_FRAMES, FrameParser, FrameType, split_message
from a2al_trio.h3.memo import HeadMemo, KnownHead
from a2al_trio.h3.qpack import Qpack

__all__ = ["END", "MessageReceiver", "receive_whole"]

KEPT = frozenset({FrameType.HEADERS})
REFUSED = dict.fromkeys(
    (
        *HTTP2_FRAMES,
        FrameType.CANCEL_PUSH,
        FrameType.SETTINGS,
        FrameType.PUSH_PROMISE,
        FrameType.GOAWAY,
        FrameType.MAX_PUSH_ID,
    ),
    ErrorCode.FRAME_UNEXPECTED,
)
# We never send MAX_PUSH_ID: every push ID is too large (RFC 9114 §7.2.5).
REFUSED_BY_CLIENT = REFUSED | {FrameType.PUSH_PROMISE: ErrorCode.ID_ERROR}


INTERIM_HEADS = 32
"""Heads that may come before the final one."""
END = MessageEnd()


def receive_whole(
    stream_id: int, data: bytes, memo: HeadMemo, *, no_content: bool
) -> tuple[RequestHead | ResponseHead, bytes] | None:
    """Take all bytes of a stream at once if they are a message of the usual form: a head, and content in one piece.

    Most small messages are, and this spares them a MessageReceiver, which takes all the others: those for which this
    returns None. Their head has not been read, or waits for the dynamic table. `data` is not larger than a field
    section may be. Raises H3Error as MessageReceiver does.
    """
    parts = split_message(data)
    if parts is None:
        return None
    block, content = parts
    known = memo.read(stream_id, block)
    if known is None:
        return None
    head, expected = known.event.head, known.expected
    if type(head) is ResponseHead and head.status < 200:
        if content is None:
            raise H3Error(ErrorCode.MESSAGE_ERROR, "a stream ends before its message", stream_id)
        raise H3Error(ErrorCode.FRAME_UNEXPECTED, "DATA in the wrong place")
    size = 0 if content is None else len(content)
    if no_content:
        expected = 0
    if expected is not None and size != expected:
        how = "more" if size > expected else "less"
        raise H3Error(ErrorCode.MESSAGE_ERROR, f"{how} content than announced", stream_id)
    return head, content or b""


class Stage(enum.Enum):
    """What may come next."""

    HEAD = enum.auto()
    CONTENT = enum.auto()
    END = enum.auto()


class MessageReceiver:
    """The receiving half of one request stream; a client's receives responses."""

    __slots__ = (
        "_blocked",
        "_config",
        "_ended",
        "_expected",
        "_interim",
        "_is_client",
        "_memo",
        "_parser",
        "_qpack",
        "_stage",
        "_stream_id",
    )

    def __init__(self, stream_id: int, qpack: Qpack, memo: HeadMemo, config: H3Config, *, is_client: bool) -> None:
        self._stream_id = stream_id
        self._qpack = qpack
        self._memo = memo
        self._config = config
        self._is_client = is_client
        self._parser = FrameParser(
            kept=KEPT,
            refused=REFUSED_BY_CLIENT if is_client else REFUSED,
            limit=config.field_block_size,
            stream_id=stream_id,
        )
        self._stage = Stage.HEAD
        self._blocked = False
        self._ended = False
        self._expected: int | None = None
        self._interim = 0

    @property
    def blocked(self) -> bool:
        """Whether it waits for the dynamic table; give it no more bytes then."""
        return self._blocked

    def receive(self, data: bytes, *, end: bool, no_content: bool) -> list[RequestEvent]:
        """Take bytes of the stream; `no_content` says that this is the answer to HEAD. Raises H3Error."""
        events: list[RequestEvent] = []
        self._parser.feed(data)
        self._ended = self._ended or end
        if self._blocked and self._parser.held > self._config.held_size:
            raise H3Error(ErrorCode.EXCESSIVE_LOAD, "too much waits for a field section", self._stream_id)
        content: list[bytes] = []
        while not self._blocked and (frame := self._parser.next_frame()) is not None:
            if frame.kind == DATA:
                self._check_data(frame.payload)
                content.append(frame.payload)
            else:
                _hand_over(content, events)
                if self._stage is Stage.END:
                    raise H3Error(ErrorCode.FRAME_UNEXPECTED, "HEADERS after the trailers")
                event = self._receive_section(frame.payload, no_content=no_content)
                if event is None:
                    self._blocked = True
                else:
                    events.append(event)
        _hand_over(content, events)
        if self._ended and not self._blocked:
            self._finish(events)
        return events

    def resume(self, *, no_content: bool) -> RequestEvent:
        """Decode the section that waited; raises H3Error."""
        self._blocked = False
        fields = self._qpack.resume(self._stream_id)
        if self._stage is Stage.CONTENT:
            return self._trailers(fields)
        return self._head(self._memo.check(self._stream_id, fields), no_content=no_content)

    def _check_data(self, data: bytes) -> None:
        if self._stage is not Stage.CONTENT:
            raise H3Error(ErrorCode.FRAME_UNEXPECTED, "DATA in the wrong place")
        if self._expected is not None:
            self._expected -= len(data)
            if self._expected < 0:
                raise H3Error(ErrorCode.MESSAGE_ERROR, "more content than announced", self._stream_id)

    def _receive_section(self, block: bytes, *, no_content: bool) -> RequestEvent | None:
        """Decode a section; None if it waits for the dynamic table."""
        if self._stage is Stage.CONTENT:
            fields = self._qpack.decode(self._stream_id, block)
            return None if fields is None else self._trailers(fields)
        known = self._memo.read(self._stream_id, block)
        return None if known is None else self._head(known, no_content=no_content)

    def _trailers(self, fields: list[Field]) -> RequestEvent:
        self._memo.check_size(self._stream_id, fields)
        try:
            check_fields(fields)
        except Malformed as error:
            raise H3Error(ErrorCode.MESSAGE_ERROR, str(error), self._stream_id) from error
        self._stage = Stage.END
        return Trailers(tuple(fields))

    def _head(self, known: KnownHead, *, no_content: bool) -> RequestEvent:
        event = known.event
        if isinstance(event.head, ResponseHead) and event.head.status < 200:
            self._interim += 1
            if self._interim > INTERIM_HEADS:
                raise H3Error(ErrorCode.EXCESSIVE_LOAD, "interim responses without end", self._stream_id)
            return event
        self._stage = Stage.CONTENT
        self._expected = 0 if no_content else known.expected
        return event

    def _finish(self, events: list[RequestEvent]) -> None:
        if not self._parser.between_frames:
            raise H3Error(ErrorCode.FRAME_ERROR, "a stream ends inside a frame")
        if self._stage is Stage.HEAD:
            code = ErrorCode.MESSAGE_ERROR if self._is_client else ErrorCode.REQUEST_INCOMPLETE
            raise H3Error(code, "a stream ends before its message", self._stream_id)
        if self._expected:
            raise H3Error(ErrorCode.MESSAGE_ERROR, "less content than announced", self._stream_id)
        events.append(END)


def _hand_over(content: list[bytes], events: list[RequestEvent]) -> None:
    """Make one event of all content that came in a row: frames of a byte each must not become an object each."""
    if content:
        if data := content[0] if len(content) == 1 else b"".join(content):
            events.append(MessageData(data))
        content.clear()
