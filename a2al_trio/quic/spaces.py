"""Packet number spaces and the CRYPTO stream of each (RFC 9000 §12.3, §19.6; RFC 9001 §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from a2al_trio.quic.acks import AckTracker
from a2al_trio.quic.assembler import Assembler
from a2al_trio.quic.errors import QuicTransportError, TransportErrorCode
from a2al_trio.quic.reordering import LossMemory
from a2al_trio.quic.send_buffer import SendBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from a2al_trio.quic.packet_crypto import PacketKeys
    from a2al_trio.quic.recovery import SentRun
    from a2al_trio.quic.tls import Level

__all__ = ["CryptoStream", "PacketSpace"]

MAX_CRYPTO_BUFFER = 64 * 1024
MAX_INITIAL_CRYPTO_BUFFER = 16 * 1024
"""Handshake bytes kept ahead of order (RFC 9000 §7.5 asks for at least 4096); less from those we know nothing of."""

MAX_SKIPPED = 16


@attrs.define(eq=False)
class CryptoStream:
    """Handshake bytes of one encryption level in both directions."""

    limit: int = MAX_CRYPTO_BUFFER
    send: SendBuffer = attrs.field(factory=SendBuffer)
    receive: Assembler = attrs.field(factory=Assembler)

    def on_frame(self, offset: int, data: bytes) -> bytes:
        """Take a CRYPTO frame and return what is in order now."""
        if offset + len(data) > self.receive.read_to + self.limit:
            raise QuicTransportError(TransportErrorCode.CRYPTO_BUFFER_EXCEEDED, "too much handshake data ahead")
        self.receive.insert(offset, data)
        return self.receive.read(MAX_CRYPTO_BUFFER)


class PacketSpace:
    """Numbers, keys, acknowledgements and sent packets of one space.

    `probes` counts the packets that loss recovery wants sent regardless of the congestion window.
    """

    __slots__ = (
        "acks", "crypto", "discarded", "given_up", "is_application", "largest_acked", "last_eliciting_at", "level",
        "loss_time", "next_number", "probes", "receive_keys", "send_keys", "sent", "skip_at", "skipped",
    )  # fmt: skip

    def __init__(self, level: Level, *, is_application: bool, max_ack_delay: float) -> None:
        self.level = level
        self.is_application = is_application
        self.acks = AckTracker(max_ack_delay)
        self.crypto = CryptoStream(MAX_INITIAL_CRYPTO_BUFFER if level == 0 else MAX_CRYPTO_BUFFER)
        self.send_keys: PacketKeys | None = None
        self.receive_keys: PacketKeys | None = None
        self.next_number = 0
        self.largest_acked = -1
        self.sent: list[SentRun] = []
        self.given_up = LossMemory()
        self.loss_time: float | None = None
        self.last_eliciting_at: float | None = None
        self.probes = 0
        self.discarded = False
        self.skip_at = 0
        """The number to be left out next; only ever in the application's space."""
        self.skipped: list[int] = []

    def take_number(self) -> int:
        """Return the next packet number."""
        number = self.next_number
        self.next_number = number + 1
        return number

    def skip_number(self) -> None:
        """Leave out a number, so that a peer who acknowledges what it has not seen is caught (RFC 9000 §21.4)."""
        self.skipped.append(self.next_number)
        del self.skipped[:-MAX_SKIPPED]
        self.next_number += 1

    def was_skipped(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether any of the acknowledged ranges holds a number that was left out."""
        if not self.skipped or self.skipped[-1] < ranges[0][0]:
            return False
        return any(start <= number < stop for number in self.skipped for start, stop in ranges)

    def discard(self) -> None:
        """Drop keys and handshake data; the space is never used again (RFC 9001 §4.9)."""
        self.discarded = True
        self.send_keys = self.receive_keys = None
        self.crypto = _SPENT
        self.acks.owe_nothing()


_SPENT = CryptoStream()
"""In place of the CRYPTO streams of discarded spaces, which nobody writes to any more."""
