"""Connection IDs: those we hand out and those the peer gave us (RFC 9000 §5.1)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.frames import NewConnectionIdFrame

__all__ = ["LocalConnectionIds", "PeerConnectionIds"]

MAX_RETIRED_PENDING = 16
"""RETIRE_CONNECTION_ID frames owed at once; a peer that makes us owe more is misbehaving (RFC 9000 §5.1.2)."""

MAX_ISSUED = 8
"""Connection IDs the peer may hold of us at once, whatever limit it offers."""


@attrs.frozen
class _Issued:
    cid: bytes
    reset_token: bytes


class LocalConnectionIds:
    """The IDs the peer addresses us by. `make` returns a new ID with its reset token and routes it here."""

    def __init__(
        self, first: bytes, *, make: Callable[[], tuple[bytes, bytes]], release: Callable[[bytes], None]
    ) -> None:
        self._make = make
        self._release = release
        self._issued: dict[int, _Issued] = {0: _Issued(first, b"")}
        self._next = 1
        self.retire_prior_to = 0
        self.limit = 2
        self.pending: list[int] = []

    def __len__(self) -> int:
        return len(self._issued)

    @property
    def all(self) -> list[bytes]:
        """Every ID that still routes here."""
        return [issued.cid for issued in self._issued.values()]

    def set_limit(self, limit: int) -> None:
        """Take the peer's active_connection_id_limit."""
        self.limit = min(limit, MAX_ISSUED)

    def adopt(self, cid: bytes, reset_token: bytes) -> None:
        """Count an ID that travels elsewhere than in NEW_CONNECTION_ID: the preferred address (§9.6)."""
        self._issued[self._next] = _Issued(cid, reset_token)
        self._next += 1

    def replenish(self) -> None:
        """Issue IDs until the peer has as many as it wants."""
        while len(self._issued) < self.limit:
            self._issued[self._next] = _Issued(*self._make())
            self.pending.append(self._next)
            self._next += 1

    def entry(self, sequence: int) -> tuple[bytes, bytes] | None:
        """Return ID and reset token of a sequence number, if it was not retired."""
        issued = self._issued.get(sequence)
        return None if issued is None else (issued.cid, issued.reset_token)

    def on_retire(self, sequence: int, *, addressed: bytes) -> None:
        """Take RETIRE_CONNECTION_ID; `addressed` is the ID the packet itself was sent to."""
        if sequence >= self._next:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "retired an ID that was never issued")
        issued = self._issued.get(sequence)
        if issued is None:
            return
        if issued.cid == addressed:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "retired the ID in use")
        del self._issued[sequence]
        self._release(issued.cid)
        self.replenish()


@attrs.frozen
class _PeerId:
    cid: bytes
    reset_token: bytes | None


class PeerConnectionIds:
    """The IDs we address the peer by."""

    def __init__(self, first: bytes, *, limit: int) -> None:
        self._limit = limit
        self._known: dict[int, _PeerId] = {0: _PeerId(first, None)}
        self._retire_prior_to = 0
        self._used: set[int] = {0}
        self.retire_pending: list[int] = []

    def replace_first(self, cid: bytes) -> None:
        """During the handshake the peer chose another ID (RFC 9000 §7.2)."""
        self._known[0] = _PeerId(cid, None)

    def set_first_token(self, reset_token: bytes) -> None:
        """Take stateless_reset_token from the transport parameters."""
        self._known[0] = _PeerId(self._known[0].cid, reset_token)

    def adopt(self, cid: bytes, reset_token: bytes) -> None:
        """Take the ID that came with the server's preferred address: it has number 1 (RFC 9000 §5.1.1)."""
        self._known[1] = _PeerId(cid, reset_token)

    def cid(self, sequence: int) -> bytes | None:
        """Return the ID of a sequence number unless it is retired."""
        entry = self._known.get(sequence)
        return None if entry is None else entry.cid

    @property
    def is_empty(self) -> bool:
        """Whether the peer uses zero-length IDs."""
        return not self._known[next(iter(self._known))].cid

    def reset_tokens(self) -> set[bytes]:
        """Tokens that a stateless reset for this connection may end with: those of IDs we used."""
        return {
            entry.reset_token
            for sequence, entry in self._known.items()
            if entry.reset_token is not None and sequence in self._used
        }

    def on_new(self, frame: NewConnectionIdFrame) -> None:
        """Take NEW_CONNECTION_ID (RFC 9000 §19.15)."""
        if self.is_empty:
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "new ID although IDs are empty")
        sequence = frame.sequence
        known = self._known.get(sequence)
        if known is not None:
            if known.cid != frame.connection_id or (known.reset_token not in (None, frame.reset_token)):
                raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "ID changed for a sequence number")
            return
        if any(entry.cid == frame.connection_id for entry in self._known.values()):
            raise QuicTransportError(TransportErrorCode.PROTOCOL_VIOLATION, "ID reused for a sequence number")
        if sequence < self._retire_prior_to:
            self._retire(sequence)
            return
        self._known[sequence] = _PeerId(frame.connection_id, frame.reset_token)
        if frame.retire_prior_to > self._retire_prior_to:
            self._retire_prior_to = frame.retire_prior_to
            for old in [number for number in self._known if number < frame.retire_prior_to]:
                del self._known[old]
                self._retire(old)
        if len(self._known) > self._limit:
            raise QuicTransportError(TransportErrorCode.CONNECTION_ID_LIMIT_ERROR, "too many connection IDs")

    def _retire(self, sequence: int) -> None:
        self._used.discard(sequence)
        if sequence in self.retire_pending:
            return
        self.retire_pending.append(sequence)
        if len(self.retire_pending) > MAX_RETIRED_PENDING:
            raise QuicTransportError(TransportErrorCode.CONNECTION_ID_LIMIT_ERROR, "too many retired IDs")

    def take_unused(self) -> tuple[int, bytes] | None:
        """Return sequence number and ID of one not used on any path yet, marking it used."""
        for sequence, entry in self._known.items():
            if sequence not in self._used:
                self._used.add(sequence)
                return sequence, entry.cid
        return None

    def retire(self, sequence: int) -> None:
        """Stop using an ID."""
        if self._known.pop(sequence, None) is not None:
            self._retire(sequence)
