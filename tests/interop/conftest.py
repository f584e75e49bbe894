"""Fixtures of the lab tests: a private network with reference nodes of two releases in it, and hosts behind NATs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from tests.interop.nat_lab import POOL, NatLab, load_nat_lab
from tests.interop.private_network import private_network, why_not
from tests.interop.reference_node import ReferenceNode, find_binary, open_reference_node

REFERENCE_HOSTS = tuple(f"20.0.{number}.1" for number in range(1, 6))
OUR_HOSTS = tuple(f"20.1.{number}.1" for number in range(1, 6))


@attrs.frozen
class Lab:
    """A network without a way out, with addresses for reference nodes and for nodes of ours."""

    binary: Path
    directory: Path
    hosts: tuple[str, ...] = OUR_HOSTS

    @asynccontextmanager
    async def reference_nodes(self, count: int = 2) -> AsyncIterator[list[ReferenceNode]]:
        """Reference nodes: the first one is the public one with a hub, the others join through it."""
        async with AsyncExitStack() as stack:
            nodes: list[ReferenceNode] = []
            for number in range(count):
                bootstrap = (str(nodes[0].address),) if nodes else ()
                node = self.reference_node(number, bootstrap=bootstrap, hub=not nodes)
                nodes.append(await stack.enter_async_context(node))
            yield nodes

    def reference_node(
        self, number: int = 0, *, bootstrap: tuple[str, ...] = (), hub: bool = False
    ) -> AbstractAsyncContextManager[ReferenceNode]:
        """One reference node, joining through `bootstrap`."""
        return open_reference_node(
            self.binary,
            self.directory / f"node{number}",
            REFERENCE_HOSTS[number],
            api_port=2121 + number,
            bootstrap=bootstrap,
            hub=hub,
        )


@pytest.fixture(params=["0.2.0", "newest"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Run the test inside a private network, once for each release of the reference daemon."""
    if reason := why_not():
        pytest.skip(reason)
    binary = find_binary(request.param)
    with private_network(*REFERENCE_HOSTS, *OUR_HOSTS):
        yield Lab(binary, tmp_path)


@pytest.fixture
def open_nat_lab() -> Callable[..., AbstractContextManager[NatLab]]:
    """Opens a lab of hosts behind NATs: `with open_nat_lab(a="open", b="symmetric") as lab`.

    Each host is its kind, or its settings; see the lab's own description.
    """
    module = load_nat_lab()

    def open_lab(**hosts: object) -> AbstractContextManager[NatLab]:
        lab: AbstractContextManager[NatLab] = module.Lab({"hosts": hosts, "pool": list(POOL)})
        return lab

    return open_lab
