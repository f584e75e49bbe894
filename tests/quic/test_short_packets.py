"""Short header packets of every make, one in a datagram: the usual ones are opened in place, the others aside."""

from __future__ import annotations

import pytest

from a2al_trio.errors import CloseCause
from a2al_trio.net.datagram import Received
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.errors import TransportErrorCode

from .pair import CLIENT, SERVER, Pair

SPIN, RESERVED = 0x20, (0x08, 0x10, 0x18)
SIZES = (1, 2, 3, 4)


def seal(sender: QuicConnectionCore, payload: bytes, *, size: int = 2, bits: int = 0) -> bytearray:
    """Return the sender's next packet, with a packet number of `size` bytes and `bits` in its first byte."""
    assert sender.one_rtt is not None
    keys, number = sender.one_rtt.send, sender.application.take_number()
    start = bytes((0x40 | bits | sender.one_rtt.phase << 2 | size - 1,)) + sender.paths.current.peer_cid
    header = start + (number & (1 << 8 * size) - 1).to_bytes(size, "big")
    packet = bytearray(header + keys.seal(number, header, payload))
    mask = keys.masks(bytes(packet[len(start) + 4 : len(start) + 20]))
    packet[0] ^= mask[0] & 0x1F
    for index in range(size):
        packet[len(start) + index] ^= mask[1 + index]
    return packet


def ready() -> tuple[Pair, QuicConnectionCore, QuicConnectionCore]:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    return pair, client, server


def hand_over(pair: Pair, packet: bytearray) -> None:
    pair.server.core.receive_datagrams(Received(memoryview(packet), len(packet), CLIENT, 0, SERVER.host), pair.now)


@pytest.mark.parametrize("bits", [0, SPIN])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ahead", [0, 3])
def test_packets_open_whatever_their_header_looks_like(size: int, bits: int, ahead: int) -> None:
    pair, client, server = ready()
    packets = server.intake.packets
    for _ in range(ahead):
        client.application.take_number()
    packet = seal(client, b"\x09\x00hello", size=size, bits=bits)
    again = bytearray(packet)
    hand_over(pair, packet)
    assert server.read(0, 100) == b"hello"
    assert server.intake.packets == packets + 1
    hand_over(pair, again)
    assert server.intake.packets == packets + 1, "it was seen before"
    assert server.intake.undecryptable == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", RESERVED)
def test_reserved_bits_end_the_connection(size: int, bits: int) -> None:
    pair, client, server = ready()
    hand_over(pair, seal(client, b"\x09\x00hello", size=size, bits=bits))
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, TransportErrorCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_tampered_with_is_counted_and_dropped(size: int) -> None:
    pair, client, server = ready()
    packet = seal(client, b"\x09\x00hello", size=size)
    for at in range(1 + len(client.paths.current.peer_cid), len(packet)):
        forged = bytearray(packet)
        forged[at] ^= 0x80
        before = server.intake.undecryptable
        hand_over(pair, forged)
        assert server.intake.undecryptable == before + 1
    hand_over(pair, packet[:25])
    assert 0 not in server.streams.by_id
    hand_over(pair, packet)
    assert server.read(0, 100) == b"hello"


def test_a_packet_without_frames_ends_the_connection() -> None:
    pair, client, server = ready()
    hand_over(pair, seal(client, b"", size=4))
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, TransportErrorCode.PROTOCOL_VIOLATION)


@pytest.mark.parametrize("size", SIZES)
def test_a_key_update_is_followed(size: int) -> None:
    pair, client, server = ready()
    client.ping()
    pair.run(seconds=1)
    assert client.update_keys(pair.now)
    hand_over(pair, seal(client, b"\x09\x00hello", size=size))
    assert server.read(0, 100) == b"hello"
    assert server.key_updates.count == 1
    hand_over(pair, seal(client, b"\x09\x04again", size=size))
    assert server.read(4, 100) == b"again"
    assert server.key_updates.count == 1
