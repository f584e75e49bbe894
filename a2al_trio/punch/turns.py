"""One call of a pair of agents at a time (spec 06 Q6).

All calls of a pair share a room: a hub may pair two callers with each other, and a callee takes the newer call for the
only one. The default agent of a host has its node's AID, so that its calls and those of the punch pool collide, too.
"""

from __future__ import annotations

import attrs
import trio

from a2al_trio.identity import Address

__all__ = ["Turn", "Turns"]


@attrs.define(eq=False)
class Turn:
    """The right to call, until `end`. `gives_way` is cancelled when somebody more important wants it."""

    _turns: Turns
    _pair: tuple[Address, Address]
    gives_way: trio.CancelScope | None
    over: trio.Event = attrs.field(factory=trio.Event)

    def insist(self) -> None:
        """Give way no longer: a reference peer must not be left between path and handshake (spec 06 §14 no. 6)."""
        self.gives_way = None

    def end(self) -> None:
        """Let others call; ending twice does nothing."""
        if not self.over.is_set():
            self.over.set()
            del self._turns.taken[self._pair]


@attrs.define(eq=False)
class Turns:
    """Who is calling whom, as whom."""

    taken: dict[tuple[Address, Address], Turn] = attrs.field(factory=dict)

    async def take(self, local: Address, remote: Address, *, gives_way: trio.CancelScope | None = None) -> Turn:
        """Wait until nobody calls `remote` as `local`; calls that give way do so for those that do not."""
        pair = (local, remote)
        while (earlier := self.taken.get(pair)) is not None:
            if gives_way is None and earlier.gives_way is not None:
                earlier.gives_way.cancel()
            await earlier.over.wait()
        turn = self.taken[pair] = Turn(self, pair, gives_way)
        return turn
