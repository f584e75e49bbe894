"""Hubs in memory: a dialler that leads to them, so that every time limit runs on the virtual clock."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from a2al_trio.signaling.hub import Hub


@attrs.define(eq=False)
class HubWorld:
    """Some hubs by host name; one that is missing refuses connections."""

    nursery: trio.Nursery
    hubs: dict[str, Hub] = attrs.Factory(dict)
    scopes: dict[str, list[trio.CancelScope]] = attrs.Factory(dict)
    dials: list[tuple[float, str]] = attrs.Factory(list)
    latency: float = 0.0

    async def dial(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        self.dials.append((trio.current_time(), host))
        await trio.sleep(self.latency)
        if host not in self.hubs:
            raise ConnectionRefusedError(f"nothing listens at {host}")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, host, theirs)
        return ours

    async def _serve(self, host: str, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            self.scopes.setdefault(host, []).append(scope)
            await self.hubs[host].serve_stream(stream, "192.0.2.1")

    def crash(self, host: str) -> None:
        """The hub's process dies: every connection ends, nobody listens."""
        del self.hubs[host]
        for scope in self.scopes.pop(host, []):
            scope.cancel()
