"""Which protocol a datagram on the shared socket belongs to (spec 04 §2.2, with STUN before the table).

Stateless and decided by the first bytes alone: every QUIC packet has the fixed bit 0x40, a DHT message is a
CBOR map (0xA0 to 0xBF), and STUN begins with two zero bits and carries its magic cookie.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from a2al_trio.net.datagram import Received

__all__ = ["Plane", "plane_of", "split"]

FIXED_BIT = 0x40
WITH_FIXED_BIT = bytes(byte for byte in range(256) if byte & FIXED_BIT)
STUN_HEADER_SIZE = 20
STUN_COOKIE = b"\x21\x12\xa4\x42"
LAST_STUN_BYTE = 0x03
# A diagnostic echo of other implementations. Answering it lets two nodes be set on each other (spec 04 §17 D5).
PROBES = (b"\x00\xec", b"\x00\xed")


class Plane(enum.Enum):
    """Where a datagram goes."""

    QUIC = "quic"
    DHT = "dht"
    STUN = "stun"
    NONE = "none"


def plane_of(datagram: memoryview) -> Plane:
    """Decide for one datagram."""
    if not datagram:
        return Plane.NONE
    first = datagram[0]
    if first & FIXED_BIT:
        return Plane.QUIC
    if first <= LAST_STUN_BYTE and len(datagram) >= STUN_HEADER_SIZE and datagram[4:8] == STUN_COOKIE:
        return Plane.STUN
    if first == 0 and datagram[:2] in PROBES:
        return Plane.NONE
    return Plane.DHT


def split(received: Received) -> Iterator[tuple[Plane, Received]]:
    """Cut a run where the protocol changes; a run of QUIC packets alone, the usual one, is passed on as it is."""
    data, size = received.data, received.segment_size
    if len(data) <= size:
        yield plane_of(data), received
        return
    # The kernel coalesces by address and size only, so runs may be mixed; look at every first byte at once.
    if not bytes(data[::size]).translate(None, WITH_FIXED_BIT):
        yield Plane.QUIC, received
        return
    start, current = 0, plane_of(data[:size])
    for offset in range(size, len(data), size):
        plane = plane_of(data[offset : offset + size])
        if plane is not current:
            yield current, _part(received, start, offset)
            start, current = offset, plane
    yield current, _part(received, start, len(data))


def _part(received: Received, start: int, end: int) -> Received:
    return Received(
        received.data[start:end],
        min(received.segment_size, end - start),
        received.source,
        received.ecn,
        received.local_host,
    )
