"""Session tickets (RFC 8446 §4.6.1): what a client keeps, and how a server seals its own state into them.

A server keeps no sessions. Everything it must know to resume one is inside the ticket, sealed with `TicketKeys`; only
the table against replayed 0-RTT (RFC 8446 §8) is memory, and it is bounded.

Times are seconds of the clock that drives the handshake, so tickets are good within one run of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls.reader import Reader, pack_vector
from a2al_trio.quic.tls.sealing import NONCE_SIZE, RotatingSeal
from a2al_trio.quic.tls.suites import CipherSuite

__all__ = ["SessionState", "SessionTicket", "TicketKeys"]

FRESHNESS_WINDOW: Final = 10.0
"""Seconds by which a client's idea of a ticket's age may differ from ours before 0-RTT is refused (§8.3)."""
REPLAY_TABLE_SIZE: Final = 16_384
"""0-RTT attempts remembered at once; while the table is full, 0-RTT is refused and handshakes take a round trip."""


@attrs.frozen
class SessionTicket:
    """What a client keeps to resume a session with a server. It is a secret, and good for one use."""

    server_name: str | None
    ticket: bytes
    secret: bytes = attrs.field(repr=False)
    suite: CipherSuite
    alpn: str
    quic_version: int
    peer_certificates: tuple[bytes, ...]
    peer_parameters: bytes
    """The server's transport parameters, which bind 0-RTT data (RFC 9000 §7.4.1)."""
    age_add: int
    received_at: float
    lifetime: int
    early_data: bool
    """Whether the server offered to take 0-RTT data."""

    def is_usable(self, now: float) -> bool:
        """Whether the ticket has not expired."""
        return self.received_at <= now < self.received_at + self.lifetime


@attrs.frozen
class SessionState:
    """What a server puts into a ticket."""

    suite: CipherSuite
    alpn: str
    server_name: str | None
    quic_version: int
    secret: bytes = attrs.field(repr=False)
    age_add: int
    issued_at: float
    peer_certificates: tuple[bytes, ...]
    early_data_context: bytes
    """Must equal the server's present one for 0-RTT to be accepted."""

    def _encode(self) -> bytes:
        return b"".join(
            (
                self.suite.to_bytes(2, "big"),
                pack_vector(1, self.alpn.encode()),
                pack_vector(2, (self.server_name or "").encode()),
                self.quic_version.to_bytes(4, "big"),
                pack_vector(1, self.secret),
                self.age_add.to_bytes(4, "big"),
                int(self.issued_at * 1000).to_bytes(8, "big"),
                pack_vector(2, self.early_data_context),
                b"".join(pack_vector(3, certificate) for certificate in self.peer_certificates),
            )
        )

    @classmethod
    def _decode(cls, data: bytes) -> SessionState:
        reader = Reader(data, "session ticket")
        suite = CipherSuite(reader.number(2))
        alpn = reader.vector(1).decode()
        server_name = reader.vector(2).decode() or None
        version, secret, age_add = reader.number(4), reader.vector(1), reader.number(4)
        issued_at, context = reader.number(8) / 1000, reader.vector(2)
        certificates = []
        while not reader.at_end:
            certificates.append(reader.vector(3))
        return cls(suite, alpn, server_name, version, secret, age_add, issued_at, tuple(certificates), context)


@attrs.define(eq=False)
class TicketKeys:
    """A server's secret for session tickets, shared by all its connections.

    `entropy` is `os.urandom` outside of tests; `lifetime` is how many seconds a ticket may be used, at most seven days.
    """

    _entropy: Callable[[int], bytes]
    lifetime: int = 86_400
    _seal: RotatingSeal = attrs.field(init=False)
    _used: dict[bytes, float] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.lifetime <= 7 * 86_400:
            raise ConfigurationError("TicketKeys.lifetime must be 1 second to 7 days, given in seconds")
        self._seal = RotatingSeal(self._entropy, self.lifetime)

    def seal(self, state: SessionState, now: float) -> bytes:
        """Return the ticket that holds `state`."""
        return self._seal.seal(state._encode(), b"", now)

    def open(self, ticket: bytes, now: float) -> SessionState | None:
        """Return the state inside `ticket`, or None unless it is ours and has not expired."""
        content = self._seal.open(ticket, b"", now)
        if content is None:
            return None
        state = SessionState._decode(content)
        # The time of issue was rounded to milliseconds.
        return state if state.issued_at <= now + 0.001 and now < state.issued_at + self.lifetime else None

    def first_use(self, ticket: bytes, claimed_age: float, state: SessionState, now: float) -> bool:
        """Whether 0-RTT under `ticket` is no replay: its age is as claimed, and it was not used for 0-RTT before.

        A copy of the ClientHello claims the same age for ever, so after twice the window it is stale by itself and the
        entry can go (RFC 8446 §8.2, §8.3).
        """
        if abs(now - state.issued_at - claimed_age) >= FRESHNESS_WINDOW:
            return False
        used = self._used  # in order of time
        while used and used[oldest := next(iter(used))] <= now - 2 * FRESHNESS_WINDOW:
            del used[oldest]
        nonce = ticket[:NONCE_SIZE]
        if nonce in used or len(used) >= REPLAY_TABLE_SIZE:
            return False
        used[nonce] = now
        return True
