"""How many streams each side may open (RFC 9000 §4.6); kind 0 is bidirectional, kind 1 unidirectional."""

from __future__ import annotations

from collections.abc import Callable

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode

__all__ = ["StreamCounts"]

SCARCE_STREAMS = 32


class StreamCounts:
    """Streams opened so far by both sides and the limits on them, by kind.

    `on_available` is told the kind when the peer's limit rises after a stream was wanted in vain.
    """

    __slots__ = (
        "_allowance", "_local_limit", "_on_available", "_peer_open", "_wanted", "blocked_pending", "is_scarce",
        "limits_pending", "local_next", "peer_limit", "peer_next",
    )  # fmt: skip

    def __init__(self, *, bidirectional: int, unidirectional: int, on_available: Callable[[bool], None]) -> None:
        self._on_available = on_available
        self.local_next = [0, 0]
        self._local_limit = [0, 0]
        self._wanted = [False, False]
        self.peer_next = [0, 0]
        self._allowance = [bidirectional, unidirectional]
        self.peer_limit = [bidirectional, unidirectional]
        self._peer_open = [0, 0]
        self.is_scarce = False
        """Whether there was little room for others when we last opened a stream, or wanted to."""
        self.limits_pending: set[int] = set()
        """The kinds for which MAX_STREAMS is to be sent."""
        self.blocked_pending: set[int] = set()
        """The kinds for which STREAMS_BLOCKED is to be sent."""

    # Ours

    def take_local(self, kind: int) -> int | None:
        """Return the number of our next stream; None while the peer's limit is reached (STREAMS_BLOCKED is sent)."""
        number = self.local_next[kind]
        if number >= self._local_limit[kind]:
            if not self._wanted[kind]:
                self._wanted[kind] = True
                self.blocked_pending.add(kind)
            self.is_scarce = True
            return None
        self.local_next[kind] = number + 1
        self.is_scarce = self._local_limit[kind] - number < SCARCE_STREAMS
        return number

    def local_limit(self, kind: int) -> int:
        """How many streams of that kind the peer lets us open in all."""
        return self._local_limit[kind]

    def raise_local_limit(self, kind: int, maximum: int) -> None:
        """Take MAX_STREAMS."""
        if maximum <= self._local_limit[kind]:
            return
        self._local_limit[kind] = maximum
        self.blocked_pending.discard(kind)
        if self._wanted[kind]:
            self._wanted[kind] = False
            self._on_available(bool(kind))

    def forget_local_limits(self) -> None:
        """Await the peer's limits anew."""
        self._local_limit = [0, 0]

    def has_room(self, streams: int) -> bool:
        """Whether each side that opens bidirectional streams may open so many more."""
        opened, seen = self.local_next[0], self.peer_next[0]
        if opened and self._local_limit[0] - opened < streams:
            return False
        return not seen or self.peer_limit[0] - seen >= streams

    # The peer's

    def open_to(self, kind: int, number: int) -> range:
        """The peer uses stream `number`: return the numbers this opens, lower ones included (RFC 9000 §2.1).

        Raises QuicTransportError beyond our limit.
        """
        if number >= self.peer_limit[kind]:
            raise QuicTransportError(TransportErrorCode.STREAM_LIMIT_ERROR, "too many streams")
        first = self.peer_next[kind]
        self.peer_next[kind] = number + 1
        self._peer_open[kind] += number + 1 - first
        return range(first, number + 1)

    def on_peer_stream_over(self, kind: int) -> None:
        """A stream of the peer is gone; it may open another one."""
        self._peer_open[kind] -= 1
        allowance = self._allowance[kind]
        # Half of the allowance at a time, so that a MAX_STREAMS frame is not spent on every stream.
        if self.peer_next[kind] - self._peer_open[kind] + allowance - self.peer_limit[kind] > allowance >> 1:
            self.limits_pending.add(kind)

    def grant(self, kind: int) -> int:
        """Raise the number of streams the peer may open in all, and return it."""
        closed = self.peer_next[kind] - self._peer_open[kind]
        self.peer_limit[kind] = max(self.peer_limit[kind], closed + self._allowance[kind])
        return self.peer_limit[kind]
