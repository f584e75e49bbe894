"""Sequence numbers and timestamps of the records a host signs."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from a2al_trio.host.publish import CLOCK_MARGIN

__all__ = ["RecordStamps"]

NANOSECONDS = 1_000_000_000


@attrs.define
class RecordStamps:
    """Gives out what makes one record newer than the last: wall time, but never back (spec 04 §17 D19)."""

    unix_time: Callable[[], float]
    _last: int = 0

    def sequence(self, above: int = 0) -> int:
        """Wall-clock nanoseconds, above every number given out before and above `above` (spec 04 §16 no. 15)."""
        self._last = max(int(self.unix_time() * NANOSECONDS), self._last + 1, above + 1)
        return self._last

    def second(self, above: int = 0) -> int:
        """Wall-clock seconds above `above`: the sequence numbers of sovereign records."""
        return max(int(self.unix_time()), above + 1)

    def timestamp(self) -> int:
        """The time of signing in seconds, set back a little for peers whose clock is slow (spec 02 §15.1)."""
        return int(self.unix_time()) - CLOCK_MARGIN

    def now(self) -> int:
        """Wall time in whole seconds."""
        return int(self.unix_time())
