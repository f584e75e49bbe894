"""The time that the heads of requests may take to arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from a2al_trio.h3.errors import ErrorCode, H3Error

if TYPE_CHECKING:
    from a2al_trio.h3.exchange import ServerExchange

__all__ = ["HEAD_LIMIT", "HeadTimer"]

HEAD_LIMIT = 75.0
"""Seconds until the head of a request has arrived."""


class HeadTimer:
    """Gives up the requests of a connection whose heads are late.

    All have the same time, so those that wait are due in the order in which they began to; and a timer of its own for
    each would cost more than reading a head does. Nor is the task that keeps the time woken for each: while there are
    requests it sleeps, and none that begins meanwhile is due before it wakes.
    """

    def __init__(self) -> None:
        self._due: dict[ServerExchange, float] = {}
        self._asleep = False
        self._begun = trio.Event()

    def begin(self, exchange: ServerExchange) -> None:
        """The head of a request is waited for."""
        self._due[exchange] = trio.current_time() + HEAD_LIMIT
        if not self._asleep:
            self._begun.set()

    def end(self, exchange: ServerExchange) -> None:
        """It has come, or is not waited for any more."""
        self._due.pop(exchange, None)

    async def run(self) -> None:
        """Keep the time."""
        while True:
            await self._begun.wait()
            self._asleep = True
            await trio.sleep(HEAD_LIMIT)
            while self._due:
                exchange, due = next(iter(self._due.items()))
                if due > trio.current_time():
                    await trio.sleep_until(due)
                    continue
                self.end(exchange)
                late = H3Error(ErrorCode.REQUEST_REJECTED, f"no head within {HEAD_LIMIT:.0f} s", exchange.stream_id)
                exchange.give_up(late, late.code)
            self._asleep = False
            self._begun = trio.Event()
