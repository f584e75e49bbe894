"""The wall clock of a host, which a clock that is set back does not make invisible (spec 04 §17 D19)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

__all__ = ["SteadyClock"]

logger = logging.getLogger(__name__)

SLEW = 30.0
"""Seconds by which the machine's clock may go back at a time without being doubted; NTP slews by less."""


class SteadyClock:
    """Wall time in seconds that follows the machine's clock, but not when that is set back while the host runs.

    Records dated an hour ago would be refused as expired by everybody else. If it was the old time that was wrong,
    peers refuse records from the future: whoever meets that calls `trust_wall`.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall
        """The machine's clock."""
        self._anchor = wall() - trio.current_time()
        self._doubted = False

    def __call__(self) -> float:
        """The time now."""
        wall, elapsed = self.wall(), trio.current_time()
        if wall >= self._anchor + elapsed - SLEW:
            self._anchor, self._doubted = wall - elapsed, False
            return wall
        if not self._doubted:
            self._doubted = True
            logger.warning("the clock was set back by %.0f s; going on without it", self._anchor + elapsed - wall)
        return self._anchor + elapsed

    def trust_wall(self) -> bool:
        """Take the machine's clock as it is, because others refuse our time; whether that changes anything."""
        self()
        if not self._doubted:
            return False
        self._anchor, self._doubted = self.wall() - trio.current_time(), False
        return True
