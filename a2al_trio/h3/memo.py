"""Heads that one connection has seen before: checking a field section costs more than compressing it."""

from __future__ import annotations

from a2al_trio.h3.fields import Field, RequestHead, ResponseHead, content_length, section_size

__all__ = ["HeadMemo", "TooLarge"]

KEPT = 64
"""Heads that are remembered; then it begins anew."""
KEPT_SIZE = 1024
"""Larger ones are not, so that a peer can make us hold 64 KiB each way at most."""


class TooLarge(Exception):
    """A field section is larger than we take (RFC 9114 §4.2.2); becomes H3Error."""


class HeadMemo:
    """Turns heads into field sections and back, each different one only once."""

    def __init__(self, *, is_client: bool, limit: int) -> None:
        self._limit = limit
        self._read_kind: type[RequestHead | ResponseHead] = ResponseHead if is_client else RequestHead
        self._written: dict[RequestHead | ResponseHead, list[Field]] = {}
        self._read: dict[tuple[Field, ...], tuple[RequestHead | ResponseHead, int | None]] = {}

    def written(self, head: RequestHead | ResponseHead) -> list[Field] | None:
        """The field section of a head that was remembered."""
        return self._written.get(head)

    def remember(self, head: RequestHead | ResponseHead, fields: list[Field]) -> None:
        """Keep the field section of a head that may be sent again."""
        if section_size(fields) <= KEPT_SIZE:
            if len(self._written) >= KEPT:
                self._written.clear()
            self._written[head] = fields

    def forget_written(self) -> None:
        """Have heads checked again before they are sent."""
        self._written.clear()

    def read(self, fields: list[Field]) -> tuple[RequestHead | ResponseHead, int | None]:
        """The head that a field section is, with the length of its content if it is announced.

        Raises Malformed, and TooLarge for a section above the limit.
        """
        key = tuple(fields)
        known = self._read.get(key)
        if known is None:
            size = self.check_size(fields)
            head = self._read_kind.from_fields(fields)
            known = head, content_length(head.headers)
            if size <= KEPT_SIZE:
                if len(self._read) >= KEPT:
                    self._read.clear()
                self._read[key] = known
        return known

    def check_size(self, fields: list[Field]) -> int:
        """Return the size of a section; raises TooLarge if it is above the limit."""
        size = section_size(fields)
        if size > self._limit:
            raise TooLarge(f"a field section of {size} bytes")
        return size
