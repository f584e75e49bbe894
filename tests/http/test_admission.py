"""What a host lets callers do holds for whatever they speak: rules, places and bytes."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio

from a2al_trio.host import AccessByAgent, AccessList, HostConfig
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host
from tests.http.world import CALLEE, CALLER, open_world

Clock = trio.testing.MockClock
BOTH = pytest.mark.parametrize("http3", [True, False], ids=["HTTP/3", "HTTP/1.1"])
RATE, STREAMS = 200_000, 3
OTHER = identity(13)


class Pages:
    """Sends a million bytes for `/large`, waits for ten seconds for `/slow`."""

    def __init__(self) -> None:
        self.most = self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if scope["path"] == "/slow":
                await trio.sleep(10)
            body = bytes(5 * RATE) if scope["path"] == "/large" else b"come in"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        finally:
            self.inside -= 1


@BOTH
async def test_rules_of_access_hold(autojump_clock: Clock, http3: bool) -> None:
    async with open_world(Pages(), http3=http3) as world:
        assert (await world.client.get("/")).content == b"come in"
        for rule in (AccessList(deny=[CALLER.address]), AccessByAgent({CALLEE.address: AccessList(allow=())})):
            world.callee.access = rule
            with pytest.raises(httpx.ReadError, match="the agent denies us access"):
                await world.client.get("/")
        world.callee.access = AccessList(allow=[CALLER.address])
        assert (await world.client.get("/")).content == b"come in"


@BOTH
async def test_places_and_bytes_of_a_caller_are_bounded(autojump_clock: Clock, http3: bool) -> None:
    config = HostConfig(max_rate_per_caller=RATE, max_streams_per_caller=STREAMS)
    pages = Pages()
    async with (
        open_simnet(seed=3) as net,
        open_sim_host(net.host("callee"), CALLEE, config=config) as callee,
        open_sim_host(net.host("caller"), CALLER, seeds=(callee,)) as caller,
        trio.open_nursery() as nursery,
    ):
        caller.register_agent(OTHER)
        await callee.publish()
        await nursery.start(partial(callee.serve_asgi, pages, http3=http3))
        async with (
            caller.http_client(base_url=f"a2al://{CALLEE.address}") as client,
            caller.http_client(base_url=f"a2al://{CALLEE.address}", local=OTHER.address) as other,
        ):
            began = trio.current_time()
            async with trio.open_nursery() as asking:
                for _ in range(2):
                    asking.start_soon(client.get, "/large")
                await other.get("/large")
            assert 7 < trio.current_time() - began < 13, "ten seconds' worth of bytes, less what a quiet second allows"
            await trio.sleep(5)
            began = trio.current_time()
            async with trio.open_nursery() as asking:
                for _ in range(2 * STREAMS):
                    asking.start_soon(client.get, "/slow")
            assert 20 <= trio.current_time() - began < 23
            assert pages.most == STREAMS
        nursery.cancel_scope.cancel()
