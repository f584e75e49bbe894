"""Peers that break the rules of RFC 9000, and attackers of §21: one clear close, or nothing at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.errors import CloseCause
from a2al_trio.net.datagram import Received
from a2al_trio.quic.app_frames import PacketContent
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.frames import encode_new_connection_id, encode_varints
from a2al_trio.quic.paths import MAX_RESPONSES
from a2al_trio.quic.varint import encode_varint

from .pair import CLIENT, SERVER, Pair

FLOW, LIMIT, STATE, FINAL_SIZE, ENCODING, CID_LIMIT, VIOLATION = 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x0A
CRYPTO_EXCEEDED = 0x0D
INTERNAL = 0x01


def inject(pair: Pair, sender: QuicConnectionCore, payload: bytes) -> None:
    """Let `sender` put any payload into a genuine 1-RTT packet."""
    content = PacketContent(1200)
    content.parts.append(payload)
    transmit = sender.transmitter._single(sender.paths.current, content, pair.now, pad_to=60)
    data = memoryview(bytearray(transmit.data))
    target, source = (pair.server, CLIENT) if sender.is_client else (pair.client, SERVER)
    target.core.receive_datagrams(Received(data, len(data), source), pair.now)
    pair.settle()


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    head = bytes((0x0E | fin,)) + encode_varint(stream_id) + encode_varint(offset)
    return head + encode_varint(len(data)) + data


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (stream_frame(0, 0, b"x" * 600) + stream_frame(0, 600, b"y" * 500), FLOW),
        (stream_frame(0, 1 << 40, b"x"), FLOW),
        (b"".join(stream_frame(4 * number, 900, b"x" * 100) for number in range(4)), FLOW),
        (encode_varints(0x04, 0, 1, 5000), FLOW),
        (stream_frame(400, 0, b"x"), LIMIT),
        (stream_frame(402, 0, b"x"), LIMIT),
        (stream_frame(1, 0, b"x"), STATE),
        (stream_frame(3, 0, b"x"), STATE),
        (encode_varints(0x11, 1, 1000), STATE),
        (encode_varints(0x11, 2, 1000), STATE),
        (encode_varints(0x05, 2, 1), STATE),
        (encode_varints(0x04, 3, 1, 1), STATE),
        (stream_frame(0, 0, b"abc", fin=True) + stream_frame(0, 3, b"d"), FINAL_SIZE),
        (stream_frame(0, 5, b"abc") + stream_frame(0, 0, b"ab", fin=True), FINAL_SIZE),
        (stream_frame(0, 0, b"abc", fin=True) + encode_varints(0x04, 0, 1, 2), FINAL_SIZE),
        (encode_varints(0x04, 0, 1, 10) + encode_varints(0x04, 0, 1, 11), FINAL_SIZE),
        (b"\x1e", VIOLATION),
        (b"\x07\x03abc", VIOLATION),
        (b"\x30abc", VIOLATION),
        (b"\x06" + encode_varint(70_000) + b"\x01x", CRYPTO_EXCEEDED),
        (b"\x06\x00\x01x", VIOLATION),
        (b"\x21", ENCODING),
        (encode_varints(0x19, 9), VIOLATION),
        (encode_varints(0x19, 0), VIOLATION),
        (encode_new_connection_id(0, 0, b"otherone", bytes(16)), VIOLATION),
        (b"".join(encode_new_connection_id(n, 0, b"cid%05d" % n, bytes(16)) for n in range(4, 8)), CID_LIMIT),
        (encode_varints(0x02, 1 << 30, 0, 0, 0), VIOLATION),
    ],
)  # fmt: skip
def test_a_client_that_breaks_a_rule_is_told_which(payload: bytes, code: int) -> None:
    config = QuicConfig(stream_window=1000, connection_window=3000)
    pair = Pair(config=config, client_config=QuicConfig())
    client, server = pair.handshake()
    pair.run(seconds=1)
    inject(pair, client, payload)
    assert server.close_reason is not None
    assert server.close_reason[:2] == (CloseCause.LOCAL_TRANSPORT, code)
    pair.run(lambda: client.closed, seconds=1)
    assert client.close_reason is not None
    assert client.close_reason[:2] == (CloseCause.PEER_TRANSPORT, code)
    pair.run()
    pair.assert_nothing_left()


def test_a_stream_of_holes_ends_the_connection() -> None:
    # RFC 9000 §21.7: one byte in two, so that nothing can be delivered and much must be remembered.
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    for start in range(2, 4_000, 200):
        if not server.closed:
            inject(pair, client, b"".join(stream_frame(0, at, b"x") for at in range(start, start + 200, 2)))
    assert server.close_reason == (CloseCause.LOCAL_TRANSPORT, INTERNAL, "a stream in too many pieces")


def test_repeating_a_first_packet_keeps_no_handshake_alive() -> None:
    # RFC 9000 §21.6 (Slowloris): what was seen before is no sign of life.
    pair = Pair(config=QuicConfig(handshake_timeout=10.0, handshake_idle_timeout=5.0))
    pair.connect()
    first = next(bytes(transmit.data) for transmit in pair.client.core.datagrams_to_send(pair.now))
    core, began = pair.server.core, pair.now
    while True:
        core.receive_datagrams(Received(memoryview(bytearray(first)), len(first), CLIENT), pair.now)
        for _ in core.datagrams_to_send(pair.now):
            pass
        pair.now += 0.1
        core.handle_timeout(pair.now)
        if not core.connections:
            break
        assert pair.now - began < 6
    assert pair.now - began > 4
    assert core.next_event() is None, "nobody ever sees it"


def test_acknowledging_what_was_never_sent_is_found_out() -> None:
    pair = Pair()
    client, server = pair.handshake()
    server.application.skip_number()
    skipped = server.application.next_number - 1
    server.ping()
    pair.run(seconds=1)
    inject(pair, client, encode_varints(0x02, skipped + 1, 0, 0, skipped + 1))
    assert server.close_reason is not None
    assert server.close_reason[1] == VIOLATION


def test_challenges_do_not_pile_up() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    server.paths.current.responses.clear()
    content = b"".join(b"\x1a" + bytes((number,)) * 8 for number in range(100))
    before = pair.server.datagrams
    inject(pair, client, content)
    assert pair.server.datagrams - before <= MAX_RESPONSES + 1
    assert not server.closed


def test_connection_ids_are_not_retired_without_end() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    for number in range(4, 4000):
        frame = encode_new_connection_id(number, number, b"cid%05d" % number, bytes(16))
        content = PacketContent(1200)
        content.parts.append(frame)
        transmit = client.transmitter._single(client.paths.current, content, pair.now, pad_to=60)
        data = memoryview(bytearray(transmit.data))
        pair.server.core.receive_datagrams(Received(data, len(data), CLIENT), pair.now)
        if server.closed:
            break
    assert len(server.peer_cids.retire_pending) <= 20
    assert server.close_reason is not None
    assert server.close_reason[1] == CID_LIMIT


def test_new_addresses_do_not_pile_up() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    sent = 0
    for port in range(2000, 2200):
        content = PacketContent(100)
        content.parts.append(b"\x01")
        transmit = client.transmitter._single(client.paths.current, content, pair.now, pad_to=60)
        data = memoryview(bytearray(transmit.data))
        pair.server.core.receive_datagrams(Received(data, len(data), CLIENT._replace(port=port)), pair.now)
        transmits = pair.server.core.datagrams_to_send(pair.now)
        sent += sum(len(transmit.data) for transmit in transmits if transmit.destination != CLIENT)
    assert len(server.paths.others) <= 3
    assert sent <= 3 * 200 * 60
    assert not server.closed


def test_an_unvalidated_new_address_gets_at_most_three_times_its_bytes() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"x")
    pair.run(seconds=1)
    server.write(stream, bytes(200_000))
    pair.client.address = CLIENT._replace(port=7)
    content = PacketContent(100)
    content.parts.append(b"\x01")
    transmit = client.transmitter._single(client.paths.current, content, pair.now, pad_to=100)
    data = memoryview(bytearray(transmit.data))
    list(pair.server.core.datagrams_to_send(pair.now))
    pair.server.core.receive_datagrams(Received(data, len(data), pair.client.address), pair.now)
    to_new = sum(
        len(transmit.data)
        for transmit in pair.server.core.datagrams_to_send(pair.now)
        if transmit.destination == pair.client.address
    )
    assert to_new <= 300
    assert server.peer_address == pair.client.address


def test_reserved_bits_close_only_after_decryption() -> None:
    pair = Pair()
    client, server = pair.handshake()
    pair.run(seconds=1)
    content = PacketContent(100)
    content.parts.append(b"\x01")
    original = client.transmitter._buffer.write_packet

    def spoil(at: int, keys: object, number: int, header: bytes, payload: bytes) -> int:
        return original(at, keys, number, bytes((header[0] | 0x18,)) + header[1:], payload)  # type: ignore[arg-type]

    client.transmitter._buffer = type("Spoiled", (), {})()
    client.transmitter._buffer.write_packet = spoil  # type: ignore[method-assign]
    client.transmitter._buffer.mask_short_headers = client.buffer.mask_short_headers  # type: ignore[method-assign]
    client.transmitter._buffer.view = client.buffer.view
    transmit = client.transmitter._single(client.paths.current, content, pair.now, pad_to=100)
    data = memoryview(bytearray(transmit.data))
    pair.server.core.receive_datagrams(Received(data, len(data), CLIENT), pair.now)
    assert server.close_reason is not None
    assert server.close_reason[1] == VIOLATION


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6), st.booleans())
def test_any_genuine_payload_leaves_a_working_or_a_closed_connection(payloads: list[bytes], from_client: bool) -> None:
    pair = Pair()
    client, server = pair.handshake()
    for payload in payloads:
        if not (client.closed or server.closed):
            inject(pair, client if from_client else server, payload)
    pair.client.core.close_all(0, "", pair.now)
    pair.server.core.close_all(0, "", pair.now)
    pair.run(seconds=60)
    pair.assert_nothing_left()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0x02, 0x04, 0x05, 0x08, 0x0C, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x14, 0x15, 0x16, 0x18, 0x19]),
            st.lists(st.integers(0, 20), min_size=1, max_size=5),
        ),
        max_size=8,
    )
)
def test_any_sequence_of_frames_leaves_a_working_or_a_closed_connection(frames: list[tuple[int, list[int]]]) -> None:
    pair = Pair()
    pair.server.auto_read = False
    client, server = pair.handshake()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"data")
    pair.run(seconds=0.1)
    for kind, values in frames:
        if not server.closed:
            inject(pair, client, encode_varints(kind, *values))
    if not server.closed:
        server.stop(stream, 1)
        server.reset(stream, 1)
    pair.run(seconds=5)
    pair.client.core.close_all(0, "", pair.now)
    pair.server.core.close_all(0, "", pair.now)
    pair.run(seconds=60)
    pair.assert_nothing_left()
