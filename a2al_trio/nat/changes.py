"""When a change of the local network is real: debouncing, and flapping networks (spec 05 §8).

Pure: `ChangeDetector` is fed fingerprints of the network and says when one has lasted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

import attrs

__all__ = ["ChangeDetector"]

SETTLE = 5.0
"""Seconds a new fingerprint must last before it counts."""
SETTLE_FLAPPING = 45.0
FLAP_COUNT = 3
"""Confirmed changes within `FLAP_WINDOW` that make the network a flapping one."""
FLAP_WINDOW = 120.0


@attrs.define
class ChangeDetector:
    """Compares fingerprints; `confirmed` is the one last acted upon.

    A fingerprint that differs must still be there after 5 s, or 45 s while the network flaps. One that differs
    yet again starts the wait anew.
    """

    confirmed: Hashable
    _candidate: Hashable = None
    _due: float | None = None
    _changes: deque[float] = attrs.field(factory=lambda: deque(maxlen=FLAP_COUNT))

    @property
    def due(self) -> float | None:
        """When a fresh sample is needed to confirm a change; None while there is nothing to confirm."""
        return self._due

    def is_flapping(self, now: float) -> bool:
        """Whether the network has changed three times within two minutes."""
        return len(self._changes) == FLAP_COUNT and now - self._changes[0] < FLAP_WINDOW

    def sample(self, fingerprint: Hashable, now: float) -> bool:
        """Take a sample; returns True when it confirms a change, once."""
        if fingerprint == self.confirmed:
            self._due = None
        elif self._due is None or fingerprint != self._candidate:
            self._candidate = fingerprint
            self._due = now + (SETTLE_FLAPPING if self.is_flapping(now) else SETTLE)
        elif now >= self._due:
            self.confirmed, self._due = fingerprint, None
            self._changes.append(now)
            return True
        return False
