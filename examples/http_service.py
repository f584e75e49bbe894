"""A FastAPI application served by AID and called with httpx: no port, no name, no certificate authority."""

from __future__ import annotations

import trio
from fastapi import FastAPI, Request
from loopback import open_pair

app = FastAPI()


@app.get("/hello/{name}")
async def hello(name: str, request: Request) -> dict[str, str]:
    """Greet; the caller's AID is proven, not claimed."""
    return {"greeting": f"hello {name}", "caller": request.scope["extensions"]["a2al.peer"]["aid"]}


async def main() -> None:
    async with open_pair() as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(callee.serve_asgi, app)
        async with caller.http_client() as client:
            answer = (await client.get(f"a2al://{callee.address}/hello/world")).json()
            print(answer["greeting"], "caller proven:", answer["caller"] == str(caller.address))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
