"""How a connection ends: closing, draining, silence, stateless reset (RFC 9000 §10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.errors import CloseCause
from a2al_trio.quic.errors import TransportErrorCode, describe_code
from a2al_trio.quic.events import ConnectionEnded

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore

__all__ = ["Ending"]


class Ending:
    """The end of one connection. `reason` is None while it lives; only the first cause counts."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection
        self.reason: tuple[CloseCause, int, str] | None = None
        self.error: BaseException | None = None
        self.is_application = False
        self.pending = False
        """Whether CONNECTION_CLOSE is to be sent."""
        self._draining = False
        self._received = 0
        self._answer_at = 1

    def close(
        self,
        code: int,
        text: str,
        *,
        by: CloseCause,
        is_application: bool,
        now: float,
        error: BaseException | None = None,
    ) -> None:
        """End the connection from our side: say so, and linger to answer stragglers (RFC 9000 §10.2.1)."""
        if self.reason is not None:
            return
        self.is_application = is_application
        self.error = error
        self.pending = True
        self._finish(by, code, text, now)

    def on_peer_close(self, code: int, text: str, *, is_application: bool, now: float) -> None:
        """The peer closed: keep quiet until its packets have died out (RFC 9000 §10.2.2)."""
        self._draining = True
        self.pending = False
        if self.reason is not None:
            return
        if not is_application and not text:
            text = describe_code(code)
        self._finish(CloseCause.PEER_APP if is_application else CloseCause.PEER_TRANSPORT, code, text, now)

    def on_stateless_reset(self, now: float) -> None:
        """The peer has lost all state of the connection (RFC 9000 §10.3.1)."""
        self._draining = True
        if self.reason is None:
            self._finish(CloseCause.RESET, 0, "", now)

    def on_silence(self, *, handshake: bool, now: float) -> None:
        """Nothing was heard for too long: forget the connection without a word (RFC 9000 §10.1)."""
        if self.reason is not None:
            return
        self._draining = True
        self._finish(CloseCause.IDLE, 0, "the handshake was not completed in time" if handshake else "", now)
        self._connection.forget_now()

    def on_unanswered(self, now: float) -> None:
        """The peer has answered nothing for `silence_limit`; it is told, for perhaps it still hears us."""
        limit = self._connection.config.silence_limit
        text = f"the peer has not answered for {limit:g} s"
        self.close(TransportErrorCode.NO_ERROR, text, by=CloseCause.PATH, is_application=False, now=now)

    def on_no_version(self, text: str, now: float) -> None:
        """Version negotiation failed: there is nobody to tell (RFC 9000 §6.2)."""
        self._draining = True
        self._finish(CloseCause.PEER_TRANSPORT, TransportErrorCode.VERSION_NEGOTIATION_ERROR, text, now)
        self._connection.forget_now()

    def on_datagram(self) -> None:
        """A datagram for the ended connection: repeat CONNECTION_CLOSE, ever more rarely."""
        if self._draining:
            return
        self._received += 1
        if self._received >= self._answer_at:
            self._answer_at *= 2
            self.pending = True

    def _finish(self, by: CloseCause, code: int, text: str, now: float) -> None:
        connection = self._connection
        self.reason = (by, code, text)
        connection.closed = True
        connection.timers.start_end(now)
        connection.on_ended(ConnectionEnded(connection, by, code, text), now)

    @property
    def wire_code(self) -> tuple[int, str]:
        """Code and words for CONNECTION_CLOSE."""
        assert self.reason is not None
        _, code, text = self.reason
        return code, text if self.is_application or code != TransportErrorCode.INTERNAL_ERROR else ""
