"""What a connection needs of the endpoint it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.events import QuicEvent

__all__ = ["Router"]


class Router(Protocol):
    """What a connection needs of its endpoint."""

    @property
    def emit(self) -> Callable[[QuicEvent], None]:
        """Queues an event for the driver."""

    def touch(self, connection: QuicConnectionCore) -> None:
        """The connection may have something to send, or other deadlines; it `is_touched` until that was looked at."""

    def put_off(self, connection: QuicConnectionCore) -> None:
        """The connection keeps an ACK until it is told to catch up."""

    def catch_up(self) -> bool:
        """Let whatever was put off be done now."""

    def make_cid(self, connection: QuicConnectionCore) -> tuple[bytes, bytes]:
        """Return a new connection ID, routed to the connection, and its stateless reset token."""

    def release_cid(self, cid: bytes) -> None:
        """Stop routing a connection ID."""

    def watch_reset_tokens(self, connection: QuicConnectionCore, tokens: set[bytes]) -> None:
        """The peer's stateless resets for the connection end with one of these."""

    def make_token(self, connection: QuicConnectionCore, now: float) -> bytes:
        """Return an address validation token for the peer's next connection (RFC 9000 §8.1.3)."""

    def on_ready(self, connection: QuicConnectionCore) -> None:
        """The handshake of the connection is complete."""

    def forget(self, connection: QuicConnectionCore) -> None:
        """The connection is over and nothing of it is needed any more."""
