"""The sending side's bytes of one stream or CRYPTO stream: what is unsent, in flight, lost and acknowledged.

Large writes are kept as the caller's own bytes object and sliced straight into packets; small ones are gathered.
What was acknowledged is dropped from the front. No record is kept per packet: the loss recovery hands back
ranges of offsets (RFC 9000 §13.3).
"""

from __future__ import annotations

from bisect import bisect_right

from a2al_trio.quic.ranges import RangeSet

__all__ = ["SendBuffer"]

GATHER_BELOW = 2048
"""Writes smaller than this are gathered into blocks, so that a packet rarely spans several objects."""

BLOCK_SIZE = 16 * 1024
"""Blocks of gathered writes are not extended beyond this."""


class SendBuffer:
    """Bytes by stream offset, from the first unacknowledged one to the last written one.

    `next_offset` is the first byte never sent, `end` the byte behind the last one written, `lost` holds what must
    be sent again. `final` says that `end` is the end of the stream; a lost or unsent FIN is `fin_pending`. `message` is
    all there is to send, as long as none of it was sent, and not among the blocks yet.
    """

    __slots__ = (
        "_acked",
        "_blocks",
        "_starts",
        "acked_to",
        "end",
        "fin_acked",
        "fin_pending",
        "final",
        "lost",
        "message",
        "next_offset",
    )

    def __init__(self) -> None:
        self._blocks: list[bytes | bytearray] = []
        self._starts: list[int] = []
        self._acked: RangeSet | None = None  # beyond acked_to; made when first needed, as is `lost`
        self.acked_to = 0
        self.next_offset = 0
        self.end = 0
        self.lost: RangeSet | None = None
        self.final = False
        self.fin_pending = False
        self.fin_acked = False
        self.message: bytes | None = None

    @property
    def unsent(self) -> int:
        """Bytes written but never sent."""
        return self.end - self.next_offset

    @property
    def pending_bytes(self) -> int:
        """Bytes that could be sent in one piece, by and large."""
        if self.lost:
            start, stop = self.lost.first
            return stop - start
        return self.end - self.next_offset

    @property
    def has_pending(self) -> bool:
        """Whether there is something to send or to send again (flow control aside)."""
        return self.next_offset < self.end or bool(self.lost) or self.fin_pending

    @property
    def is_finished(self) -> bool:
        """Whether the peer has acknowledged everything, FIN included."""
        return self.fin_acked and self.acked_to == self.end

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; a bytes object is kept as it is, anything else is copied."""
        size = len(data)
        if not size:
            return
        blocks = self._blocks
        if size < GATHER_BELOW:
            last = blocks[-1] if blocks else None
            if type(last) is bytearray and len(last) < BLOCK_SIZE:
                last += data
            else:
                blocks.append(bytearray(data))
                self._starts.append(self.end)
        else:
            blocks.append(data if type(data) is bytes else bytes(data))
            self._starts.append(self.end)
        self.end += size

    def write_message(self, data: bytes) -> None:
        """Take all bytes of the stream at once, and the end with them; nothing was written before."""
        self.message = data
        self.end = len(data)
        self.final = self.fin_pending = True

    def on_message_sent(self) -> None:
        """Note that `message` is on its way, as a whole and with the end."""
        self._keep_message()
        self.next_offset = self.end
        self.fin_pending = False

    def _keep_message(self) -> None:
        """Keep `message` as all other data is kept, since it was sent or goes out in pieces."""
        assert self.message is not None
        self._blocks, self._starts, self.message = [self.message], [0], None

    def finish(self) -> None:
        """Mark the end of the stream."""
        self.final = True
        self.fin_pending = True

    def pieces(self, start: int, length: int, count: int) -> list[bytes | bytearray]:
        """Return `count` pieces of `length` bytes from offset `start` on."""
        if self.message is not None:
            self._keep_message()
        index = bisect_right(self._starts, start) - 1
        block, begin = self._blocks[index], start - self._starts[index]
        whole = min((len(block) - begin) // length, count)
        pieces = [block[at : at + length] for at in range(begin, begin + whole * length, length)]
        while len(pieces) < count:
            # This one spans blocks; what follows may lie within one again.
            at = start + len(pieces) * length
            pieces.append(self.peek(at, at + length))
            if len(pieces) < count:
                pieces += self.pieces(at + length, length, count - len(pieces))
        return pieces

    def peek(self, start: int, stop: int) -> bytes | bytearray:
        """Return the bytes from `start` to `stop`, which must still be there."""
        if start == stop:
            return b""
        if self.message is not None:
            self._keep_message()
        index = bisect_right(self._starts, start) - 1
        begin = start - self._starts[index]
        block = self._blocks[index]
        if begin + stop - start <= len(block):
            return block[begin : begin + stop - start]
        parts = [block[begin:]]
        missing = stop - start - len(parts[0])
        while missing > 0:
            index += 1
            parts.append(self._blocks[index][:missing])
            missing -= len(parts[-1])
        return b"".join(parts)

    def next_range(self) -> tuple[int, int]:
        """Return the range to send next: what was lost first, then new bytes; empty if only a FIN is left."""
        if self.lost:
            return self.lost.first
        return self.next_offset, self.end

    def on_sent(self, start: int, stop: int, *, fin: bool) -> None:
        """Note that these bytes, taken from the start of `next_range`, are on their way."""
        if self.message is not None:
            self._keep_message()
        self.next_offset = max(self.next_offset, stop)
        if self.lost:
            self.lost.subtract(start, stop)
        if fin:
            self.fin_pending = False

    def on_acked(self, start: int, stop: int, *, fin: bool = False) -> None:
        """Note that the peer has these bytes, and the FIN if `fin`."""
        if fin:
            self.fin_acked = True
            self.fin_pending = False
        if stop == self.end and start <= self.acked_to and not self.lost and not self._acked:
            # Everything has arrived, as it has at once of a small message.
            self.acked_to = stop
            self._blocks.clear()
            self._starts.clear()
            return
        if self.lost:
            self.lost.subtract(start, stop)
        acked = self._acked
        if start > self.acked_to:
            if acked is None:
                acked = self._acked = RangeSet()
            acked.add(start, stop)
            return
        if stop <= self.acked_to:
            return
        acked_to = stop
        while acked and acked.first[0] <= acked_to:
            acked_to = max(acked_to, acked.drop_first()[1])
        self.acked_to = acked_to
        # Drop the blocks that lie wholly below; the last one stays when it may still be extended.
        starts = self._starts
        keep = bisect_right(starts, acked_to) - 1
        if acked_to == self.end:
            keep = len(starts)
        if keep > 0:
            del starts[:keep]
            del self._blocks[:keep]

    def on_lost(self, start: int, stop: int, *, fin: bool = False) -> None:
        """Queue these bytes, and the FIN if `fin`, to be sent again unless they have arrived meanwhile."""
        if fin and not self.fin_acked:
            self.fin_pending = True
        start = max(start, self.acked_to)
        if start >= stop:
            return
        if self.lost is None:
            self.lost = RangeSet()
        if self._acked is None:
            self.lost.add(start, stop)
            return
        for gap_start, gap_stop in self._acked.gaps(start, stop):
            self.lost.add(gap_start, gap_stop)

    def rewind(self) -> None:
        """Queue everything unacknowledged to be sent again (0-RTT refused, Retry)."""
        self.on_lost(self.acked_to, self.next_offset, fin=self.final)

    def clear(self) -> None:
        """Drop all bytes; nothing will be sent again (the stream was reset)."""
        self.message = None
        self._blocks.clear()
        self._starts.clear()
        self.lost = self._acked = None
        self.fin_pending = False
        self.acked_to = self.end = self.next_offset
