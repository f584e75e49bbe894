"""What the end of a connection means to the handler that serves it, and to the server."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.errors import ConnectionLost
from a2al_trio.host import AgentConnection
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

SEED, ALICE, BOB = identity(1), identity(2), identity(3)


@pytest.mark.parametrize("own", [True, False])
async def test_a_handler_may_lose_its_own_connection_only(autojump_clock: trio.testing.MockClock, own: bool) -> None:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(seed,)) as bob,
    ):
        await alice.publish()
        await seed.publish()
        ended: list[str] = []

        async def handle(connection: AgentConnection) -> None:
            try:
                async with alice.connect(SEED.address) as other:
                    await (connection if own else other).accept_stream()
            finally:
                ended.append("handler")

        async def serve() -> None:
            await alice.serve(handle)

        async def call() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                async with bob.connect(ALICE.address) as caller:
                    called = await seed.accept()
                    await trio.sleep(1)
                    (caller if own else called).close(7, "enough")
                    await trio.sleep(1)
                    assert ended == ["handler"]
                nursery.cancel_scope.cancel()

        if own:
            await call()
        else:
            with pytest.RaisesGroup(ConnectionLost, flatten_subgroups=True):
                await call()
