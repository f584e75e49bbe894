"""The receiving side's bytes of one stream or CRYPTO stream, put in order (RFC 9000 §2.2).

Data in order goes to a list of ready chunks without another copy. Data ahead of order is kept by ranges of
offsets and joins the ready chunks when its gap is filled. What may be held is bounded by flow control: every kept
byte is kept once, adjacent pieces are merged, and a peer that leaves holes all over the place is sent away.
"""

from __future__ import annotations

from bisect import bisect_right, insort

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode

__all__ = ["Assembler"]

MERGE_FROM = 64
"""Adjacent out-of-order pieces are merged when this many are kept, and then whenever their number has doubled."""

MAX_SPARSE_PIECES = 256
MIN_SPREAD = 64
"""More pieces than this must lie so many bytes apart on average: losses never look otherwise, attacks on the memory for
reassembly do (RFC 9000 §21.7)."""

MERGED_SIZE = 16 * 1024
"""Pieces are not merged beyond this."""


class Assembler:
    """Bytes by stream offset: `received_to` is the end of what is in order, `read_to` of what was taken out.

    `final_size` is the size of the whole stream once known.
    """

    __slots__ = (
        "_merge_at",
        "_pieces",
        "_ready",
        "_skip",
        "_starts",
        "final_size",
        "highest",
        "read_to",
        "received_to",
    )

    def __init__(self) -> None:
        self._ready: list[bytes] = []
        self._skip = 0  # bytes of the first ready chunk that were taken already
        self._starts: list[int] = []
        self._pieces: dict[int, bytes] = {}
        self._merge_at = MERGE_FROM
        self.received_to = 0
        self.read_to = 0
        self.highest = 0
        self.final_size: int | None = None

    @property
    def readable(self) -> int:
        """Bytes that can be read now."""
        return self.received_to - self.read_to

    @property
    def is_complete(self) -> bool:
        """Whether all bytes up to the end of the stream have arrived."""
        return self.received_to == self.final_size

    @property
    def is_read(self) -> bool:
        """Whether all bytes up to the end of the stream have been read."""
        return self.read_to == self.final_size

    @property
    def pieces(self) -> int:
        """How many out-of-order pieces are kept."""
        return len(self._starts)

    def extend_in_order(self, chunks: list[bytes], size: int) -> None:
        """Take `chunks` of `size` bytes that begin exactly at `received_to`."""
        self._ready.extend(chunks)
        self.received_to += size
        self.highest = max(self.highest, self.received_to)
        if self._starts:
            self._join_pieces()

    def take_whole(self, data: bytes | None, size: int) -> None:
        """Take all the `size` bytes of a stream of which nothing has arrived before; None if they were read already."""
        self.received_to = self.highest = self.final_size = size
        if data is None:
            self.read_to = size
        else:
            self._ready.append(data)

    def insert(self, offset: int, data: bytes) -> None:
        """Take `data` at `offset`, whatever part of it is new; raises QuicTransportError if it is all holes."""
        end = offset + len(data)
        self.highest = max(self.highest, end)
        if end <= self.received_to or not data:
            return
        if offset <= self.received_to:
            self._ready.append(data if offset == self.received_to else data[self.received_to - offset :])
            self.received_to = end
            if self._starts:
                self._join_pieces()
            return
        self._keep(offset, data)

    def _keep(self, offset: int, data: bytes) -> None:
        starts, pieces = self._starts, self._pieces
        end = offset + len(data)
        index = bisect_right(starts, offset) - 1
        if index >= 0:
            before = starts[index]
            before_end = before + len(pieces[before])
            if before_end >= end:
                return
            if before_end > offset:
                data = data[before_end - offset :]
                offset = before_end
        index += 1
        while index < len(starts) and starts[index] < end:
            after = starts[index]
            if after + len(pieces[after]) <= end:
                del pieces[after]
                del starts[index]
            else:
                data = data[: after - offset]
                break
        if data:
            insort(starts, offset)
            pieces[offset] = data
            if len(starts) >= self._merge_at:
                self._merge_pieces()

    def _merge_pieces(self) -> None:
        merged: dict[int, list[bytes]] = {}
        start = end = -1
        for offset in self._starts:
            piece = self._pieces[offset]
            if offset == end and end - start < MERGED_SIZE:
                merged[start].append(piece)
            else:
                start = offset
                merged[start] = [piece]
            end = offset + len(piece)
        count = len(merged)
        if count > MAX_SPARSE_PIECES and self.highest - self.received_to < count * MIN_SPREAD:
            raise QuicTransportError(TransportErrorCode.INTERNAL_ERROR, "a stream in too many pieces")
        self._merge_at = max(MERGE_FROM, 2 * count)
        self._starts = list(merged)
        self._pieces = {offset: b"".join(parts) for offset, parts in merged.items()}

    def _join_pieces(self) -> None:
        starts, pieces = self._starts, self._pieces
        count = 0
        for start in starts:
            if start > self.received_to:
                break
            piece = pieces.pop(start)
            skip = self.received_to - start
            if skip < len(piece):
                self._ready.append(piece[skip:] if skip else piece)
                self.received_to = start + len(piece)
            count += 1
        del starts[:count]

    def read(self, limit: int) -> bytes:
        """Take up to `limit` bytes in order; empty if none are there."""
        ready = self._ready
        if not ready:
            return b""
        if len(ready) == 1 and not self._skip and len(ready[0]) <= limit:
            data = ready.pop()
            self.read_to += len(data)
            return data
        if self._skip:
            first = ready[0]
            if len(first) - self._skip > limit:
                data = first[self._skip : self._skip + limit]
                self._skip += limit
                self.read_to += limit
                return data
            ready[0] = first[self._skip :]
            self._skip = 0
        if self.received_to - self.read_to <= limit:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            ready.clear()
        else:
            parts, room, taken = [], limit, 0
            while room > 0:
                chunk = ready[taken]
                if len(chunk) > room:
                    chunk = chunk[:room]
                    self._skip = room
                else:
                    taken += 1
                parts.append(chunk)
                room -= len(chunk)
            del ready[:taken]
            data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.read_to += len(data)
        return data

    def peek(self, limit: int) -> bytes:
        """Return up to `limit` bytes that `read` would give, without taking them; meant for small limits."""
        parts, size = [], -self._skip
        for chunk in self._ready:
            parts.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
        return b"".join(parts)[self._skip : self._skip + limit]

    def clear(self) -> None:
        """Drop what is held; nothing will be read any more."""
        self._ready.clear()
        self._starts.clear()
        self._pieces.clear()
        self._skip = 0
        self.read_to = self.received_to
