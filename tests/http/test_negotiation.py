"""Which HTTP two hosts speak, which agent answers, and who may call without an AID."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import pytest
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.h3 import H3Client, RequestHead, open_h3_client
from a2al_trio.host import ALPN, HTTP3, Host, WebAgent
from a2al_trio.host.access import AccessList
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.quic import Credentials, QuicConnection, open_quic
from a2al_trio.testing import open_simnet
from tests.host.world import identity
from tests.http.world import CALLEE, CALLER, open_hosts, open_world
from tests.quic.tls_support import client_tls, credentials

Clock = trio.testing.MockClock
OTHER = identity(13)
"""A second agent of the callee's host."""


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the version, the caller and the agent that was called."""
    if scope["type"] != "http":
        raise NotImplementedError
    peer = scope["extensions"]["a2al.peer"]
    shown = [value.decode() for name, value in scope["headers"] if name.replace(b"_", b"-").startswith(b"a2al")]
    text = f"{scope['http_version']} {peer['aid']} {peer['agent']} {' '.join(shown)}".strip()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.mark.parametrize(("http3", "version", "alpn"), [(True, "3", HTTP3), (False, "1.1", ALPN)])
async def test_two_hosts_speak_the_newest_http_both_know(
    autojump_clock: Clock, http3: bool, version: str, alpn: str
) -> None:
    async with open_world(tell, http3=http3) as world:
        for _ in range(2):
            response = await world.client.get("/", headers={"a2al-peer": "forged", "a2al_peer": "forged"})
            assert response.text == f"{version} {CALLER.address} {CALLEE.address} {CALLER.address}"
            assert response.http_version == f"HTTP/{version}"
        assert [connection.alpn for connection in world.caller.connections] == [alpn]
        assert [connection.remote for connection in world.callee.connections] == [CALLER.address]
        async with world.caller.connect(CALLEE.address) as connection:
            assert connection.alpn == ALPN, "who wants agent streams gets them"


async def test_what_a_host_speaks_may_change_while_it_is_called(autojump_clock: Clock) -> None:
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, caller), caller.http_client() as client:
        for http3, version in ((True, "3"), (False, "1.1"), (True, "3")):
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(callee.serve_asgi, tell, http3=http3))
                response = await client.get(f"a2al://{CALLEE.address}/")
                assert response.text.startswith(version)
                nursery.cancel_scope.cancel()
            await trio.sleep(1)


async def test_the_server_name_says_which_agent_is_called(autojump_clock: Clock) -> None:
    async with open_world(tell) as world:
        world.callee.register_agent(OTHER)
        await world.callee.publish()
        for agent in (OTHER.address, CALLEE.address):
            response = await world.client.get(f"a2al://{agent}/")
            assert response.text == f"3 {CALLER.address} {agent} {CALLER.address}"


async def test_the_access_rule_is_asked_for_each_request(autojump_clock: Clock) -> None:
    async with open_world(tell) as world, world.caller.http_client(token="ticket") as client:
        assert (await world.client.get("/")).status_code == 200
        world.callee.access = AccessList(allow=[], tokens=["ticket"])
        with pytest.raises(Exception, match="denies us access"):
            await world.client.get("/")
        response = await client.get(f"a2al://{CALLEE.address}/")
        assert response.text == f"3 {CALLER.address} {CALLEE.address} {CALLER.address}", "the ticket is not shown"


async def test_without_pylsqpack_there_is_http_1(autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("a2al_trio.http.client.HAS_HTTP3", False)
        async with open_world(tell) as world:
            assert (await world.client.get("/")).http_version == "HTTP/1.1", "a caller without it"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "a2al_trio.http.h3_asgi", None)
        async with open_world(tell) as world:
            assert (await world.client.get("/")).http_version == "HTTP/1.1", "a server without it"
            with pytest.raises(ConfigurationError, match="pip install"):
                await world.callee.serve_asgi(tell, web=[WebAgent(agent=CALLEE.address)])


# --- callers without an AID ---------------------------------------------------------------------------------------

NAME = "shop.example"
WEB = credentials("p256", NAME)


class Connect(Protocol):
    """Connects for HTTP/3 as somebody who knows nothing of agents."""

    async def __call__(self, name: str, own: Credentials | None = None) -> QuicConnection: ...


@asynccontextmanager
async def open_server(*web: WebAgent) -> AsyncIterator[tuple[Host, Connect]]:
    """A host that serves HTTP/3, and a machine in its network that knows nothing of agents."""
    async with (
        open_simnet(seed=3) as net,
        open_hosts(net) as (callee, _),
        open_quic(net.host("stranger").bind()) as endpoint,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(callee.serve_asgi, tell, web=web))

        async def connect(name: str, own: Credentials | None = None) -> QuicConnection:
            tls = client_tls(alpn=("h3",), credentials=own)
            return await endpoint.connect(callee.quic_address, tls=tls, server_name=name)

        yield callee, connect
        nursery.cancel_scope.cancel()


async def get(client: H3Client, name: str) -> tuple[int, str]:
    async with await client.request(RequestHead(b"GET", name.encode()), end=True) as exchange:
        response = await exchange.receive_response()
        return response.status, (await exchange.receive_all(limit=1000)).decode()


async def test_nobody_calls_without_an_aid_unless_an_agent_wants_it(autojump_clock: Clock) -> None:
    async with open_server() as (host, connect):
        host.access = AccessList(anonymous=True)
        connection = await connect(str(CALLEE.address))
        await connection.wait_closed()
        assert connection.close_reason is not None
        assert connection.close_reason.code == 0x174, "certificate_required"
    async with open_server(WebAgent(agent=CALLEE.address, client_cert="optional")) as (host, connect):
        # One agent's wish says nothing of another on the same host.
        host.register_agent(OTHER)
        connection = await connect(str(OTHER.address))
        await connection.wait_closed()
        assert connection.close_reason is not None
        assert connection.close_reason.code == 0x174


async def test_an_anonymous_caller_is_refused_unless_the_rule_lets_it_in(autojump_clock: Clock) -> None:
    name = str(CALLEE.address)
    async with (
        open_server(WebAgent(agent=CALLEE.address, client_cert="optional")) as (host, connect),
        open_h3_client(await connect(name)) as client,
    ):
        assert await get(client, name) == (403, "This agent takes no anonymous callers.\n")
        host.access = AccessList(allow=[CALLER.address])
        assert (await get(client, name))[0] == 403
        host.access = AccessList(anonymous=True)
        assert await get(client, name) == (200, f"3 None {CALLEE.address}")
        assert not host.connections, "only agents count among the connections of agents"


async def test_an_agent_has_a_name_and_a_certificate_for_those_who_ask_for_it(autojump_clock: Clock) -> None:
    web = WebAgent(agent=CALLEE.address, client_cert="optional", names=[NAME.upper()], credentials=WEB)
    async with open_server(web) as (host, connect):
        host.access = AccessList(anonymous=True)
        by_name = await connect(NAME)
        assert by_name.peer_certificates == WEB.chain
        async with open_h3_client(by_name) as client:
            assert await get(client, NAME) == (200, f"3 None {CALLEE.address}")
        by_aid = await connect(str(CALLEE.address))
        assert by_aid.peer_certificates != WEB.chain, "who can read the agent's own certificate sees that"


async def test_a_certificate_that_proves_no_aid_is_worse_than_none(autojump_clock: Clock) -> None:
    async with open_server(WebAgent(agent=CALLEE.address, client_cert="optional")) as (_, connect):
        connection = await connect(str(CALLEE.address), credentials("p256"))
        await connection.wait_closed()
        assert connection.close_reason is not None
        assert connection.close_reason.code & 0x100, "a TLS alert"


async def test_mistakes_are_named(autojump_clock: Clock) -> None:
    with pytest.raises(ConfigurationError, match="write a list"):
        WebAgent(agent=CALLEE.address, names=NAME)
    with pytest.raises(ConfigurationError, match="required"):
        WebAgent(agent=CALLEE.address, client_cert="none")  # type: ignore[arg-type]
    async with open_simnet(seed=3) as net, open_hosts(net) as (callee, _):
        agent = WebAgent(agent=CALLEE.address)
        for web, complaint in (([WebAgent(agent=OTHER.address)], "register"), ([agent, agent], "comes twice")):
            with pytest.raises(ConfigurationError, match=complaint):
                await callee.serve_asgi(tell, web=web)
        callee.register_agent(OTHER)
        both = [WebAgent(agent=agent, names=[NAME]) for agent in (CALLEE.address, OTHER.address)]
        with pytest.raises(ConfigurationError, match="means one agent"):
            await callee.serve_asgi(tell, web=both)
