"""Mail, topics, records, delegated agents and debug pages, between our host and the reference daemon."""

from __future__ import annotations

import base64
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from a2al_trio.debug import debug_app
from a2al_trio.host import Host
from a2al_trio.identity import (
    Address,
    DelegationProof,
    Identity,
    SigningKey,
    issue_chain_delegation,
    issue_delegation,
    secp256k1,
)
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import MailboxMessage, MailboxType, ProfilePayload, TopicPayload
from tests.debug.test_app import client
from tests.interop.conftest import Lab
from tests.interop.reference_node import ReferenceAgent, ReferenceNode
from tests.interop.services import exchange, serve_echo, serve_http, tcp_service
from tests.interop.test_host_reference import our_host, serving

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

LIMIT = 60
WEATHER = TopicPayload(topic="", name="ours", protocols=("http",), tags=("eu", "free"), brief="Rain or shine")


async def send_mail(node: ReferenceNode, sender: str, recipient: Address, body: bytes) -> None:
    note = {"recipient": str(recipient), "msg_type": 3, "body_base64": base64.b64encode(body).decode()}
    assert (await node.post(f"/agents/{sender}/mailbox/send", note))["ok"]


async def poll_mail(node: ReferenceNode, agent: str) -> list[tuple[str, int, bytes]]:
    """The daemon's mail; newer ones also have what was delivered to them directly, which may take a moment."""
    while not (messages := (await node.post(f"/agents/{agent}/mailbox/poll"))["messages"]):  # noqa: ASYNC110
        await trio.sleep(0.1)
    return [(note["sender"], note["msg_type"], base64.b64decode(note["body_base64"])) for note in messages]


