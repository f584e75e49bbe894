"""A lone message goes straight to the socket; whatever else there is to say, it still arrives, once and whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.qlog import QlogWriter
from a2al_trio.quic.small_packet import MOST_UNACKED
from a2al_trio.quic.tls import Level

from .pair import SERVER, Pair
from .test_connection import finish

MESSAGE = b"what a request may say"


def quiet_pair(**settings: object) -> tuple[Pair, QuicConnectionCore, QuicConnectionCore]:
    """Two ends that have nothing to say for the moment."""
    pair = Pair(config=QuicConfig(path_mtu_discovery=False, **settings))  # type: ignore[arg-type]
    client, server = pair.handshake()
    pair.run(seconds=1)
    return pair, client, server


class Payloads(QlogWriter):
    """Keeps what 1-RTT packets carried, by their numbers."""

    def __init__(self, cid: bytes, is_client: bool, peer: SocketAddress) -> None:
        super().__init__(len, cid, is_client, peer)
        self.of: dict[int, bytes] = {}

    def packet_sent(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        if level == Level.ONE_RTT:
            assert number not in self.of
            self.of[number] = bytes(payload)


def write(client: QuicConnectionCore, message: bytes = MESSAGE) -> int:
    stream = client.open_stream()
    assert stream is not None
    assert client.write(stream, message, True) == len(message)
    return stream


def send_lone(pair: Pair, client: QuicConnectionCore) -> list[Transmit]:
    """What goes straight to the socket."""
    taken: list[Transmit] = []

    def send(transmit: Transmit) -> int:
        taken.append(transmit)
        pair._send(pair.client, pair.server, [bytes(transmit.data)], transmit.segment_size, 0, SERVER)
        return len(transmit.data)

    result = client.transmitter.small.send_lone(send, pair.now)
    assert result == ((taken[0], len(taken[0].data)) if taken else None)
    return taken


def assert_arrives(pair: Pair, server: QuicConnectionCore, *streams: int, message: bytes = MESSAGE) -> None:
    pair.run(lambda: len(pair.server.finished) >= len(streams), seconds=10)
    for stream in streams:
        assert pair.server.received[server, stream] == message
    finish(pair)


def test_a_lone_message_fills_one_packet_and_leaves_nothing_to_say() -> None:
    pair, client, server = quiet_pair(observe=Payloads)
    stream, before = write(client), client.bytes_sent
    number, credit = client.application.next_number, client.flow.send_credit
    taken = pair.client.core.send_small(lambda transmit: len(transmit.data), pair.now)
    assert taken is not None
    size = taken[1]
    assert not pair.client.core.transmit_due
    assert list(pair.client.core.datagrams_to_send(pair.now)) == []
    assert isinstance(client.observer, Payloads)
    # STREAM with FIN, without offset and length; before it there may be an ACK.
    assert client.observer.of[number].endswith(b"\x09" + bytes((stream,)) + MESSAGE)
    assert client.flow.send_credit == credit - len(MESSAGE)
    assert client.bytes_sent - before == size
    [run] = client.application.sent
    assert (run.first, run.size, client.paths.current.in_flight) == (number, size, size)
    # It gets lost, and is sent again.
    assert_arrives(pair, server, stream)


@pytest.mark.parametrize("size", [1, 2, 1023, 1024])
def test_the_smallest_datagram_holds_any_message_and_an_ack(size: int) -> None:
    pair, client, server = quiet_pair(initial_udp_payload_size=1200, connection_id_length=20, observe=Payloads)
    back = server.open_stream()
    assert back is not None
    server.write(back, b"something to acknowledge", True)
    pair.flush(pair.server)
    pair.now += 0.010
    pair.client.core.receive_datagrams(pair.queue.pop()[3], pair.now)
    number, message = client.application.next_number, bytes(size)
    stream = write(client, message)
    [transmit] = send_lone(pair, client)
    assert len(transmit.data) <= 1200
    assert isinstance(client.observer, Payloads)
    assert client.observer.of[number][0] in (0x02, 0x03)
    assert client.observer.of[number].endswith(b"\x09" + bytes((stream,)) + message)
    assert_arrives(pair, server, stream, message=message)


def test_an_ack_of_many_ranges_is_cut_to_what_room_the_message_leaves() -> None:
    pair, client, _ = quiet_pair(initial_udp_payload_size=1200, connection_id_length=20)
    for number in range(1000, 1400, 2):
        client.application.acks.on_received(number, number, eliciting=1, ecn=0, now=pair.now)
    write(client, bytes(1024))
    [transmit] = send_lone(pair, client)
    assert 1150 < len(transmit.data) <= 1200


def other_stream(pair: Pair, client: QuicConnectionCore) -> None:
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"unfinished")


def fill_window(pair: Pair, client: QuicConnectionCore) -> None:
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, bytes(100_000))
    pair.flush(pair.client)
    assert client.paths.current.in_flight > client.paths.current.mtu.size


def lack_credit(pair: Pair, client: QuicConnectionCore) -> None:
    client.flow.send_limit = client.flow.sent + len(MESSAGE) - 1


def set_skip(pair: Pair, client: QuicConnectionCore) -> None:
    client.application.skip_at = client.application.next_number


def leave_unacked(pair: Pair, client: QuicConnectionCore) -> None:
    client.application.next_number = client.application.largest_acked + MOST_UNACKED


def empty_bucket(pair: Pair, client: QuicConnectionCore) -> None:
    pacer = client.paths.current.pacer
    pacer.budget(pair.now, 1e6)
    pacer.tokens = 100.0


def owe_probe(pair: Pair, client: QuicConnectionCore) -> None:
    client.application.probes = 1


def ask_for_limit(pair: Pair, client: QuicConnectionCore) -> None:
    client.flow.update_pending = True


@pytest.mark.parametrize(
    "prepare",
    [
        lambda pair, client: client.ping(),
        lambda pair, client: client.paths.current.start_challenge(client.entropy),
        lambda pair, client: client.paths.current.on_challenge(bytes(8)),
        other_stream,
        fill_window,
        set_skip,
        leave_unacked,
        empty_bucket,
        owe_probe,
        ask_for_limit,
    ],
)
def test_whatever_else_there_is_takes_the_long_way(prepare: Callable[[Pair, QuicConnectionCore], object]) -> None:
    pair, client, server = quiet_pair()
    prepare(pair, client)
    stream = write(client)
    assert send_lone(pair, client) == []
    assert_arrives(pair, server, stream)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.streams.control.update({0: client.streams.by_id[0]}),
        lambda client: client.streams.counts.limits_pending.add(0),
        lambda client: client.streams.counts.blocked_pending.add(1),
        lambda client: client.local_cids.pending.append(1),
        lambda client: client.peer_cids.retire_pending.append(0),
        lambda client: client.datagrams.send(b"unreliable"),
        lambda client: client.tokens_pending.append(b"token"),
        lambda client: setattr(client.flow, "update_pending", True),
        lambda client: setattr(client.flow, "blocked_pending", True),
        lambda client: setattr(client, "ping_pending", True),
        lambda client: setattr(client, "handshake_done_pending", True),
        lambda client: setattr(client.ack_frequency, "pending", True),
        lambda client: client.application.crypto.send.write(b"a ticket"),
    ],
)
def test_every_control_frame_counts(ask: Callable[[QuicConnectionCore], object]) -> None:
    pair, client, _ = quiet_pair()
    write(client)
    assert not client.transmitter.frames.has_control
    ask(client)
    assert client.transmitter.frames.has_control
    assert send_lone(pair, client) == []


def test_without_credit_a_lone_message_waits() -> None:
    pair, client, _ = quiet_pair()
    write(client)
    lack_credit(pair, client)
    assert send_lone(pair, client) == []
    pair.flush(pair.client)
    assert client.flow.send_credit == 0
    finish(pair)


def test_a_stream_with_less_credit_gets_a_part() -> None:
    pair, client, server = quiet_pair(stream_window=len(MESSAGE) - 1)
    stream = write(client)
    assert send_lone(pair, client) == []
    assert_arrives(pair, server, stream)


def test_a_closed_connection_has_no_messages() -> None:
    pair, client, _ = quiet_pair()
    write(client)
    client.close(0, "", pair.now)
    assert send_lone(pair, client) == []
    finish(pair)


def test_new_keys_and_new_connection_ids_show_in_the_header() -> None:
    pair, client, server = quiet_pair()
    for round_ in range(3):
        assert send_lone(pair, client) == []
        stream = write(client)
        assert len(send_lone(pair, client)) == 1
        pair.run(lambda stream=stream: (server, stream) in pair.server.finished, seconds=1)  # type: ignore[misc]
        pair.run(seconds=2)
        if round_ == 1:
            fresh = client.peer_cids.take_unused()
            assert fresh is not None
            client.paths.current.peer_cid_sequence, client.paths.current.peer_cid = fresh
        else:
            assert client.update_keys(pair.now)
    assert server.key_updates.count == 1
    assert len(pair.server.finished) == 3
    finish(pair)


def test_a_full_socket_keeps_the_message_for_later() -> None:
    pair, client, server = quiet_pair()
    stream = write(client)
    kept = pair.client.core.send_small(lambda _: 0, pair.now)
    assert kept is not None
    assert kept[1] == 0
    pair._send(pair.client, pair.server, [bytes(kept[0].data)], kept[0].segment_size, kept[0].ecn, SERVER)
    pair.run(seconds=0.05)
    assert (server, stream) in pair.server.finished
    assert client.recovery.lost_packets == 0
    finish(pair)


def test_a_socket_that_fails_costs_a_number_but_no_message() -> None:
    pair, client, server = quiet_pair()
    stream, number = write(client), client.application.next_number

    def fail(transmit: Transmit) -> int:
        raise trio.ClosedResourceError

    with pytest.raises(trio.ClosedResourceError):
        pair.client.core.send_small(fail, pair.now)
    assert client.application.next_number == number + 1
    assert client.paths.current.in_flight == 0
    assert pair.client.core.transmit_due
    assert_arrives(pair, server, stream)
