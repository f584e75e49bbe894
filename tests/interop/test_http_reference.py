"""HTTP with the reference daemon: its fetch and its tunnel call our application, our client calls its service."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from a2al_trio.host import ALPN, Host, HostConfig, open_host
from a2al_trio.identity import Address, Identity
from tests.interop.conftest import Lab
from tests.interop.reference_node import ReferenceNode
from tests.interop.services import blob, digest, serve_http, tcp_service

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

LIMIT = 60
MIB = 1024 * 1024
PAGE = blob(300_000)


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/who")
    async def who(request: Request) -> str:
        return str(request.scope["extensions"]["a2al.peer"]["aid"])

    @app.post("/hash")
    async def hash_body(request: Request) -> str:
        return hashlib.sha256(await request.body()).hexdigest()

    @app.get("/large")
    async def large() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield PAGE

        return StreamingResponse(parts())

    return app


@asynccontextmanager
async def our_host(lab: Lab, through: ReferenceNode) -> AsyncIterator[Host]:
    config = HostConfig(listen=f"{lab.hosts[0]}:4121", bootstrap=(str(through.address),), min_observed_peers=1)
    async with open_host(Identity.generate(os.urandom), config) as host:
        await host.dht.bootstrapped()
        yield host


@asynccontextmanager
async def our_application(lab: Lab, through: ReferenceNode) -> AsyncIterator[Host]:
    async with our_host(lab, through) as host, trio.open_nursery() as nursery:
        await nursery.start(host.serve_asgi, make_app())
        await host.publish()
        yield host
        nursery.cancel_scope.cancel()


async def test_its_fetch_calls_our_application(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes(2) as (public, daemon), our_application(lab, public) as host:
            aid = str(host.address)
            status, caller = await daemon.fetch(aid, "/who")
            assert status == 200
            assert Address.parse(caller.decode().strip('"')) == Address.parse(daemon.aid)
            body = blob(200_000, seed=7)
            assert await daemon.fetch(aid, "/hash", body=body) == (200, f'"{digest(body)}"'.encode())
            assert (await daemon.fetch(aid, "/nothing"))[0] == 404


async def test_its_tunnel_leads_to_our_application(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes(2) as (public, daemon), our_application(lab, public) as host:
            address = await daemon.connect(str(host.address))
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=None) as client:
                # One TCP client is one stream, so these requests share it.
                found = (await client.get("/who")).json()
                assert Address.parse(found) == Address.parse(daemon.aid)
                assert (await client.get("/large")).content == 20 * PAGE
                body = blob(MIB, seed=8)
                assert (await client.post("/hash", content=body)).json() == digest(body)


async def test_our_client_calls_its_service(lab: Lab) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await serve_http(stream, {"/page": PAGE, "/": b"root"})

    with trio.fail_after(LIMIT):
        async with (
            lab.reference_nodes(2) as (public, daemon),
            tcp_service(serve) as service,
            our_host(lab, public) as host,
            host.http_client() as client,
        ):
            agent = await daemon.add_agent(service)
            base = f"a2al://{agent.aid}"
            response = await client.get(base)
            assert (response.content, response.http_version) == (b"root", "HTTP/1.1")
            # It was offered HTTP/3 beside what it knows, and took that.
            assert {connection.alpn for connection in host.connections} == {ALPN}
            assert (await client.get(f"{base}/page")).content == PAGE
            assert (await client.get(f"{base}/missing")).status_code == 404
            body = blob(2 * MIB, seed=9)
            assert digest((await client.post(base, content=body)).content) == digest(body)
            found: list[int] = []

            async def ask() -> None:
                found.append((await client.get(f"{base}/page")).status_code)

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask)
            assert found == [200] * 20
            assert len(host.connections) == 1


async def test_a_service_that_is_missing_is_an_error(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes(2) as (public, daemon), our_host(lab, public) as host:
            agent = await daemon.add_agent(None)
            async with host.http_client() as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(f"a2al://{agent.aid}/")