async def test_mail_from_us_is_read_by_the_reference(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with tcp_service(serve_echo) as service, lab.reference_nodes() as (public, daemon):
            agent = await daemon.add_agent(service)
            async with our_host(lab, 0, public) as host:
                await host.publish()
                sent = await host.mailbox.send(Address.parse(agent.aid), b"hello from us")
                assert sent.publication.replicas
                assert await poll_mail(daemon, agent.aid) == [(str(host.address), 3, b"hello from us")]
                # v0.2.0 would hand the note to the agent's service; the newest acknowledges it.
                assert await sent.wait_delivered() is (daemon.version != "0.2.0")


async def test_mail_from_the_reference_is_read_by_us(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            second = Identity.generate(os.urandom)
            host.register_agent(second)
            await host.publish()
            agent = await daemon.add_agent()
            for recipient in (host.address, second.address):
                await send_mail(daemon, agent.aid, recipient, b"hello " + str(recipient).encode())
                message: MailboxMessage = await anext(host.mailbox.messages(recipient))
                assert (str(message.sender), message.message_type) == (agent.aid, MailboxType.TEXT)
                assert (message.sender_key, message.body) == (public_of(agent), b"hello " + str(recipient).encode())
            assert await host.mailbox.poll() == []


async def test_topics_of_ours_are_found_by_the_reference(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            async with host.topics.register(["weather", "eu weather"], WEATHER) as registration:
                assert set(registration.publications) == {"weather", "eu weather"}
                for services in (["weather"], ["weather", "eu weather"]):
                    [entry] = (await daemon.post("/discover", {"services": services}))["entries"]
                    assert (entry["aid"], entry["name"]) == (str(host.address), "ours")
                for wanted, count in (({"tags": ["eu"]}, 1), ({"tags": ["us"]}, 0), ({"protocols": ["mcp"]}, 0)):
                    found = await daemon.post("/discover", {"services": ["weather"], "filter": wanted})
                    assert len(found["entries"] or []) == count


async def test_topics_of_the_reference_are_found_by_us(lab: Lab) -> None:
    registered = {"services": ["weather", "rain"], "name": "theirs", "protocols": ["http"], "tags": ["eu"], "ttl": 3600}
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            agent = await daemon.add_agent()
            await daemon.post(f"/agents/{agent.aid}/services", registered)
            for entries in (
                await host.topics.search("weather"),
                await host.topics.search("rain", protocols=["http", "x"], tags=["eu"]),
                await host.topics.search_all(["rain", "weather"]),
            ):
                assert [(str(entry.agent), entry.payload.name) for entry in entries] == [(agent.aid, "theirs")]
            assert await host.topics.search("weather", tags=["us"]) == []


async def test_profiles_are_read_both_ways(lab: Lab) -> None:
    ours = ProfilePayload(name="Ours", brief="b", protocols=("a2a",), skills=("rain",), card_hash=bytes(32))
    theirs = {"name": "Theirs", "brief": "c", "protocols": ["mcp"], "skills": ["sun"]}
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            await host.records.publish_profile(ours)
            records = (await daemon.get(f"/resolve/{host.address}/records"))["records"]
            assert {record["rec_type"]: base64.b64decode(record["payload_base64"]) for record in records}[2] == (
                ours.encode()
            )
            agent = await daemon.add_agent()
            await daemon.post(f"/agents/{agent.aid}/profile", theirs)
            found = await host.records.find_profile(Address.parse(agent.aid))
            assert (found.payload.name, found.payload.skills) == ("Theirs", ("sun",))


OPERATIONAL = SigningKey(bytes(range(32)))


def by_ed25519(issued_at: int, expires_at: int) -> DelegationProof:
    master = SigningKey.generate(os.urandom)
    return issue_delegation(master, OPERATIONAL.public_key, issued_at=issued_at, expires_at=expires_at)


def by_chain(address_of: Callable[[bytes], Address], issued_at: int, expires_at: int) -> DelegationProof:
    private = os.urandom(32)
    owner = address_of(secp256k1.public_key(private))
    return issue_chain_delegation(owner, private, OPERATIONAL.public_key, issued_at=issued_at, expires_at=expires_at)


MASTERS: dict[str, Callable[[int, int], DelegationProof]] = {
    "ed25519": by_ed25519,
    "ethereum": functools.partial(by_chain, secp256k1.ethereum_address),
    "paralism": functools.partial(by_chain, secp256k1.paralism_address),
}


@pytest.mark.parametrize("master", MASTERS)
async def test_delegated_agents_are_dialled_across(lab: Lab, master: str) -> None:
    now = int(time.time())
    theirs, ours = MASTERS[master](now - 5, 0), MASTERS[master](now - 5, now + 86_400)
    with trio.fail_after(LIMIT):
        async with tcp_service(serve_echo) as service, lab.reference_nodes() as (public, daemon):
            await register(daemon, theirs, service)
            async with our_host(lab, 0, public) as host:
                agent = Identity.delegated(OPERATIONAL, ours.encode(), now=now)
                host.register_agent(agent)
                await host.publish()
                async with (
                    host.connect(theirs.agent, local=agent.address) as connection,
                    await connection.open_stream() as stream,
                ):
                    assert (connection.local, connection.remote) == (agent.address, theirs.agent)
                    assert await exchange(stream, b"hello") == b"hello"
                async with serving(host, functools.partial(serve_http, pages={"/": b"from ours"})):
                    fetched = await daemon.fetch(str(agent.address), local=str(theirs.agent))
                    assert fetched == (200, b"from ours")
                # Mail is encrypted to the operational keys and signed by them.
                await host.mailbox.send(theirs.agent, b"note", agent=agent.address, direct=False)
                assert await poll_mail(daemon, str(theirs.agent)) == [(str(agent.address), 3, b"note")]
                await send_mail(daemon, str(theirs.agent), agent.address, b"reply")
                assert (await anext(host.mailbox.messages(agent.address))).sender == theirs.agent


async def register(daemon: ReferenceNode, proof: DelegationProof, service: SocketAddress) -> None:
    body = {
        "operational_private_key_hex": OPERATIONAL.private_key.hex(),
        "delegation_proof_hex": proof.encode().hex(),
        "service_tcp": str(service),
    }
    await daemon.post("/agents", body)
    await daemon.publish(str(proof.agent))


def public_of(agent: ReferenceAgent) -> bytes:
    return SigningKey.from_private_key(agent.operational_key).public_key


async def test_a_service_that_speaks_first_is_heard(lab: Lab) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 welcome")

    with trio.fail_after(LIMIT):
        async with tcp_service(greet) as service, lab.reference_nodes() as (public, daemon):
            agent = await daemon.add_agent(service)
            async with our_host(lab, 0, public) as host, host.connect(Address.parse(agent.aid)) as connection:
                assert await connection.wait_service_streams() is (daemon.version != "0.2.0")
                async with await connection.open_service_stream() as stream:
                    if daemon.version == "0.2.0":
                        await stream.send_all(b"HELO")  # it opens the service when it sees the stream
                    assert await stream.receive_all(limit=100) == b"220 welcome"


async def test_debug_pages_have_the_same_fields(lab: Lab) -> None:
    with trio.fail_after(LIMIT):
        async with lab.reference_nodes() as (public, daemon), our_host(lab, 0, public) as host:
            await host.publish()
            await daemon.add_agent()
            for section in ("identity", "routing", "store", "stats", "host"):
                ours, theirs = await debug_page(host, section), await daemon.get(f"/debug/{section}")
                known = ("signal", "ice_", "beacon", "punch") if section == "stats" else ()
                compare(section, ours, theirs, but=known)


async def debug_page(host: Host, section: str) -> Any:
    async with client(debug_app(host)) as browser:
        return (await browser.get(f"/debug/{section}")).json()


def compare(where: str, ours: object, theirs: object, *, but: tuple[str, ...] = ()) -> None:
    """The same field names and kinds of values, all the way down; `but` begins names only the daemon has."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        expected = {name for name in theirs if not name.startswith(but or ("-",))}
        assert set(ours) - OPTIONAL == expected - OPTIONAL, where
        for name in set(ours) & set(theirs):
            compare(f"{where}.{name}", ours[name], theirs[name])
    elif isinstance(ours, list) and isinstance(theirs, list):
        if ours and theirs:
            compare(f"{where}[]", ours[0], theirs[0])
    else:
        assert type(ours) is type(theirs), f"{where}: {ours!r} and {theirs!r}"


OPTIONAL = {"observed_host", "observed_port", "verified_ago", "signal"}
