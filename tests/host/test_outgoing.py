"""Mistakes in saying whom to call."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from a2al_trio.errors import ConfigurationError
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

ALICE: Any = identity(2).address


async def test_texts_are_not_taken_for_addresses(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet(seed=1) as net, open_sim_host(net.host("bob"), identity(3)) as host:
        text: Any = str(ALICE)
        for call in (host.resolve, host.open_connection, host.pool.get, host.http_pool.get):
            with pytest.raises(
                ConfigurationError, match=rf"an agent must be given as Address; write Address.parse\('{text}"
            ):
                await call(text)
        at: Any = "192.0.2.1:4121"
        with pytest.raises(ConfigurationError, match=r"`at` must .*; write SocketAddress.parse\('192.0.2.1:4121'\)"):
            await host.open_connection(ALICE, at=at)
        at = ("192.0.2.1", 4121)
        with pytest.raises(ConfigurationError, match="tuple will not do"):
            await host.open_connection(ALICE, at=at)
