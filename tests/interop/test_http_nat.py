"""A FastAPI application behind one NAT, called with httpx from behind another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from a2al_trio.host import Host
from tests.http.test_loopback import MEMORY_LIMIT, resident_memory
from tests.interop.nat_world import OpenNatLab, open_nat_world

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


BLOCKS = 100
BLOCK = os.urandom(1024 * 1024)


class Service:
    """What is behind the other NAT."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.sent = hashlib.sha256()
        self.waiting = 0
        self.left = trio.Event()
        self.app.get("/path")(self.path)
        self.app.get("/blocks")(self.blocks)
        self.app.get("/events")(self.events)
        self.app.get("/double/{number}")(self.double)

    async def path(self, request: Request) -> dict[str, str]:
        found: dict[str, str] = request.scope["extensions"]["a2al.peer"]
        return found

    async def blocks(self) -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            for _ in range(BLOCKS):
                self.sent.update(BLOCK)
                yield BLOCK

        return StreamingResponse(stream())

    async def events(self) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            self.waiting += 1
            try:
                yield "data: now\n\n"
                await trio.sleep_forever()
            finally:
                self.waiting -= 1
                self.left.set()

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def double(self, number: int) -> int:
        await trio.sleep(0.05)
        return 2 * number


async def test_an_application_is_called_across_two_nats(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    service = Service()

    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, "port_restricted", "port_restricted") as world,
            world.host("a") as caller,
            world.host("b") as callee,
            caller.http_client(base_url=f"a2al://{callee.address}") as client,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(callee.serve_asgi, service.app)
            world.let_them_meet()
            await says_who_calls(client, caller, callee)
            await streams_a_hundred_megabytes(client, service)
            await answers_two_hundred_at_once(client)
            await sends_events_until_the_caller_leaves(client, service)
            nursery.cancel_scope.cancel()


async def says_who_calls(client: httpx.AsyncClient, caller: Host, callee: Host) -> None:
    response = await client.get("/path")
    found = response.json()
    assert (found["aid"], found["agent"]) == (str(caller.address), str(callee.address))
    assert response.http_version == "HTTP/3"


async def streams_a_hundred_megabytes(client: httpx.AsyncClient, service: Service) -> None:
    received, idle, peak = hashlib.sha256(), resident_memory(), 0
    async with client.stream("GET", "/blocks") as response:
        async for chunk in response.aiter_raw():
            received.update(chunk)
            peak = max(peak, resident_memory())
    assert received.digest() == service.sent.digest()
    assert peak - idle < MEMORY_LIMIT


async def answers_two_hundred_at_once(client: httpx.AsyncClient) -> None:
    found = set()

    async def ask(number: int) -> None:
        found.add((number, (await client.get(f"/double/{number}")).json()))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number)
    assert found == {(number, 2 * number) for number in range(200)}


async def sends_events_until_the_caller_leaves(client: httpx.AsyncClient, service: Service) -> None:
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async with client.stream("GET", "/events") as response:
                async for line in response.aiter_lines():
                    if line == "data: now":
                        assert service.waiting == 1
                        nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
    with trio.fail_after(1):
        await service.left.wait()
    assert service.waiting == 0
