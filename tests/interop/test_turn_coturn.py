"""Our TURN client, and ICE over its relays, against coturn."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from a2al_trio.ice import (
    HmacCredentials,
    IceConfig,
    RelayFailed,
    RelaySocket,
    StaticCredentials,
    SystemNetwork,
    TurnServer,
    open_ice_session,
    open_relay,
)
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.net.socket import open_udp
from tests.ice.world import MemoryRoom, receive, send
from tests.interop.coturn import BINARY, PASSWORD, SECRET, USER, Coturn, open_coturn

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(BINARY is None, reason="coturn is not installed (turnserver)"),
]
STATIC = StaticCredentials(USER, PASSWORD)


def network(server: Coturn) -> SystemNetwork:
    return SystemNetwork(
        only_hosts=("127.0.0.1",), ipv6=False, tls=ssl.create_default_context(cafile=server.certificate)
    )


async def exchange(relay: RelaySocket, rounds: int = 10, size: int = 1200) -> None:
    """A peer and the relay send to each other, first by indications, then over a channel."""
    async with open_udp(SocketAddress(relay.local_address.host, 0)) as peer:
        payload = bytes(size)
        for number in range(rounds):
            out = number.to_bytes(2, "big") + payload
            assert relay.send_nowait(Transmit(out, len(out), peer.local_address)) == len(out)
            (got,) = await peer.receive()
            assert bytes(got.data) == out
            assert got.source == relay.local_address
            peer.send_nowait(Transmit(out[::-1], len(out), relay.local_address))
            (back,) = await relay.receive()
            assert bytes(back.data) == out[::-1]
            assert back.source == peer.local_address


@pytest.mark.parametrize(("transport", "scheme"), [("udp", "turn"), ("tcp", "turn"), ("tcp", "turns")])
async def test_a_relay_carries_datagrams(transport: str, scheme: str, tmp_path: Path, no_leaks: None) -> None:
    with trio.fail_after(30):
        async with open_coturn(tmp_path) as server:
            turn = TurnServer(server.url(transport, scheme), STATIC)
            async with open_relay(turn, network=network(server)) as relay:
                assert relay.local_address.host == "127.0.0.1"
                await exchange(relay)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relay_of_ipv6_addresses(transport: str, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_coturn(tmp_path, "--listening-ip", "::1", "--relay-ip", "::1") as server:
            url = f"turn:[::1]:{server.port}?transport={transport}"
            turn = TurnServer(url, STATIC)
            async with open_relay(turn, network=SystemNetwork(), ipv6=True) as relay:
                assert relay.local_address.host == "::1"
                await exchange(relay)


async def test_a_run_of_datagrams_is_cut_into_datagrams(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with (
            open_coturn(tmp_path) as server,
            open_relay(TurnServer(server.url("tcp"), STATIC), network=network(server)) as relay,
            open_udp(SocketAddress("127.0.0.1", 0)) as peer,
        ):
            await exchange(relay, 1)
            data = b"a" * 1000 + b"b" * 1000 + b"c" * 10
            assert relay.send_nowait(Transmit(data, 1000, peer.local_address)) == len(data)
            found: list[bytes] = []
            while len(found) < 3:
                for received in await peer.receive():
                    found.extend(bytes(datagram) for datagram in received.datagrams())
            assert sorted(len(datagram) for datagram in found) == [10, 1000, 1000]


async def test_credentials_made_from_a_shared_secret(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_coturn(tmp_path, hmac=True) as server:
            turn = TurnServer(server.url(), HmacCredentials("alice", SECRET))
            async with open_relay(turn, network=network(server)) as relay:
                await exchange(relay, 2)


async def test_a_wrong_password_is_named_as_such(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_coturn(tmp_path) as server:
            with pytest.raises(RelayFailed, match=r"401.*check the user name and password"):
                async with open_relay(
                    TurnServer(server.url(), StaticCredentials(USER, "wrong")), network=network(server)
                ):
                    pass


async def test_a_stale_nonce_is_renewed(tmp_path: Path) -> None:
    with trio.fail_after(40):
        async with (
            open_coturn(tmp_path, "--stale-nonce=1") as server,
            open_relay(TurnServer(server.url(), STATIC), network=network(server)) as relay,
        ):
            await trio.sleep(2.1)  # the nonce has gone stale before permissions and channels are asked for
            await exchange(relay)


async def test_an_unreachable_server_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with trio.fail_after(20):
        with pytest.raises(RelayFailed, match="cannot be reached"):
            async with open_relay(TurnServer("turn:127.0.0.1:9?transport=tcp", STATIC)):
                pass


async def test_a_server_that_goes_away_is_reported(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[tuple[Coturn, trio.CancelScope]]) -> None:
                with trio.CancelScope() as scope:
                    async with open_coturn(tmp_path) as server:
                        task_status.started((server, scope))
                        await trio.sleep_forever()

            server, scope = await nursery.start(serve)
            async with open_relay(TurnServer(server.url("tcp"), STATIC), network=network(server)) as relay:
                scope.cancel()
                assert server.url("tcp") in await relay.wait_lost()


async def test_ice_finds_its_address_and_its_relays(tmp_path: Path, no_leaks: None) -> None:
    with trio.fail_after(30):
        async with open_coturn(tmp_path) as server, trio.open_nursery() as nursery:
            to_one, from_other = trio.open_memory_channel(100)
            to_other, from_one = trio.open_memory_channel(100)
            rooms = (
                MemoryRoom(nursery, to_other, from_other, 0.0),
                MemoryRoom(nursery, to_one, from_one, 0.0),
            )
            config = IceConfig(
                stun_servers=(f"stun:127.0.0.1:{server.port}",),
                turn_servers=(TurnServer(server.url("tcp"), STATIC), TurnServer(server.url("udp"), STATIC)),
                relay_only=True,
            )
            async with (
                open_ice_session(controlling=True, config=config, network=network(server)) as caller,
                open_ice_session(controlling=False, config=config, network=network(server)) as callee,
            ):
                await rooms[0].send_credentials(*caller.credentials)
                await rooms[1].send_credentials(*callee.credentials)
                async with trio.open_nursery() as meeting:
                    meeting.start_soon(caller.connect, rooms[0])
                    meeting.start_soon(callee.connect, rooms[1])
                assert caller.path.relayed
                assert callee.path.relayed
                await send(caller.path, b"over two relays")
                assert await receive(callee.path) == b"over two relays"
            nursery.cancel_scope.cancel()
