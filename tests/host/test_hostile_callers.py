"""What callers who do not play by the rules get: routing, control streams, strange streams, stolen identities."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from a2al_trio.errors import ConnectionLost, IdentityMismatch, StreamReset
from a2al_trio.host import ALPN, Host
from a2al_trio.identity import Address, Identity, SigningKey, issue_delegation, make_certificate
from a2al_trio.quic import (
    ClientTls,
    CloseReason,
    Credentials,
    QuicConnection,
    QuicEndpoint,
    QuicStream,
    ServerTls,
    open_quic,
)
from a2al_trio.testing import SimNet, open_simnet
from a2al_trio.wire import encode_mail_delivery, encode_route_frame, seal_mailbox, sign_record
from tests.host.world import EPOCH, identity, open_sim_host
from tests.identity import forgery

ALICE, CAROL, MALLORY = identity(2), identity(4), identity(666)


@asynccontextmanager
async def alice_and_stranger() -> AsyncIterator[tuple[SimNet, Host, QuicEndpoint]]:
    """Alice's host, and a bare QUIC endpoint elsewhere."""
    async with (
        open_simnet(seed=3) as net,
        open_sim_host(net.host("alice"), ALICE) as alice,
        open_quic(net.host("stranger").bind(7)) as quic,
    ):
        yield net, alice, quic


def credentials(who: Identity, certificate: bytes | None = None) -> Credentials:
    chain = (certificate or make_certificate(who, now=EPOCH, entropy=lambda size: bytes(size)),)
    return Credentials(chain=chain, private_key=Ed25519PrivateKey.from_private_bytes(who.key.seed))


async def dial(
    quic: QuicEndpoint, alice: Host, *, shown: Credentials | None = None, name: str | None = None
) -> QuicConnection:
    tls = ClientTls(alpn=(ALPN,), verify_peer=lambda chain, name: None, credentials=shown or credentials(MALLORY))
    return await quic.connect(alice.quic_address, tls=tls, server_name=str(ALICE.address) if name is None else name)


async def dial_and_route(quic: QuicEndpoint, alice: Host) -> QuicConnection:
    connection = await dial(quic, alice)
    control = await connection.open_stream()
    await control.send_all(encode_route_frame(ALICE.address))
    await control.send_eof()
    return connection


async def ending(connection: QuicConnection) -> CloseReason:
    await connection.wait_closed()
    assert connection.close_reason is not None
    return connection.close_reason


