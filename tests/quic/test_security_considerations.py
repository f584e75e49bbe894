"""RFC 9000 §21 and RFC 9001 §9, what test_attacks.py and test_features.py leave open: request forgery, packets that
must be dropped unseen, Retry used twice, old reset tokens, and work out of proportion."""

from __future__ import annotations

import time

import pytest

from a2al_trio.errors import CloseCause
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.quic.app_frames import PacketContent
from a2al_trio.quic.config import QuicConfig, RetryPolicy
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.frames import encode_varints
from a2al_trio.quic.migration import is_credible_move
from a2al_trio.quic.packet import encode_retry, encode_version_negotiation

from .pair import CLIENT, SERVER, Pair, Side
from .test_attacks import inject, stream_frame
from .test_features import exchange


def packet_of(pair: Pair, sender: QuicConnectionCore, payload: bytes, *, pad_to: int = 60) -> bytearray:
    """A genuine 1-RTT packet with any payload, not delivered."""
    content = PacketContent(1200)
    content.parts.append(payload)
    return bytearray(sender.transmitter._single(sender.paths.current, content, pair.now, pad_to=pad_to).data)


def deliver(pair: Pair, side: Side, data: bytes | bytearray, source: SocketAddress) -> None:
    side.core.receive_datagrams(Received(memoryview(bytearray(data)), len(data), source), pair.now)


# Request forgery (RFC 9000 §21.5)


@pytest.mark.parametrize(
    ("before", "after", "credible"),
    [
        ("192.0.2.1:1", "192.0.2.1:2", True),
        ("192.0.2.1:1", "10.0.0.1:1", True),  # an interface of the same network may come up
        ("127.0.0.1:1", "127.0.0.2:1", True),
        ("[::1]:1", "127.0.0.1:1", True),
        ("192.0.2.1:1", "127.0.0.1:1", False),
        ("[2001:db8::1]:1", "[::1]:1", False),
        ("192.0.2.1:1", "0.0.0.0:1", False),
        ("192.0.2.1:1", "224.0.0.1:1", False),
        ("192.0.2.1:1", "192.0.2.1:0", False),
        ("[fe80::1%eth0]:1", "[fe80::2%eth0]:1", True),
    ],
)
def test_where_a_peer_may_say_it_is(before: str, after: str, credible: bool) -> None:
    assert is_credible_move(SocketAddress.parse(before), SocketAddress.parse(after)) is credible


def test_a_server_cannot_send_its_clients_to_their_own_machine() -> None:
    local = SocketAddress("127.0.0.1", 53)
    pair = Pair(config=QuicConfig(preferred_addresses=(local,)), client_config=QuicConfig())
    client, _ = pair.handshake()
    destinations = set()
    for _ in range(100):
        destinations |= {transmit.destination for transmit in pair.client.core.datagrams_to_send(pair.now)}
        pair.run(seconds=0.1)
    assert client.peer_address == SERVER
    assert client.paths.find(local) is None
    assert local not in destinations


def test_a_client_cannot_send_a_server_to_its_own_machine() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    local = SocketAddress("127.0.0.1", 53)
    deliver(pair, pair.server, packet_of(pair, client, b"\x01"), local)
    assert all(transmit.destination != local for transmit in pair.server.core.datagrams_to_send(pair.now))
    assert server.peer_address == CLIENT
    exchange(pair, client)


# What must be dropped unseen


@pytest.mark.parametrize(("size", "heard"), [(1199, 0), (1200, 1)])
def test_a_server_drops_initial_packets_in_small_datagrams(size: int, heard: int) -> None:
    # RFC 9000 §14.1: also those of a connection it knows.
    pair = Pair()
    client = pair.connect()
    pair.flush(pair.client)
    datagram, content = bytearray(), PacketContent(1200)
    content.add(b"\x01")
    client.transmitter._seal_long(datagram, client.spaces[0], content, pair.now, pad_to=size)
    assert len(datagram) == size
    pair.run(lambda: bool(pair.server.core.connections), seconds=0.01)
    (server,) = pair.server.core.connections
    before = server.intake.packets
    deliver(pair, pair.server, datagram, CLIENT)
    assert server.intake.packets - before == heard


