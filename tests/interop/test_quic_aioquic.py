"""Our QUIC against aioquic, in both roles, over real loopback sockets."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding

from a2al_trio.errors import CloseCause, ConnectionLost, StreamReset, StreamStopped
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import (
    VERSION_1,
    VERSION_2,
    CipherSuite,
    ClientAuthentication,
    NamedGroup,
    PeerRejected,
    QuicConfig,
    QuicConnection,
    QuicEndpoint,
    QuicStream,
    RetryPolicy,
    ServerTls,
    TicketKeys,
    open_quic,
)
from a2al_trio.testing import Link, Nat, open_simnet
from tests.quic.tls_support import client_tls, credentials, drbg, server_tls

pytest.importorskip("aioquic")

from aioquic import tls as aioquic_tls
from aioquic.quic.packet import QuicProtocolVersion

from tests.interop.aioquic_peer import AioquicConnection, AioquicPeer, Handler, configuration, open_aioquic

LOOPBACK = SocketAddress("127.0.0.1", 0)
MEGABYTE = bytes(range(256)) * 4096


@asynccontextmanager
async def our_endpoint(
    server: ServerTls | None = None, config: QuicConfig | None = None
) -> AsyncIterator[QuicEndpoint]:
    async with open_udp(LOOPBACK) as socket, open_quic(socket, config, server=server) as endpoint:
        yield endpoint


@asynccontextmanager
async def their_server(
    handler: Handler | None = None,
    *,
    retry: bool = False,
    ask: bool = False,
    **settings: Any,
) -> AsyncIterator[tuple[AioquicPeer, SocketAddress]]:
    config = configuration(is_client=False, credentials=credentials(), **settings)
    async with (
        open_udp(LOOPBACK) as socket,
        open_aioquic(socket, config, handler=handler, retry=retry, ask=ask) as peer,
    ):
        yield peer, socket.local_address


@asynccontextmanager
async def their_client(handler: Handler | None = None, **settings: Any) -> AsyncIterator[AioquicPeer]:
    config = configuration(is_client=True, server_name="example.test", **settings)
    async with open_udp(LOOPBACK) as socket, open_aioquic(socket, config, handler=handler) as peer:
        yield peer


def echo(connection: AioquicConnection, stream_id: int, data: bytes, end: bool) -> None:
    """Send back what comes, as an aioquic server."""
    if not stream_id & 2:
        connection.quic.send_stream_data(stream_id, data, end)


async def echo_streams(connection: QuicConnection) -> None:
    """Send back what comes, as our server."""

    async def echo_stream(stream: QuicStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)

    async with trio.open_nursery() as nursery:
        async for stream in connection:
            nursery.start_soon(echo_stream, stream)


async def exchange(connection: QuicConnection, data: bytes) -> bytes:
    """Send on a new stream and return what comes back."""
    answer = []
    async with await connection.open_stream() as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        async for chunk in stream:
            answer.append(chunk)
    return b"".join(answer)


# --- handshakes ------------------------------------------------------------------------------------------------


async def test_we_connect(no_leaks: None) -> None:
    async with (
        their_server(echo) as (_, address),
        our_endpoint() as endpoint,
        await endpoint.connect(address, tls=client_tls(), server_name="example.test") as connection,
    ):
        assert connection.alpn == "test"
        assert connection.peer_certificates == credentials().chain
        assert connection.peer_address == address
        assert await exchange(connection, b"hello") == b"hello"


async def test_they_connect(no_leaks: None) -> None:
    async with our_endpoint(server_tls()) as endpoint, their_client() as client:
        theirs = await client.connected(endpoint.local_address)
        connection = await endpoint.accept()
        assert (connection.alpn, connection.server_name) == ("test", "example.test")
        assert theirs.handshake is not None
        assert theirs.handshake.alpn_protocol == "test"
        theirs.send(0, b"hello", end=True)
        stream = await connection.accept_stream()
        assert await stream.receive_all(limit=100) == b"hello"


async def test_both_show_certificates_we_connect() -> None:
    authority = credentials("ed25519", "example.test").chain[0]
    pem = ssl.DER_cert_to_PEM_cert(authority).encode()
    mine = credentials("ed25519", "example.test")
    async with (
        their_server(ask=True, cadata=pem, verify_mode=ssl.CERT_REQUIRED) as (peer, address),
        our_endpoint() as endpoint,
    ):
        await endpoint.connect(address, tls=client_tls(credentials=mine), server_name="example.test")
        theirs = await peer.accepted()
        shown = theirs.quic.tls._peer_certificate
        assert shown is not None
        assert shown.public_bytes(Encoding.DER) == mine.chain[0]


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
async def test_both_show_certificates_they_connect(kind: str) -> None:
    tls = server_tls(client_authentication=ClientAuthentication.REQUIRED, credentials=credentials(kind))
    mine = credentials(kind, "client")
    config = configuration(is_client=True, credentials=mine, server_name="example.test")
    async with our_endpoint(tls) as endpoint, open_udp(LOOPBACK) as socket, open_aioquic(socket, config) as client:
        await client.connected(endpoint.local_address)
        assert (await endpoint.accept()).peer_certificates == mine.chain


async def test_a_client_without_the_certificate_we_require_is_told_so() -> None:
    tls = server_tls(client_authentication=ClientAuthentication.REQUIRED)
    async with our_endpoint(tls) as endpoint, their_client() as client:
        theirs = client.connect(endpoint.local_address)
        end = await theirs.until_terminated()
        assert end.error_code == 0x100 + 116  # certificate_required


async def test_a_certificate_we_turn_down() -> None:
    def refuse(chain: tuple[bytes, ...], server_name: str | None) -> None:
        raise PeerRejected("not the one I know")

    async with their_server() as (peer, address), our_endpoint() as endpoint:
        with pytest.raises(ConnectionLost) as caught:
            await endpoint.connect(address, tls=client_tls(verify_peer=refuse), server_name="example.test")
        assert isinstance(caught.value.__cause__, PeerRejected)
        end = await peer.connections[0].until_terminated()
        assert 0x100 <= end.error_code <= 0x1FF


async def test_no_application_protocol_in_common() -> None:
    async with their_server(alpn_protocols=["other"]) as (_, address), our_endpoint() as endpoint:
        with pytest.raises(ConnectionLost) as caught:
            await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        assert caught.value.by is CloseCause.PEER_TRANSPORT
    async with our_endpoint(server_tls()) as endpoint, their_client(alpn_protocols=["other"]) as client:
        end = await client.connect(endpoint.local_address).until_terminated()
        assert end.error_code == 0x100 + 120  # no_application_protocol


@pytest.mark.parametrize("suite", list(CipherSuite))
async def test_every_cipher_suite_in_both_roles(suite: CipherSuite) -> None:
    theirs = [aioquic_tls.CipherSuite(suite.value)]
    async with their_server(echo, cipher_suites=theirs) as (_, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        assert await exchange(connection, MEGABYTE) == MEGABYTE
    async with our_endpoint(server_tls()) as endpoint, their_client(cipher_suites=theirs) as client:
        await serve_one_exchange(endpoint, client)


async def serve_one_exchange(endpoint: QuicEndpoint, client: AioquicPeer, data: bytes = MEGABYTE) -> AioquicConnection:
    theirs = await client.connected(endpoint.local_address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.serve, echo_streams)
        theirs.send(0, data, end=True)
        await theirs.until(lambda: 0 in theirs.finished)
        nursery.cancel_scope.cancel()
    assert theirs.received[0] == data
    return theirs


@pytest.mark.parametrize("group", [NamedGroup.X25519, NamedGroup.SECP256R1])
async def test_key_exchange_groups(group: NamedGroup) -> None:
    async with their_server(echo) as (_, address), our_endpoint() as endpoint:
        tls = client_tls(groups=(group,), key_shares=(group,))
        connection = await endpoint.connect(address, tls=tls, server_name="example.test")
        assert await exchange(connection, b"hello") == b"hello"
    async with our_endpoint(server_tls(groups=(group,))) as endpoint, their_client() as client:
        await serve_one_exchange(endpoint, client, b"hello")


# --- streams ---------------------------------------------------------------------------------------------------


def contents(number: int) -> bytes:
    return hashlib.shake_256(f"stream {number}".encode()).digest(1_000_000)


async def test_twenty_streams_at_once_we_connect(no_leaks: None) -> None:
    async with their_server(echo) as (_, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")

        async def one(number: int) -> None:
            assert await exchange(connection, contents(number)) == contents(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)


async def test_twenty_streams_at_once_they_connect(no_leaks: None) -> None:
    async with our_endpoint(server_tls()) as endpoint, their_client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.serve, echo_streams)
        theirs = await client.connected(endpoint.local_address)
        for number in range(20):
            theirs.quic.send_stream_data(4 * number, contents(number), True)
        client.flush()
        await theirs.until(lambda: len(theirs.finished) == 20)
        for number in range(20):
            assert theirs.received[4 * number] == contents(number)
        nursery.cancel_scope.cancel()


async def test_streams_in_one_direction() -> None:
    async with their_server() as (peer, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        async with await connection.open_unidirectional_stream() as stream:
            await stream.send_all(b"to the server")
        theirs = await peer.accepted()
        await theirs.until(lambda: 2 in theirs.finished)
        assert theirs.received[2] == b"to the server"
        theirs.send(3, b"to the client", end=True)
        back = await connection.accept_unidirectional_stream()
        assert (back.stream_id, await back.receive_all(limit=100)) == (3, b"to the client")


async def test_resets_and_stops_carry_their_codes() -> None:
    async with their_server() as (peer, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        stream = await connection.open_stream()
        await stream.send_all(b"hello")
        theirs = await peer.accepted()
        await theirs.until(lambda: 0 in theirs.received)
        theirs.quic.reset_stream(0, 11)
        theirs.quic.stop_stream(0, 12)
        peer.flush()
        with pytest.raises(StreamReset) as reset:
            await stream.receive_some()
        assert reset.value.code == 11
        with pytest.raises(StreamStopped) as stopped:
            while True:
                await stream.send_all(MEGABYTE)
        assert stopped.value.code == 12
        second = await connection.open_stream()
        await second.send_all(b"hello")
        second.reset(21)
        second.stop(22)
        await theirs.until(lambda: theirs.resets.get(4) == 21 and theirs.stops.get(4) == 22)


# --- the end ---------------------------------------------------------------------------------------------------


async def test_our_close_code_reaches_them() -> None:
    async with their_server() as (peer, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        theirs = await peer.accepted()
        connection.close(0x1234, "enough")
        end = await theirs.until_terminated()
        assert (end.error_code, end.reason_phrase) == (0x1234, "enough")
        assert connection.close_reason is not None
        assert connection.close_reason.by is CloseCause.LOCAL


async def test_their_close_code_reaches_us() -> None:
    async with our_endpoint(server_tls()) as endpoint, their_client() as client:
        theirs = await client.connected(endpoint.local_address)
        connection = await endpoint.accept()
        theirs.quic.close(error_code=0x4321, reason_phrase="done")
        client.flush()
        with pytest.raises(ConnectionLost) as caught:
            await connection.accept_stream()
        assert (caught.value.by, caught.value.code, caught.value.reason) == (CloseCause.PEER_APP, 0x4321, "done")


async def test_leaving_the_endpoint_closes_connections() -> None:
    async with their_server() as (peer, address):
        async with our_endpoint() as endpoint:
            await endpoint.connect(address, tls=client_tls(), server_name="example.test")
            theirs = await peer.accepted()
        assert (await theirs.until_terminated()).error_code == 0


# --- the rest of the protocol ------------------------------------------------------------------------------------


async def test_retry_by_us() -> None:
    async with our_endpoint(server_tls(), QuicConfig(retry=RetryPolicy.ALWAYS)) as endpoint, their_client() as client:
        await serve_one_exchange(endpoint, client, b"hello")


async def test_retry_by_them() -> None:
    async with their_server(echo, retry=True) as (_, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        assert await exchange(connection, b"hello") == b"hello"


async def test_version_2_from_the_start() -> None:
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    async with (
        their_server(echo, supported_versions=versions) as (_, address),
        our_endpoint(config=QuicConfig(versions=(VERSION_2,))) as endpoint,
    ):
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        assert await exchange(connection, MEGABYTE) == MEGABYTE
    async with (
        our_endpoint(server_tls()) as endpoint,
        their_client(supported_versions=versions, original_version=VERSION_2) as client,
    ):
        await serve_one_exchange(endpoint, client)


async def test_compatible_upgrade_to_version_2() -> None:
    config = QuicConfig(versions=(VERSION_2, VERSION_1))
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    async with (
        our_endpoint(server_tls(), config) as endpoint,
        their_client(supported_versions=versions, original_version=VERSION_1) as client,
    ):
        theirs = await serve_one_exchange(endpoint, client)
        assert theirs.quic._version == VERSION_2


async def test_version_negotiation_by_us() -> None:
    # A version nobody speaks first; our Version Negotiation packet names what we do speak (RFC 9000 §6).
    config = QuicConfig(versions=(VERSION_1,))
    versions = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
    async with (
        our_endpoint(server_tls(), config) as endpoint,
        their_client(supported_versions=versions, original_version=VERSION_2) as client,
    ):
        theirs = await serve_one_exchange(endpoint, client, b"hello")
        assert theirs.quic._version == VERSION_1


async def test_version_negotiation_by_them() -> None:
    versions = [QuicProtocolVersion.VERSION_1]
    async with (
        their_server(echo, supported_versions=versions) as (_, address),
        our_endpoint(config=QuicConfig(versions=(VERSION_2, VERSION_1))) as endpoint,
    ):
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        assert await exchange(connection, b"hello") == b"hello"


async def test_key_updates_from_both_sides() -> None:
    async with their_server(echo) as (peer, address), our_endpoint() as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        theirs = await peer.accepted()
        for turn in range(3):
            assert await exchange(connection, MEGABYTE) == MEGABYTE
            if turn % 2:
                theirs.quic.request_key_update()
            else:
                connection.update_keys()
        assert await exchange(connection, MEGABYTE) == MEGABYTE
        assert connection.stats.key_updates >= 2


async def test_datagrams() -> None:
    config = QuicConfig(max_datagram_frame_size=1200)
    async with their_server(max_datagram_frame_size=1200) as (peer, address), our_endpoint(config=config) as endpoint:
        connection = await endpoint.connect(address, tls=client_tls(), server_name="example.test")
        theirs = await peer.accepted()
        assert connection.max_datagram_size >= 1000
        assert connection.send_datagram(b"there")
        await theirs.until(lambda: theirs.datagrams == [b"there"])
        theirs.quic.send_datagram_frame(b"and back")
        peer.flush()
        assert await connection.receive_datagram() == b"and back"


async def test_we_resume_a_session() -> None:
    async with their_server(echo) as (peer, address), our_endpoint() as endpoint:
        tls = client_tls(tickets=True)
        first = await endpoint.connect(address, tls=tls, server_name="example.test")
        await exchange(first, b"hello")
        assert first.session_ticket is not None
        second = await endpoint.connect(address, tls=tls, server_name="example.test", ticket=first.session_ticket)
        assert await exchange(second, b"again") == b"again"
        assert peer.connections[1].quic.tls.session_resumed


async def test_they_resume_a_session() -> None:
    tls = server_tls(tickets=TicketKeys(drbg("tickets")))
    async with our_endpoint(tls) as endpoint:
        async with their_client() as client:
            theirs = await serve_one_exchange(endpoint, client, b"hello")
            await theirs.until(lambda: bool(theirs.tickets))
        async with their_client(session_ticket=theirs.tickets[0]) as client:
            second = await serve_one_exchange(endpoint, client, b"again")
            assert second.quic.tls.session_resumed


async def test_we_send_early_data() -> None:
    async with their_server(echo) as (peer, address), our_endpoint() as endpoint:
        tls = client_tls(tickets=True, early_data=True)
        first = await endpoint.connect(address, tls=tls, server_name="example.test")
        ticket = await first.wait_session_ticket()
        second = await endpoint.connect(address, tls=tls, server_name="example.test", ticket=ticket, early=True)
        assert second.is_early
        assert await exchange(second, b"early") == b"early"
        await second.wait_ready()
        assert second.early_data_accepted
        assert peer.connections[1].quic.tls.early_data_accepted


async def test_they_send_early_data() -> None:
    tls = server_tls(tickets=TicketKeys(drbg("tickets")), early_data=True)
    async with our_endpoint(tls) as endpoint, trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.serve, echo_streams)
        async with their_client() as client:
            theirs = await client.connected(endpoint.local_address)
            await theirs.until(lambda: bool(theirs.tickets))
        async with their_client(session_ticket=theirs.tickets[0]) as client:
            early = client.connect(endpoint.local_address)
            early.send(0, b"early", end=True)
            await early.until(lambda: 0 in early.finished)
            assert early.received[0] == b"early"
            assert early.quic.tls.early_data_accepted
        nursery.cancel_scope.cancel()


async def test_a_client_behind_a_rebinding_nat_is_followed() -> None:
    async with (
        our_endpoint(server_tls()) as endpoint,
        their_client() as client,
        open_udp(LOOPBACK) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(endpoint.serve, echo_streams)
        theirs = await client.connected(endpoint.local_address)
        theirs.send(0, b"before", end=True)
        await theirs.until(lambda: 0 in theirs.finished)
        client.socket = other  # what is sent from here on comes from another port
        nursery.start_soon(client.run_on, other)
        theirs.send(4, MEGABYTE, end=True)
        await theirs.until(lambda: 4 in theirs.finished)
        assert theirs.received[4] == MEGABYTE
        nursery.cancel_scope.cancel()


async def test_they_follow_us_when_our_nat_forgets(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet(seed=2) as net:
        home = net.nat("home", Nat.port_restricted())
        near, far = net.host("near", behind=home).bind(), net.host("far").bind()
        neighbour = net.host("neighbour", behind=home).bind()
        config = configuration(is_client=False, credentials=credentials())
        async with open_aioquic(far, config, handler=echo), open_quic(near) as endpoint:
            connection = await endpoint.connect(far.address, tls=client_tls(), server_name="example.test")
            assert await exchange(connection, b"before") == b"before"
            await trio.sleep(1)  # nothing is under way that would have its old port again
            home.forget_mappings()
            neighbour.send_nowait(Transmit(b"takes our port", 14, far.address))
            assert await exchange(connection, bytes(100_000)) == bytes(100_000)


@pytest.mark.timeout(300)  # most of it is aioquic's time
async def test_ten_megabytes_each_way_at_once_over_a_bad_link(autojump_clock: trio.testing.MockClock) -> None:
    data = hashlib.shake_256(b"bad link").digest(10_000_000)
    link = Link(latency=0.01, loss=0.05)
    async with open_simnet(seed=5) as net:
        near, far = net.socket_pair(link)
        config = configuration(is_client=False, credentials=credentials())
        async with open_aioquic(far, config) as peer, open_quic(near) as endpoint, trio.open_nursery() as nursery:
            connection = await endpoint.connect(far.address, tls=client_tls(), server_name="example.test")
            theirs = await peer.accepted()
            stream = await connection.open_stream()

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            await theirs.until(lambda: 0 in theirs.received)
            theirs.send(0, data, end=True)
            received = await stream.receive_all(limit=len(data))
            await theirs.until(lambda: 0 in theirs.finished)
        assert received == data
        assert theirs.received[0] == data
        assert connection.stats.packets_lost > 100
