"""Unreliable datagrams (RFC 9221): two bounded queues, plain lists because they are short and mostly empty."""

from __future__ import annotations

import attrs

__all__ = ["DatagramQueues"]


@attrs.define(eq=False)
class DatagramQueues:
    """DATAGRAM frames waiting to leave or to be taken; `peer_limit` is the peer's max_datagram_frame_size."""

    capacity: int
    peer_limit: int = 0
    outgoing: list[bytes] = attrs.field(factory=list)
    incoming: list[bytes] = attrs.field(factory=list)
    signalled: bool = False
    dropped: int = 0

    def send(self, data: bytes) -> bool:
        """Queue a datagram unless the queue is full."""
        if len(self.outgoing) >= self.capacity:
            return False
        self.outgoing.append(data)
        return True

    def on_received(self, data: bytes) -> bool:
        """Keep a datagram, the oldest makes room; returns whether the application is to be told."""
        if len(self.incoming) >= self.capacity:
            self.incoming.pop(0)
            self.dropped += 1
        self.incoming.append(data)
        first, self.signalled = not self.signalled, True
        return first

    def take(self) -> bytes | None:
        """Return the oldest received datagram, or None and ask to be told of the next."""
        if self.incoming:
            return self.incoming.pop(0)
        self.signalled = False
        return None
