"""Flow control of a connection and the auto-tuning of receive windows (RFC 9000 §4).

Credit is granted when the application takes bytes, so what a peer can make us hold never exceeds the windows. A
window doubles while the application empties it within two round trips: then it limits the transfer.
"""

from __future__ import annotations

import attrs

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode

__all__ = ["ConnectionFlow", "ReceiveWindow"]


@attrs.define(eq=False)
class ReceiveWindow:
    """Credit we grant, for a stream or the connection: the peer may send up to offset `limit`."""

    window: int
    maximum: int
    limit: int = attrs.field(init=False)
    consumed: int = attrs.field(default=0, init=False)
    _granted_at: float = attrs.field(default=float("-inf"), init=False)

    def __attrs_post_init__(self) -> None:
        self.limit = self.window

    @property
    def wants_update(self) -> bool:
        """Whether half of the window is used up."""
        return self.limit - self.consumed <= self.window >> 1

    def grant(self, now: float, smoothed_rtt: float) -> int:
        """Move the limit to a full window beyond what was consumed, and return it."""
        if now - self._granted_at < 2 * smoothed_rtt:
            self.window = min(2 * self.window, self.maximum)
        self._granted_at = now
        self.limit = max(self.limit, self.consumed + self.window)
        return self.limit


@attrs.define(eq=False)
class ConnectionFlow:
    """Both directions of connection-level flow control, in bytes summed over all streams."""

    receive: ReceiveWindow
    received: int = attrs.field(default=0, init=False)
    send_limit: int = attrs.field(default=0, init=False)
    sent: int = attrs.field(default=0, init=False)
    update_pending: bool = attrs.field(default=False, init=False)
    blocked_pending: bool = attrs.field(default=False, init=False)
    _blocked_at: int = attrs.field(default=-1, init=False)

    @property
    def send_credit(self) -> int:
        """New stream bytes the peer still allows."""
        return self.send_limit - self.sent

    def on_received(self, size: int) -> None:
        """Account for `size` bytes beyond the highest offset of their stream."""
        self.received += size
        if self.received > self.receive.limit:
            raise QuicTransportError(
                TransportErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's flow control allows"
            )

    def on_consumed(self, size: int) -> None:
        """Account for `size` bytes the application took or will never take."""
        window = self.receive
        window.consumed += size
        if window.limit - window.consumed <= window.window >> 1:
            self.update_pending = True

    def on_blocked(self) -> None:
        """Data waits for credit: tell the peer once per limit (DATA_BLOCKED)."""
        if self._blocked_at != self.send_limit:
            self._blocked_at = self.send_limit
            self.blocked_pending = True

    def raise_send_limit(self, maximum: int) -> bool:
        """Take MAX_DATA; return whether it gave new credit."""
        if maximum <= self.send_limit:
            return False
        self.send_limit = maximum
        return True
