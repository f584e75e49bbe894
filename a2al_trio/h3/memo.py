"""Heads that one connection has seen before: checking a field section costs more than compressing it."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import attrs

from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import Head
from a2al_trio.h3.fields import Field, Malformed, RequestHead, ResponseHead, content_length, section_size
from a2al_trio.h3.frames import DATA, HEADERS, encode_frame, frame_header
from a2al_trio.h3.qpack import Qpack

__all__ = ["VALUES", "HeadMemo", "KnownHead", "Section"]

KEPT = 64
"""Heads that are remembered; then it begins anew."""
KEPT_SIZE = 1024
"""Larger ones are not, so that a peer can make us hold little more than 64 KiB each way."""
NO_CONTENT = (204, 304)
"""Responses that have none, whatever they announce (RFC 9110 §6.4.1)."""

VALUES: dict[type[RequestHead | ResponseHead], Callable[[RequestHead | ResponseHead], tuple[object, ...]]] = {
    kind: attrgetter(*(field.name for field in attrs.fields(kind))) for kind in (RequestHead, ResponseHead)
}
"""What to find a head by: a tuple of its values is hashed and compared several times as fast as the head itself."""


@attrs.define
class KnownHead:
    """A head that was read."""

    event: Head
    """What says that a message begins."""
    expected: int | None
    """How long the content has to be, if that is known."""
    opening: bytes = b""
    """What comes before the content in the usual message with this head, whose content comes in one DATA frame and is
    as long as is announced, or which has none if nothing is announced."""
    whole_size: int = -1
    """Bytes of that message; -1 if there is no such, if it takes more than a look at the bytes to tell, or if the head
    came only once."""

    def came_again(self, block: bytes) -> None:
        """Find out what the usual message with this head looks like, to know it at once the next time.

        There is none if its section has to be acknowledged (RFC 9204 §4.4.1), if the size of its frame takes more than
        a byte, and if it is interim.
        """
        head, expected = self.event.head, self.expected or 0
        if block[0] or len(block) >= 0x40 or (type(head) is ResponseHead and head.status < 200):
            return
        self.opening = encode_frame(HEADERS, block)
        if expected:
            self.opening += frame_header(DATA, expected)
        self.whole_size = len(self.opening) + expected


@attrs.frozen
class Section:
    """A field section that keeps the rules, and may be sent."""

    fields: list[Field]
    size: int
    """As RFC 9114 §4.2.2 counts it."""
    frame: bytes | None
    """The whole HEADERS frame if it is small enough to do without the dynamic table, and so always the same."""
    asks_head: bool
    """Whether it is a request whose answer has no content (RFC 9110 §9.3.2)."""
    opening: bytes = b""
    """`frame`, and what comes between it and content that is as long as `announced`."""
    announced: int = -1
    """How long the content is to be, 0 too if that is not said; -1 if so much is sent by itself, or if `send_section`
    has to be asked for the frame."""


class HeadMemo:
    """Turns heads into field sections and encoded field sections into heads, each different one only once."""

    def __init__(self, qpack: Qpack, *, is_client: bool, limit: int) -> None:
        self._qpack = qpack
        self._limit = limit
        self._read_kind: type[RequestHead | ResponseHead] = ResponseHead if is_client else RequestHead
        self.written: dict[tuple[object, ...], Section] = {}
        """The field sections of heads that were sent, by the values of these."""
        self.known: dict[bytes, KnownHead] = {}
        """The heads that encoded sections are."""

    def remember(self, head: RequestHead | ResponseHead, section: Section) -> None:
        """Keep the field section of a head that may be sent again."""
        if section.size <= KEPT_SIZE:
            if len(self.written) >= KEPT:
                self.written.clear()
            self.written[VALUES[type(head)](head)] = section

    def forget_written(self) -> None:
        """Have heads checked again before they are sent."""
        self.written.clear()

    def forget_read(self) -> None:
        """Have encoded sections decoded again: the dynamic table has changed, so they may mean something else."""
        self.known.clear()

    def read(self, stream_id: int, block: bytes) -> KnownHead | None:
        """The head that an encoded section is; None if it waits for the dynamic table. Raises H3Error."""
        known = self.known.get(block)
        if known is not None:
            self._qpack.decode_known(stream_id, block)
            if known.whole_size < 0:
                known.came_again(block)
            return known
        fields = self._qpack.decode(stream_id, block)
        if fields is None:
            return None
        known = self.check(stream_id, fields)
        if len(block) <= KEPT_SIZE and section_size(fields) <= KEPT_SIZE:
            if len(self.known) >= KEPT:
                self.known.clear()
            self.known[block] = known
        return known

    def check(self, stream_id: int, fields: list[Field]) -> KnownHead:
        """The head that a field section is; raises H3Error."""
        self.check_size(stream_id, fields)
        try:
            head = self._read_kind.from_fields(fields)
            no_content = isinstance(head, ResponseHead) and head.status in NO_CONTENT
            return KnownHead(Head(head), 0 if no_content else content_length(head.headers))
        except Malformed as error:
            raise H3Error(ErrorCode.MESSAGE_ERROR, str(error), stream_id) from error

    def check_size(self, stream_id: int, fields: list[Field]) -> None:
        """Refuse a section above the limit (RFC 9114 §4.2.2) by H3Error."""
        size = section_size(fields)
        if size > self._limit:
            raise H3Error(ErrorCode.EXCESSIVE_LOAD, f"a field section of {size} bytes", stream_id)
