"""An MCP server called by AID: no port, no URL, no login, and its tools know who calls."""

from __future__ import annotations

import trio
from loopback import open_pair
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def caller_aid(context: Context) -> str:
    """Say who calls: an AID that is proven, not claimed."""
    return (context.headers or {})["a2al-peer"]


async def main() -> None:
    async with open_pair() as (callee, caller), trio.open_nursery() as nursery:
        aid = str(callee.address)
        await nursery.start(callee.serve_asgi, server.streamable_http_app(host=aid))
        async with (
            caller.httpx2_client() as http,
            Client(streamable_http_client(f"a2al://{aid}/mcp", http_client=http)) as client,
        ):
            tools = await client.list_tools()
            total = await client.call_tool("add", {"a": 40, "b": 2})
            who = await client.call_tool("caller_aid")
            print([tool.name for tool in tools.tools], total.structured_content)
            print("caller proven:", who.structured_content == {"result": str(caller.address)})
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
