"""Heads that one connection has seen before: checking a field section costs more than compressing it."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import Head
from a2al_trio.h3.fields import Field, Malformed, RequestHead, ResponseHead, content_length, section_size
from a2al_trio.h3.qpack import Qpack

__all__ = ["HeadMemo", "KnownHead", "Section"]

KEPT = 64
"""Heads that are remembered; then it begins anew."""
KEPT_SIZE = 1024
"""Larger ones are not, so that a peer can make us hold little more than 64 KiB each way."""
NO_CONTENT = (204, 304)
"""Responses that have none, whatever they announce (RFC 9110 §6.4.1)."""

KnownHead: TypeAlias = tuple[Head, int | None]
"""The event that says that a message begins, and how long its content has to be if that is known."""


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


class HeadMemo:
    """Turns heads into field sections and encoded field sections into heads, each different one only once."""

    def __init__(self, qpack: Qpack, *, is_client: bool, limit: int) -> None:
        self._qpack = qpack
        self._limit = limit
        self._read_kind: type[RequestHead | ResponseHead] = ResponseHead if is_client else RequestHead
        self._written: dict[RequestHead | ResponseHead, Section] = {}
        self._read: dict[bytes, KnownHead] = {}

    def written(self, head: RequestHead | ResponseHead) -> Section | None:
        """The field section of a head that was remembered."""
        return self._written.get(head)

    def remember(self, head: RequestHead | ResponseHead, section: Section) -> None:
        """Keep the field section of a head that may be sent again."""
        if section.size <= KEPT_SIZE:
            if len(self._written) >= KEPT:
                self._written.clear()
            self._written[head] = section

    def forget_written(self) -> None:
        """Have heads checked again before they are sent."""
        self._written.clear()

    def forget_read(self) -> None:
        """Have encoded sections decoded again: the dynamic table has changed, so they may mean something else."""
        self._read.clear()

    def read(self, stream_id: int, block: bytes) -> KnownHead | None:
        """The head that an encoded section is; None if it waits for the dynamic table. Raises H3Error."""
        known = self._read.get(block)
        if known is not None:
            self._qpack.decode_known(stream_id, block)
            return known
        fields = self._qpack.decode(stream_id, block)
        if fields is None:
            return None
        known = self.check(stream_id, fields)
        if len(block) <= KEPT_SIZE and section_size(fields) <= KEPT_SIZE:
            if len(self._read) >= KEPT:
                self._read.clear()
            self._read[block] = known
        return known

    def check(self, stream_id: int, fields: list[Field]) -> KnownHead:
        """The head that a field section is; raises H3Error."""
        self.check_size(stream_id, fields)
        try:
            head = self._read_kind.from_fields(fields)
            no_content = isinstance(head, ResponseHead) and head.status in NO_CONTENT
            return Head(head), 0 if no_content else content_length(head.headers)
        except Malformed as error:
            raise H3Error(ErrorCode.MESSAGE_ERROR, str(error), stream_id) from error

    def check_size(self, stream_id: int, fields: list[Field]) -> None:
        """Refuse a section above the limit (RFC 9114 §4.2.2) by H3Error."""
        size = section_size(fields)
        if size > self._limit:
            raise H3Error(ErrorCode.EXCESSIVE_LOAD, f"a field section of {size} bytes", stream_id)
