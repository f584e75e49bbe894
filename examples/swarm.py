"""Fifty agents on ten hosts; each finds another one by its AID and asks it who it is."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import trio

from a2al_trio import Address, AgentConnection, Host, HostConfig, Identity, open_host

HOSTS, AGENTS_EACH = 10, 5


async def introduce(connection: AgentConnection) -> None:
    """Tell the caller whom it has reached."""
    async for stream in connection:
        async with stream:
            await stream.receive_all(limit=100)
            await stream.send_all(str(connection.local).encode())


async def ask(host: Host, local: Address, peer: Address, answers: list[bool]) -> None:
    async with host.connect(peer, local=local) as connection, await connection.open_stream() as stream:
        await stream.send_all(b"who are you?")
        await stream.send_eof()
        answers.append((await stream.receive_all(limit=100)).decode() == str(peer))


async def main() -> None:
    agents: list[tuple[Host, Address]] = []
    answers: list[bool] = []
    async with AsyncExitStack() as stack:
        hosts: list[Host] = []
        for _ in range(HOSTS):
            seeds = (str(hosts[0].dht_address),) if hosts else ()
            config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=seeds)
            host = await stack.enter_async_context(open_host(Identity.generate(os.urandom), config))
            for _ in range(AGENTS_EACH):
                agent = Identity.generate(os.urandom)
                host.register_agent(agent)
                agents.append((host, agent.address))
            if seeds:
                await host.dht.bootstrapped()
            hosts.append(host)
        nursery = await stack.enter_async_context(trio.open_nursery())
        async with trio.open_nursery() as publishing:
            for host in hosts:
                await nursery.start(host.serve, introduce)
                publishing.start_soon(host.publish)
        async with trio.open_nursery() as questions:
            for number, (host, agent_address) in enumerate(agents):
                peer = agents[(number + 7) % len(agents)][1]
                questions.start_soon(ask, host, agent_address, peer, answers)
        print(f"{sum(answers)} of {len(agents)} agents were found and proved who they are")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
