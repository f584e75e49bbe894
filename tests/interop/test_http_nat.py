"""A FastAPI application behind one NAT, called with httpx from behind another."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from fastapi import FastAPI, Request

from tests.interop.nat_world import OpenNatLab, open_nat_world

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]


async def test_an_application_is_called_across_two_nats(open_nat_lab: OpenNatLab, tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/path")
    async def path(request: Request) -> dict[str, str]:
        found: dict[str, str] = request.scope["extensions"]["a2al.peer"]
        return found

    with trio.fail_after(60):
        async with (
            open_nat_world(open_nat_lab, tmp_path, "port_restricted", "port_restricted") as world,
            world.host("a") as caller,
            world.host("b") as callee,
            caller.http_client() as client,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(callee.serve_asgi, app)
            world.let_them_meet()
            response = await client.get(f"a2al://{callee.address}/path")
            found = response.json()
            assert (found["aid"], found["agent"]) == (str(caller.address), str(callee.address))
            assert response.http_version == "HTTP/3"
            nursery.cancel_scope.cancel()
