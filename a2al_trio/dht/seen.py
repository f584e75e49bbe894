"""Which nodes were met, and when: statistics only (spec 03 §14)."""

from __future__ import annotations

from collections import OrderedDict

from a2al_trio.identity.address import NodeId

__all__ = ["SeenPeers"]

LIFETIME = 7 * 24 * 3600
REMEMBERED = 100_000


class SeenPeers:
    """Node ids with the Unix time of their last direct contact, oldest first; bounded."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, int] = OrderedDict()
        self._met: set[bytes] = set()

    def mark(self, node_id: NodeId, unix_now: int) -> None:
        """A round trip with the node was completed."""
        self._last[node_id] = unix_now
        self._last.move_to_end(node_id)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        if len(self._met) < REMEMBERED:
            self._met.add(node_id)

    @property
    def met_since_start(self) -> int:
        """How many different nodes answered since the start."""
        return len(self._met)

    def reach(self, unix_now: int, seconds: int) -> int:
        """How many nodes were met in the last so many seconds."""
        return sum(1 for last in self._last.values() if last >= unix_now - seconds)

    def dump(self, unix_now: int) -> str:
        """The file's text: one `<64 hex digits> <unix seconds>` per line."""
        lines = [f"{key.hex()} {last}" for key, last in self._last.items() if last >= unix_now - LIFETIME]
        return "".join(f"{line}\n" for line in lines)

    def load(self, text: str, unix_now: int) -> None:
        """Read a file's text; malformed, future and outdated lines are skipped."""
        found: list[tuple[int, bytes]] = []
        for line in text.splitlines():
            name, _, last = line.partition(" ")
            if line.startswith("#") or len(name) != 64 or not last.isascii() or not last.isdigit():
                continue
            try:
                key = bytes.fromhex(name)
            except ValueError:
                continue
            when = int(last) if len(last) < 20 else 0
            if len(key) == 32 and unix_now - LIFETIME <= when <= unix_now:
                found.append((when, key))
        for when, key in sorted(found)[-REMEMBERED:]:
            self._last[key] = when
