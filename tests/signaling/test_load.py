from __future__ import annotations

from functools import partial

import trio

from a2al_trio.signaling import Hub, serve_hub
from benchmarks.hub import run_load


async def test_many_callees_and_calls_at_once(no_leaks: None) -> None:
    hub = Hub()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(partial(serve_hub, "127.0.0.1", 0, hub=hub))
            figures = await run_load(address.port, callees=200, calls=40)
            assert figures["registered"] == 200
            assert figures["calls"] == 40
            assert hub.stats.sessions_total == 40
            nursery.cancel_scope.cancel()
