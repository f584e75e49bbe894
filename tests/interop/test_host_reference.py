"""Our host and the reference daemon meet: publish, resolve, connect both ways, move data, exchange topics."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from a2al_trio.dht import DhtConfig
from a2al_trio.errors import StreamStopped
from a2al_trio.host import AgentConnection, Host, HostConfig, open_host
from a2al_trio.identity import Address, Identity, SigningKey
from a2al_trio.quic import QuicStream
from a2al_trio.wire import RecordType, SignedRecord, TopicPayload, sign_record, topic_key
from tests.interop.conftest import Lab
from tests.interop.reference_node import ReferenceNode
from tests.interop.services import (
    blob,
    digest,
    exchange,
    exchange_digests,
    http_get,
    serve_echo,
    serve_http,
    tcp_service,
)

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

MIB = 1024 * 1024
LIMIT = 60


@asynccontextmanager
async def our_host(lab: Lab, number: int, *through: ReferenceNode, port: int = 4121) -> AsyncIterator[Host]:
    """A host of ours in the lab, joined to the network."""
    config = HostConfig(
        listen=f"{lab.hosts[number]}:{port}",
        bootstrap=tuple(str(node.address) for node in through),
        min_observed_peers=1,
        dht=DhtConfig(rpc_timeout=0.3),  # whoever answers at all here does so in milliseconds
    )
    async with open_host(Identity.generate(os.urandom), config) as host:
        await host.dht.bootstrapped()
        yield host


@asynccontextmanager
async def serving(host: Host, handle_stream: Callable[[QuicStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Serve every stream of every connection to `host`."""

    async def one(stream: QuicStream) -> None:
        # A peer may stop reading once it has what it asked for.
        with contextlib.suppress(StreamStopped):
            async with stream:
                await handle_stream(stream)

    async def handler(connection: AgentConnection) -> None:
        async with trio.open_nursery() as nursery:
            async for stream in connection:
                nursery.start_soon(one, stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(host.serve, handler)
        yield
        nursery.cancel_scope.cancel()


def topic_record(identity: Identity, topic: str, name: str) -> SignedRecord:
    now = int(time.time())
    payload = TopicPayload(topic=topic, name=name, brief="a test")
    return sign_record(
        identity, RecordType.TOPIC, payload.encode(), sequence=time.time_ns(), timestamp=now - 3, ttl=3600
    )


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait for another process to notice something, which only asking tells."""
    while not await check():  # noqa: ASYNC110
        await trio.sleep(0.05)


async def test_a_published_host_is_resolved_by_the_reference(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            for node in (public, daemon):
                found = await node.post(f"/resolve/{host.address}")
                assert found["endpoints"] == [f"quic://{host.quic_address}"]
                assert found["address"] == str(host.address)


async def test_an_agent_of_the_reference_serves_us_http(lab: Lab) -> None:
    page = blob(10 * MIB)
    answer = functools.partial(serve_http, pages={"/page": page})
    with trio.fail_after(LIMIT):
        async with tcp_service(answer) as service, lab.reference_nodes() as (public, daemon):
            agent = await daemon.add_agent(service)
            async with our_host(lab, 0, public) as host, host.connect(Address.parse(agent.aid)) as connection:
                assert str(connection.remote) == agent.aid
                assert connection.peer_address == daemon.address
                for path, expected in (("/page", (200, digest(page))), ("/none", (404, digest(b"")))):
                    async with await connection.open_stream() as stream:
                        status, body = await http_get(stream, path)
                        assert (status, digest(body)) == expected


async def test_the_reference_fetches_from_our_agent(lab: Lab) -> None:
    page = blob(3 * MIB)
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            local = await daemon.add_agent(publish=False)
            async with serving(host, functools.partial(serve_http, pages={"/page": page})):
                status, body = await daemon.fetch(str(host.address), "/page", local=local.aid)
                assert (status, digest(body)) == (200, digest(page))
                posted = blob(20_000, seed=2)
                status, body = await daemon.fetch(str(host.address), "/any", local=local.aid, body=posted)
                assert (status, digest(body)) == (200, digest(posted))


async def test_the_reference_tunnels_tcp_to_our_agent(lab: Lab) -> None:
    data = blob(10 * MIB)
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            local = await daemon.add_agent(publish=False)
            async with serving(host, serve_echo):
                tunnel = await daemon.connect(str(host.address), local=local.aid)
                async with await trio.open_tcp_stream(tunnel.host, tunnel.port) as tcp:
                    assert digest(await exchange(tcp, data)) == digest(data)


async def test_a_hundred_megabytes_each_way_in_both_roles(lab: Lab) -> None:
    data = blob(MIB)
    with trio.fail_after(LIMIT):
        async with (
            tcp_service(serve_echo) as service,
            lab.reference_nodes() as (public, daemon),
            our_host(lab, 0, public) as host,
            serving(host, serve_echo),
        ):
            agent = await daemon.add_agent(service)
            async with (
                host.connect(Address.parse(agent.aid)) as connection,
                await connection.open_stream() as stream,
            ):
                sent, received = await exchange_digests(stream, data, 100)
                assert sent == received
            await host.publish()
            tunnel = await daemon.connect(str(host.address), local=agent.aid)
            async with await trio.open_tcp_stream(tunnel.host, tunnel.port) as tcp:
                sent, received = await exchange_digests(tcp, data, 100)
                assert sent == received


async def test_several_agents_behind_one_socket_are_told_apart(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            second = Identity.generate(os.urandom)
            host.register_agent(second)
            await host.publish()
            local = await daemon.add_agent(publish=False)
            seen: list[tuple[Address, str]] = []

            async def handler(connection: AgentConnection) -> None:
                seen.append((connection.local, str(connection.remote)))
                async for stream in connection:
                    with contextlib.suppress(StreamStopped):
                        async with stream:
                            await serve_http(stream, {"/": str(connection.local).encode()})

            async with trio.open_nursery() as nursery:
                await nursery.start(host.serve, handler)
                for agent in (host.address, second.address):
                    answer = await daemon.fetch(str(agent), local=local.aid)
                    assert answer == (200, str(agent).encode())
                nursery.cancel_scope.cancel()
            assert seen == [(host.address, local.aid), (second.address, local.aid)]


async def test_we_dial_as_a_delegated_agent(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with tcp_service(serve_echo) as service, lab.reference_nodes() as (public, daemon):
            agent, made = await daemon.add_agent(service), await daemon.add_agent(publish=False)
            await daemon.remove_agent(made.aid)
            ours = delegated(made.operational_key, made.delegation)
            async with our_host(lab, 0, public) as host:
                host.register_agent(ours)
                async with (
                    host.connect(Address.parse(agent.aid), local=ours.address) as connection,
                    await connection.open_stream() as stream,
                ):
                    assert await exchange(stream, b"hello") == b"hello"
                    sessions = await daemon.get("/agents")
                    assert str(connection.local) == made.aid, sessions


def delegated(operational_key: bytes, delegation: bytes) -> Identity:
    key = SigningKey.from_private_key(operational_key)
    return Identity.delegated(key, delegation, now=int(time.time()))


async def test_topics_are_told_to_the_dialler(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with tcp_service(serve_echo) as service, lab.reference_nodes() as (public, daemon):
            agent = await daemon.add_agent(service)
            registered = {
                "services": ["weather"],
                "name": "theirs",
                "protocols": ["http"],
                "brief": "rain",
                "ttl": 3600,
            }
            await daemon.post(f"/agents/{agent.aid}/services", registered)
            address, key = Address.parse(agent.aid), topic_key("weather")
            async with our_host(lab, 0, public) as host, host.connect(address, at=daemon.address):

                async def told() -> bool:
                    return bool(host.dht.local_records(key, RecordType.TOPIC))

                await eventually(told)
                [record] = host.dht.local_records(key, RecordType.TOPIC)
                assert record.address == address
                assert TopicPayload.decode(record.payload).name == "theirs"


async def test_topics_of_ours_are_told_to_a_dialling_reference(lab: Lab) -> None:
    identity = Identity.generate(os.urandom)
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            host.register_agent(identity)
            await host.publish()
            # Held here and nowhere else: it can only travel on the control stream.
            host.dht.put_local(topic_record(identity, "weather", "ours"), topic_key("weather"))
            local = await daemon.add_agent(publish=False)
            async with serving(host, functools.partial(serve_http, pages={"/": b"hello"})):
                assert await daemon.fetch(str(identity.address), local=local.aid) == (200, b"hello")

                async def told() -> bool:
                    return (identity.address.hex(), RecordType.TOPIC) in await daemon.stored_records()

                await eventually(told)


async def test_the_reference_finds_what_only_our_nodes_hold(lab: Lab) -> None:
    identity = Identity.generate(os.urandom)
    with trio.fail_after(LIMIT):
        async with our_host(lab, 0) as holder, our_host(lab, 1) as publisher:
            assert await publisher.dht.bootstrap([holder.dht_address]) == 1
            publisher.register_agent(identity)
            await publisher.publish()
            await publisher.dht.publish(topic_record(identity, "weather", "ours"), topic_key("weather"))
            async with lab.reference_node(bootstrap=(str(holder.dht_address),)) as daemon:
                found = await daemon.post(f"/resolve/{identity.address}")
                assert found["endpoints"] == [f"quic://{publisher.quic_address}"]
                entries = (await daemon.post("/discover", {"services": ["weather"]}))["entries"]
                assert [(entry["aid"], entry["name"]) for entry in entries] == [(str(identity.address), "ours")]


async def test_two_of_our_hosts_meet_over_reference_nodes_alone(lab: Lab) -> None:
    data = blob(1 * MIB)
    with trio.fail_after(LIMIT):
        async with (
            lab.reference_nodes(3) as (_, one, two),
            our_host(lab, 0, one) as alice,
            our_host(lab, 1, two) as bob,
        ):
            await bob.publish()
            async with (
                serving(bob, serve_echo),
                alice.connect(bob.address) as connection,
                await connection.open_stream() as stream,
            ):
                assert (connection.local, connection.remote) == (alice.address, bob.address)
                assert digest(await exchange(stream, data)) == digest(data)
