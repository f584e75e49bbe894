"""Without the extras of the web a host runs, and says what is missing when it is asked for."""

from __future__ import annotations

import sys

import pytest

from a2al_trio.errors import ConfigurationError
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host


@pytest.mark.parametrize(
    ("method", "module", "extra"), [("http_client", "client", "http"), ("httpx2_client", "httpx2_client", "httpx2")]
)
async def test_missing_extras_are_named(
    method: str, module: str, extra: str, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"a2al_trio.http.{module}", None)  # as if what it imports were not installed
    async with open_simnet(seed=3) as net, open_sim_host(net.host("one"), identity(1)) as host:
        with pytest.raises(ConfigurationError, match=rf"pip install 'a2al-trio\[{extra}\]'"):
            getattr(host, method)()
