"""An MCP server reached by AID: an unchanged MCP client is led there by a local port."""

from __future__ import annotations

import httpx2
import trio
from loopback import open_pair
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer

from a2al_trio import Host
from a2al_trio.http import forward_tcp, serve_asgi

server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def use_tools(caller: Host, callee: Host) -> None:
    """What any MCP client does: it is given a URL on this machine."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **options: forward_tcp(caller, callee.address, listeners, **options))
        async with httpx2.AsyncClient(trust_env=False, timeout=None) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)
            async with Client(transport) as client:
                tools = await client.list_tools()
                result = await client.call_tool("add", {"a": 40, "b": 2})
                print([tool.name for tool in tools.tools], result.structured_content)
        nursery.cancel_scope.cancel()


async def main() -> None:
    async with open_pair() as (callee, caller), trio.open_nursery() as nursery:
        await nursery.start(serve_asgi, callee, server.streamable_http_app())
        await use_tools(caller, callee)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