async def receive(stream: QuicStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await stream.receive_some(size - len(received))
    return received


async def test_a_silent_control_stream_delays_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        silent = [await dial(quic, alice) for _ in range(20)]
        unfinished = await dial(quic, alice)
        await (await unfinished.open_stream()).send_all(b"a2r2")
        began = trio.current_time()
        await dial_and_route(quic, alice)
        await alice.accept()
        assert trio.current_time() - began < 0.2
        for connection in (*silent, unfinished):
            reason = await ending(connection)
            assert (reason.code, reason.reason) == (1, "control stream failed")
        assert 9.5 < trio.current_time() - began < 10.5


async def test_a_control_stream_that_never_finishes_still_routes(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial(quic, alice)
        await (await connection.open_stream()).send_all(encode_route_frame(ALICE.address))
        assert (await alice.accept()).local == ALICE.address


async def test_a_legacy_dialer_is_served(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial(quic, alice)
        await (await connection.open_stream()).send_all(b"a2r1" + ALICE.address)
        accepted = await alice.accept()
        stream = await connection.open_stream()
        await stream.send_all(b"hello")
        assert await receive(await accepted.accept_stream(), 5) == b"hello"


async def test_an_unknown_agent_is_refused_by_name(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        for target in (CAROL.address, Address(bytes(21))):
            connection = await dial(quic, alice)
            await (await connection.open_stream()).send_all(encode_route_frame(target))
            reason = await ending(connection)
            assert (reason.code, reason.reason) == (1, "unknown agent")


async def test_a_route_must_agree_with_the_certificate_shown(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        alice.register_agent(CAROL)
        connection = await dial(quic, alice)  # shown Alice's certificate
        await (await connection.open_stream()).send_all(encode_route_frame(CAROL.address))
        assert (await ending(connection)).reason == "unknown agent"


async def test_an_unknown_magic_falls_back_to_the_server_name(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        alice.register_agent(CAROL)
        connection = await dial(quic, alice, name=str(CAROL.address))
        await (await connection.open_stream()).send_all(b"what" + bytes(21))
        assert (await alice.accept()).local == CAROL.address


async def test_control_messages_beyond_measure_do_no_harm(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial(quic, alice)
        control = await connection.open_stream()
        await control.send_all(encode_route_frame(ALICE.address))
        accepted = await alice.accept()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(60):
            while True:
                await control.send_all(b"\x7f\x0f\xff" + bytes(4095))
        assert accepted.close_reason is None
        stream = await connection.open_stream()
        await stream.send_all(b"still there")
        assert await receive(await accepted.accept_stream(), 11) == b"still there"


async def open_strange(connection: QuicConnection, first: bytes) -> QuicStream:
    stream = await connection.open_stream()
    await stream.send_all(first)
    return stream


async def test_streams_of_unknown_kinds_never_reach_the_application(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial_and_route(quic, alice)
        accepted = await alice.accept()
        for magic in (b"a2zz", b"a2gp", b"a2en", b"a2cs"):
            stream = await open_strange(connection, magic + b"anything")
            with pytest.raises(StreamReset):
                await stream.receive_some()
        await open_strange(connection, b"a2")  # too short to be a kind: after a moment it is the service's
        assert await receive(await accepted.accept_stream(), 2) == b"a2"


async def test_a_service_that_speaks_first_is_not_starved(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial_and_route(quic, alice)
        accepted = await alice.accept()
        stream = await open_strange(connection, b"S")
        served = await accepted.accept_stream()
        await served.send_all(b"220 ready")
        assert await receive(stream, 9) == b"220 ready"


async def test_mail_delivered_directly_is_filed(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        connection = await dial_and_route(quic, alice)
        await alice.accept()
        payload = seal_mailbox(
            MALLORY.address, ALICE.address, ALICE.public_key, 3, b"psst", entropy=lambda n: bytes(range(n))
        )
        record = sign_record(MALLORY, 0x80, payload, sequence=1, timestamp=EPOCH - 1, ttl=3600)
        for _ in range(2):  # a duplicate is welcomed alike
            stream = await open_strange(connection, encode_mail_delivery(record))
            await stream.send_eof()
            assert bytes(await stream.receive_all(limit=10)) == b"\x01"
        held = alice.dht.local_records(ALICE.address.node_id, 0x80)
        assert [found.payload for found in held] == [payload]
        foreign = seal_mailbox(
            MALLORY.address, CAROL.address, CAROL.public_key, 3, b"psst", entropy=lambda n: bytes(range(n))
        )
        misdelivered = sign_record(MALLORY, 0x80, foreign, sequence=2, timestamp=EPOCH - 1, ttl=3600)
        stream = await open_strange(connection, encode_mail_delivery(misdelivered))
        await stream.send_eof()
        assert bytes(await stream.receive_all(limit=10)) == b""


def stolen_identities() -> dict[str, bytes]:
    """Mallory's certificates that claim to be Carol, in every way known to fool the reference."""
    master = SigningKey(bytes(31) + b"\x50")
    foreign = issue_delegation(master, MALLORY.public_key, issued_at=EPOCH - 10, expires_at=0)
    stolen = issue_delegation(CAROL.key, CAROL.public_key, issued_at=EPOCH - 10, expires_at=0)
    expired = issue_delegation(CAROL.key, MALLORY.public_key, issued_at=EPOCH - 900, expires_at=EPOCH - 600)
    return {
        "another agent's proof": forgery.forge(MALLORY.key, forgery.extension(CAROL.address, foreign.encode())),
        "a proof for another key": forgery.forge(MALLORY.key, forgery.extension(CAROL.address, stolen.encode())),
        "an expired proof": forgery.forge(MALLORY.key, forgery.extension(CAROL.address, expired.encode())),
        "no proof": forgery.forge(MALLORY.key, forgery.extension(CAROL.address, b"")),
        "a malformed extension": forgery.forge(MALLORY.key, b"\x04\x03abc"),
        "an empty extension": forgery.forge(MALLORY.key, b""),
    }


@pytest.mark.parametrize("kind", stolen_identities())
async def test_a_caller_with_a_stolen_identity_is_refused(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    certificate = stolen_identities()[kind]
    async with alice_and_stranger() as (_, alice, quic):
        # In TLS 1.3 the dialer is done before the acceptor has judged it (spec 04 §4.5).
        with pytest.raises(ConnectionLost) as caught:
            connection = await dial(quic, alice, shown=credentials(MALLORY, certificate))
            control = await connection.open_stream()
            await control.send_all(encode_route_frame(ALICE.address))
            await connection.accept_stream()
        assert caught.value.code == 0x100 + 42
        with trio.move_on_after(30) as nobody:
            await alice.accept()
        assert nobody.cancelled_caught


@pytest.mark.parametrize("kind", stolen_identities())
async def test_a_callee_with_a_stolen_identity_is_refused(kind: str, autojump_clock: trio.testing.MockClock) -> None:
    shown = credentials(MALLORY, stolen_identities()[kind])
    async with open_simnet(seed=3) as net, open_sim_host(net.host("alice"), ALICE) as alice:
        machine = net.host("mallory").bind(7)
        async with open_quic(machine, server=ServerTls(alpn=(ALPN,), credentials=shown)):
            with pytest.raises(IdentityMismatch):
                await alice.open_connection(CAROL.address, at=machine.address)


async def test_a_caller_without_a_certificate_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with alice_and_stranger() as (_, alice, quic):
        tls = ClientTls(alpn=(ALPN,), verify_peer=lambda chain, name: None)
        with pytest.raises(ConnectionLost) as caught:
            connection = await quic.connect(alice.quic_address, tls=tls, server_name=str(ALICE.address))
            await connection.accept_stream()
        assert caught.value.code == 0x174
