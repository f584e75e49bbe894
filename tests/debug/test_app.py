"""The `/debug` pages as an ASGI app, over a host on a simulated network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from a2al_trio.debug import debug_app
from a2al_trio.debug.app import Asgi
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import Host
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

SEED, ALICE = identity(1), identity(2)


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice,
    ):
        yield seed, alice


def client(app: Asgi) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:2122")


async def page(host: Host, section: str) -> Any:
    async with client(debug_app(host)) as browser:
        answer = await browser.get(f"/debug/{section}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return answer.json()


async def test_host_page(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice):
        shown = await page(alice, "host")
        labels = ("unknown", "full_cone", "restricted", "port_restricted", "symmetric")
        assert shown.pop("nat_type_label") == labels[shown.pop("nat_type")]
        assert shown == {
            "address": str(ALICE.address),
            "dht_addr": str(alice.dht_address),
            "quic_addr": str(alice.quic_address),
            "agents": [str(ALICE.address)],
            "nat_bind_public": True,
            "min_observed_peers": 3,
        }


async def test_identity_routing_and_store_pages(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (seed, alice):
        shown = await page(alice, "identity")
        assert shown == {
            "address": str(ALICE.address),
            "node_id_hex": ALICE.node_id.hex(),
            "local_addr": str(alice.dht_address),
        }
        routing = await page(alice, "routing")
        assert routing["total_peers"] == 1
        [peer] = routing["peers"]
        assert (peer["node_id_hex"], peer["port"]) == (SEED.node_id.hex(), seed.dht_address.port)
        assert await page(alice, "store") is None
        await alice.publish()
        [record] = await page(alice, "store")
        assert (record["key_node_id_hex"], record["rec_type"]) == (ALICE.node_id.hex(), 1)


async def test_statistics_take_what_providers_add(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice):
        shown = await page(alice, "stats")
        assert set(shown) == {
            "rx_packets_verified",
            "tx_packets",
            "rpc_completed",
            "total_peers",
            "reach_1h",
            "reach_24h",
            "reach_7d",
            "estimated_network_size",
            "unique_nodes_since_start",
        }
        assert shown["total_peers"] == 1
        alice.signal_stats = dict
        alice.beacon_stats = lambda: {"beacon_peers": 3}
        assert "signal" not in await page(alice, "stats"), "nothing to say is not said"
        alice.signal_stats = lambda: {"aids_registered": 2}
        shown = await page(alice, "stats")
        assert (shown["signal"], shown["beacon_peers"]) == ({"aids_registered": 2}, 3)


async def test_connections_page(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (seed, alice):
        assert await page(alice, "connections") == []
        async with alice.connect(SEED.address, at=seed.quic_address):
            [shown] = await page(alice, "connections")
            assert (shown["local"], shown["remote"]) == (str(ALICE.address), str(SEED.address))
            assert shown["incoming"] is False
            assert shown["path"] == f"direct {seed.quic_address}"
            assert shown["bytes_sent"] > 1000
            await trio.sleep(1)
            [theirs] = await page(seed, "connections")
            assert theirs["incoming"] is True
        assert await page(alice, "connections") == []


async def test_json_is_indented_for_people(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice), client(debug_app(alice)) as browser:
        answer = await browser.get("/debug/host")
        assert answer.text == json.dumps(answer.json(), indent=2) + "\n"


async def test_only_reading_is_possible(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice), client(debug_app(alice)) as browser:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = await browser.request(method, "/debug/host")
            assert (answer.status_code, answer.text.strip()) == (405, "method not allowed")
        answer = await browser.head("/debug/host")
        assert (answer.status_code, answer.content) == (200, b"")
        for path in ("/", "/debug/nothing", "/debug/../app.py", "/debug/page.html/.."):
            assert (await browser.get(path)).status_code in (200, 404)
            assert "def " not in (await browser.get(path)).text
        with pytest.raises(ConfigurationError, match="use identity, routing"):
            alice.debug("nothing")


async def test_the_page_runs_no_script_but_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice), client(debug_app(alice)) as browser:
        for path in ("/debug", "/debug/"):
            answer = await browser.get(path)
            assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        script = (await browser.get("/debug/page.js")).text
        assert "innerHTML" not in script
        assert (await browser.get("/debug/page.css")).headers["content-type"].startswith("text/css")


async def test_mounted_below_another_path(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice):
        app = debug_app(alice)
        for root_path, path in (("/node", "/node/debug/host"), ("/node/debug", "/node/debug/host"), ("", "/host")):
            transport = httpx.ASGITransport(app, root_path=root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
                assert (await browser.get(path)).json()["address"] == str(ALICE.address)


async def test_foreign_names_are_refused_where_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (_, alice), client(debug_app(alice, allowed_hosts=["localhost", "[::1]"])) as browser:
        for name, status in (
            ("localhost:9", 200),
            ("LOCALHOST", 200),
            ("[::1]:9", 200),
            ("evil.example", 421),
            ("", 421),
        ):
            answer = await browser.get("/debug/host", headers={"Host": name})
            assert answer.status_code == status, name


async def test_other_kinds_of_scope() -> None:
    sent: list[Any] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = debug_app(None)  # type: ignore[arg-type]
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
