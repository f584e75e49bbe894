"""Search for the largest datagram a path carries (RFC 8899, RFC 9000 §14).

The largest size is tried first, because loopback carries it and a lost probe costs nothing; then the common link
sizes, Ethernet before all; then the gap between what came through and what did not is halved. Probes are ordinary
packets of PING and PADDING; their loss is no sign of congestion.
"""

from __future__ import annotations

import attrs

__all__ = ["BASE_SIZE", "MtuSearch"]

BASE_SIZE = 1200
"""What every QUIC path carries (RFC 9000 §14)."""

LIKELY_SIZES = (1372, 1400, 1452, 1472, 4052, 8952, 16_356, 65_487, 65_507)
"""UDP payloads of common links: tunnels, Ethernet with IPv6 and IPv4, jumbo frames, loopback."""

ETHERNET_SIZE = 1472
CLOSE_ENOUGH = 16
TRIES = 2
AGAIN_AFTER = 600.0
BLACK_HOLE_LOSSES = 3


@attrs.define(eq=False)
class MtuSearch:
    """UDP payload sizes of one path in bytes: `size` is what may be sent now, `ceiling` where the search ends."""

    size: int
    ceiling: int
    enabled: bool = True
    _failed_from: int = attrs.field(default=1 << 17, init=False)
    _probing: int = attrs.field(default=0, init=False)
    _tries: int = attrs.field(default=0, init=False)
    _next_at: float = attrs.field(default=0.0, init=False)
    _losses: int = attrs.field(default=0, init=False)
    _initial: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._initial = self.size

    def set_peer_limit(self, limit: int) -> None:
        """The peer accepts no more than `limit` (max_udp_payload_size)."""
        self.ceiling = max(min(self.ceiling, limit), BASE_SIZE)
        self.size = min(self.size, self.ceiling)

    def probe_size(self, now: float) -> int | None:
        """Return the size to probe with now, if any; the caller sends it and reports what became of it."""
        if not self.enabled or self._probing or self.size >= self.ceiling or now < self._next_at:
            return None
        size = self._choose()
        if size is None:
            # Found; links change, so look again one day.
            self._failed_from = 1 << 17
            self._next_at = now + AGAIN_AFTER
            return None
        self._probing = size
        return size

    def _choose(self) -> int | None:
        if self._failed_from > self.ceiling:
            return self.ceiling
        top = self._failed_from - 1
        if top - self.size < CLOSE_ENOUGH:
            return None
        likely = [size for size in LIKELY_SIZES if self.size < size <= top]
        # A path that is not loopback is most likely Ethernet: settle that before looking for more.
        ordinary = [size for size in likely if size <= ETHERNET_SIZE]
        if ordinary or likely:
            return (ordinary or likely)[-1]
        return (self.size + top + 1) // 2

    def on_probe_acked(self, size: int) -> None:
        """A probe came through."""
        if size == self._probing:
            self._probing = self._tries = 0
        if size > self.size:
            self.size = min(size, self.ceiling)

    def on_probe_lost(self, size: int) -> None:
        """A probe did not come through; after a second try the size counts as too large."""
        if size != self._probing:
            return
        self._probing = 0
        self._tries += 1
        if self._tries >= TRIES or size > 2 * self.size:
            self._failed_from = min(self._failed_from, size)
            self._tries = 0

    def on_packets_acked(self, size: int) -> None:
        """Packets of full size came through."""
        if size >= self.size:
            self._losses = 0

    def on_packets_lost(self, size: int) -> None:
        """Packets of at most `size` were lost: full ones, time after time, mean a black hole (RFC 8899 §4.3)."""
        if size <= self._initial or size < self.size:
            return
        self._losses += 1

    def on_black_hole(self) -> None:
        """Nothing got through for long: fall back to the initial size."""
        if self.size > self._initial and self._losses >= BLACK_HOLE_LOSSES:
            self._failed_from = self.size
            self.size = self._initial
            self._losses = 0
