"""One DHT of three reference nodes and five of ours: what any of them publishes, every other resolves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from a2al_trio.dht import Dht, open_dht
from a2al_trio.identity import Address, Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.wire import EndpointPayload, RecordType, sign_record
from tests.interop.conftest import Lab
from tests.interop.reference_node import ReferenceNode

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

LIMIT = 100


@attrs.define
class Mixed:
    """A network of both kinds."""

    lab: Lab
    reference: list[ReferenceNode] = attrs.Factory(list)
    ours: list[Dht] = attrs.Factory(list)

    async def add(self, stack: AsyncExitStack, *, reference: int, ours: int) -> None:
        """Add that many of each kind, which live as long as the stack; all join through the first."""
        for _ in range(reference):
            bootstrap = (str(self.reference[0].address),) if self.reference else ()
            node = self.lab.reference_node(len(self.reference), bootstrap=bootstrap)
            self.reference.append(await stack.enter_async_context(node))
        for _ in range(ours):
            address = SocketAddress(self.lab.hosts[len(self.ours)], 4121)
            socket = await stack.enter_async_context(open_udp(address))
            seeds = [self.reference[0].address]
            node_identity = Identity.generate(os.urandom)
            dht = await stack.enter_async_context(open_dht(socket, node_identity, bootstrap=seeds))
            assert await dht.bootstrapped()
            self.ours.append(dht)

    async def resolve_everywhere(self, published: dict[str, str]) -> None:
        """Ask every node for every AID; fails unless each finds the published endpoint."""
        for aid, endpoint in published.items():
            for node in self.reference:
                found = await node.post(f"/resolve/{aid}")
                assert endpoint in found["endpoints"], f"{node.host} resolves {aid}"
            for dht in self.ours:
                record = await dht.resolve(Address.parse(aid))
                assert endpoint in (EndpointPayload.decode(record.payload).endpoints or ())


async def publish_on_all(network: Mixed) -> dict[str, str]:
    """One agent on each node; returns the endpoint of each AID."""
    published: dict[str, str] = {}
    for node in network.reference:
        agent = await node.add_agent()
        published[agent.aid] = f"quic://{node.address}"
    for dht in network.ours:
        identity = Identity.generate(os.urandom)
        endpoint = f"quic://{dht.local_address}"
        record = sign_record(
            identity,
            RecordType.ENDPOINT,
            EndpointPayload((endpoint,)).encode(),
            sequence=1,
            timestamp=int(time.time()) - 3,
            ttl=3600,
        )
        publication = await dht.publish(record)
        assert len(publication.replicas) >= 5
        published[str(identity.address)] = endpoint
    return published


async def eventually(check: Callable[[], bool]) -> None:
    """Wait for what another process does in its own time."""
    while not check():  # noqa: ASYNC110
        await trio.sleep(0.05)


async def test_records_are_resolved_across_both_kinds_and_outlive_more_than_half_of_each(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as lasting:
            network = Mixed(lab)
            await network.add(lasting, reference=1, ours=2)
            async with AsyncExitStack() as passing:
                await network.add(passing, reference=2, ours=3)
                published = await publish_on_all(network)
                await network.resolve_everywhere(published)

                def replicated() -> bool:
                    return all(
                        sum(bool(dht.local_records(Address.parse(aid).node_id)) for dht in network.ours[:2]) == 2
                        for aid in published
                    )

                # The reference stores one replica after the other, 200 ms apart.
                await eventually(replicated)
            del network.reference[1:], network.ours[2:]
            await network.resolve_everywhere(published)