def test_a_short_header_without_the_fixed_bit_is_dropped() -> None:
    # RFC 9000 §17.3.1
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    header = bytes((0x03,)) + client.paths.current.peer_cid + client.application.take_number().to_bytes(4, "big")
    keys, number = client.one_rtt.send, client.application.next_number - 1  # type: ignore[union-attr]
    sealed = keys.seal(number, header, b"\x01" + bytes(40))
    mask = keys.masks(sealed[:16])
    first, truncated = header[0] ^ mask[0] & 0x1F, int.from_bytes(header[-4:], "big") ^ int.from_bytes(mask[1:5], "big")
    packet = bytes((first,)) + header[1:-4] + truncated.to_bytes(4, "big") + sealed
    before = server.intake.packets
    deliver(pair, pair.server, packet, CLIENT)
    assert server.intake.packets == before


def test_a_second_retry_is_ignored_and_so_is_one_after_the_server_spoke() -> None:
    pair = Pair(config=QuicConfig(retry=RetryPolicy.ALWAYS), client_config=QuicConfig())
    client = pair.connect()
    original = client.handshake.original_cid
    pair.run(lambda: client.handshake.retry_cid is not None, seconds=1)
    first = client.handshake.retry_cid

    def another() -> bytes:
        return bytes(
            encode_retry(
                client.version, client.source_cid, b"attacker", original_destination_cid=original, token=b"token"
            )
        )

    deliver(pair, pair.client, another(), SERVER)
    assert client.handshake.retry_cid == first
    pair.run(lambda: client.handshake_confirmed, seconds=5)
    deliver(pair, pair.client, another(), SERVER)
    assert client.handshake.retry_cid == first
    exchange(pair, client)


def test_version_negotiation_after_the_server_spoke_is_ignored() -> None:
    pair = Pair()
    client, _ = pair.handshake()
    packet = encode_version_negotiation(client.source_cid, client.handshake.original_cid, (0x0A0A0A0A,), 0)
    deliver(pair, pair.client, packet, SERVER)
    assert not client.closed
    exchange(pair, client)


def test_reset_tokens_of_retired_ids_end_nothing() -> None:
    # RFC 9000 §10.3.1: tokens count as long as their connection IDs are in use.
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    old = next(iter(client.peer_cids.reset_tokens()))
    assert client.migrate()
    pair.run(seconds=1)
    assert old not in client.peer_cids.reset_tokens()
    deliver(pair, pair.client, b"\x41" + bytes(30) + old, SERVER)
    assert not client.closed
    exchange(pair, client)
    deliver(pair, pair.client, b"\x41" + bytes(30) + next(iter(client.peer_cids.reset_tokens())), SERVER)
    assert client.close_reason is not None
    assert client.close_reason[0] is CloseCause.RESET
    assert not server.closed


# Work out of proportion (RFC 9000 §21.9)


def seconds_for(pair: Pair, client: QuicConnectionCore, payload: bytes, times: int) -> float:
    begin = time.thread_time()
    for _ in range(times):
        inject(pair, client, payload)
    return time.thread_time() - begin


def test_no_packet_costs_much_more_than_its_size() -> None:
    """Packets full of the smallest frames of each kind, against packets full of data."""
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    stream = client.open_stream()
    assert stream is not None
    kinds = {
        "ping": b"\x01" * 1100,
        "padding": b"\x01" + bytes(1100),
        "max data": encode_varints(0x10, 1) * 360,
        "max stream data": encode_varints(0x11, 0, 1) * 300,
        "max streams": encode_varints(0x12, 1) * 360,
        "blocked": encode_varints(0x14, 1) * 360,
        "empty stream": stream_frame(0, 0, b"") * 250,
        "stop sending": encode_varints(0x05, 0, 0) * 300,
        "challenge": (b"\x1a" + bytes(8)) * 120,
        "streams blocked": encode_varints(0x17, 1) * 360,
    }
    inject(pair, client, stream_frame(0, 0, b"x"))
    for name, payload in kinds.items():
        assert seconds_for(pair, client, payload, 5) < 0.1, name
        assert not server.closed, (name, server.close_reason)


def test_keys_are_not_updated_again_and_again() -> None:
    # RFC 9001 §6.2: who has heard nothing of us since the last update cannot have confirmed it.
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    assert client.one_rtt is not None
    for round_ in range(3):
        client.one_rtt.update(client.application.next_number)
        deliver(pair, pair.server, packet_of(pair, client, b"\x01"), CLIENT)
        assert server.closed == (round_ > 0)
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, 0x0E)
    assert server.stats.key_updates == 1
