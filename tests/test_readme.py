"""The README's snippets run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import trio

from a2al_trio import HostConfig, Identity, open_host

README = Path(__file__).parent.parent / "README.md"


def snippets() -> dict[str, Any]:
    """Run all Python blocks of the README in one namespace."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    return namespace


async def test_connect_and_accept_snippets(no_leaks: None) -> None:
    readme = snippets()
    me = Identity.generate(os.urandom)
    loopback = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    with trio.fail_after(20):
        async with open_host(Identity.generate(os.urandom), loopback) as seed, trio.open_nursery() as nursery:
            bootstrap = (str(seed.dht_address),)
            config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=bootstrap)
            nursery.start_soon(readme["serve"], me, config)
            while not await seed.find_records(me.address):
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert await readme["call"](me.address, list(bootstrap)) == b"hello"
            nursery.cancel_scope.cancel()
