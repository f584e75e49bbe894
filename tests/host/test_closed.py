"""Hosts that are used after their block: everybody is told, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from a2al_trio.host import Host
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

ALICE, BOB = identity(2), identity(3)

Use = Callable[[Host], Awaitable[object]]


async def next_note(host: Host) -> object:
    return await anext(host.mailbox.messages())


async def announce(host: Host) -> None:
    async with host.topics.register("somewhere"):
        pass


async def do_nothing(connection: object) -> None:
    pass


async def be_silent(scope: Scope, receive: Receive, send: Send) -> None:
    pass


USES: dict[str, Use] = {
    "accept": Host.accept,
    "announce": announce,
    "dial for HTTP": lambda host: host.http_pool.get(ALICE.address),
    "dial together": lambda host: host.pool.get(ALICE.address),
    "find records": lambda host: host.find_records(ALICE.address),
    "mail": lambda host: host.mailbox.send(ALICE.address, b"hello"),
    "next note": next_note,
    "observe": Host.observe_from_routing,
    "open connection": lambda host: host.open_connection(ALICE.address),
    "ping": lambda host: host.dht.ping(host.dht_address),
    "probe": Host.run_nat_probe,
    "publish endpoint": Host.publish_endpoint,
    "resolve": lambda host: host.resolve(ALICE.address),
    "serve": lambda host: host.serve(do_nothing),
    "serve an application": lambda host: host.serve_asgi(be_silent),
    "serve HTTP/3": lambda host: host.serve_http3(do_nothing),
    "search": lambda host: host.topics.search_all(["here", "there"]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("when", ["after", "during"])
async def test_whoever_uses_a_closed_host_is_told(autojump_clock: trio.testing.MockClock, use: Use, when: str) -> None:
    async def expect_the_end(host: Host) -> None:
        with pytest.raises(trio.ClosedResourceError):
            while True:
                await use(host)
                await trio.sleep(0.0005)

    with trio.fail_after(60):
        async with (
            open_simnet(seed=1) as net,
            open_sim_host(net.host("alice"), ALICE) as alice,
            trio.open_nursery() as nursery,
        ):
            await alice.publish()
            async with open_sim_host(net.host("bob"), BOB, seeds=(alice,)) as bob:
                if when == "during":
                    nursery.start_soon(expect_the_end, bob)
                    await trio.sleep(0.001)
            if when == "after":
                await expect_the_end(bob)
