"""An application and its caller on real sockets: a hundred megabytes in bounded memory, many requests at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tests.http.world import open_loopback_hosts

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1024 * 1024
SIZE = 100 * MIB
MEMORY_LIMIT = 64 * MIB
"""What streaming may take over idle, both ends together."""
BLOCK = os.urandom(MIB)


def resident_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def open_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    with trio.fail_after(60):
        async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
            await nursery.start(callee.serve_asgi, app)
            async with caller.http_client(base_url=f"a2al://{callee.address}") as client:
                yield client
            nursery.cancel_scope.cancel()


async def blocks(each: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    for _ in range(SIZE // MIB):
        each(BLOCK)
        yield BLOCK


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_a_hundred_megabytes_each_way_in_bounded_memory() -> None:
    app = FastAPI()
    sent, taken, received = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    peak = 0

    @app.get("/")
    async def download() -> StreamingResponse:
        return StreamingResponse(blocks(sent.update))

    @app.post("/")
    async def upload(request: Request) -> str:
        digest = hashlib.sha256()
        async for chunk in request.stream():
            digest.update(chunk)
        return digest.hexdigest()

    async with open_client(app) as client:
        await client.post("/", content=BLOCK)
        idle = resident_memory()
        async with client.stream("GET", "/") as response:
            async for chunk in response.aiter_raw():
                received.update(chunk)
                peak = max(peak, resident_memory())
        assert (await client.post("/", content=blocks(taken.update))).json() == taken.hexdigest()
        peak = max(peak, resident_memory())
    assert received.digest() == sent.digest()
    assert peak - idle < MEMORY_LIMIT


async def test_two_hundred_requests_at_once() -> None:
    app = FastAPI()

    @app.get("/{number}")
    async def double(number: int) -> int:
        await trio.sleep(0.1)
        return 2 * number

    found = set()

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        found.add((number, (await client.get(f"/{number}")).json()))

    async with open_client(app) as client, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, client, number)
    assert found == {(number, 2 * number) for number in range(200)}
