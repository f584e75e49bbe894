from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.send_buffer import SendBuffer


def test_large_writes_are_kept_and_small_ones_gathered() -> None:
    buffer, large = SendBuffer(), bytes(5000)
    buffer.write(large)
    buffer.write(b"a")
    buffer.write(memoryview(b"bc"))
    assert buffer._blocks[0] is large
    assert len(buffer._blocks) == 2
    assert buffer.peek(4999, 5003) == b"\0abc"


def test_pieces_cross_blocks() -> None:
    data = random.Random(1).randbytes(10_000)
    buffer = SendBuffer()
    for at in range(0, 10_000, 2500):
        buffer.write(data[at : at + 2500])
    assert b"".join(buffer.pieces(7, 900, 11)) == data[7 : 7 + 9900]
    assert [len(piece) for piece in buffer.pieces(0, 3000, 3)] == [3000] * 3


def test_a_message_is_kept_whole_until_a_part_of_it_is_wanted() -> None:
    whole, partly, in_pieces = SendBuffer(), SendBuffer(), SendBuffer()
    for buffer in (whole, partly, in_pieces):
        buffer.write_message(b"message")
        assert (buffer.message, buffer.next_range(), buffer.has_pending) == (b"message", (0, 7), True)
    assert (partly.peek(2, 5), partly.message) == (b"ssa", None)
    assert (in_pieces.pieces(0, 3, 2), in_pieces.message) == ([b"mes", b"sag"], None)
    whole.on_message_sent()
    assert (whole.message, whole.has_pending) == (None, False)
    whole.on_lost(0, 7, fin=True)
    assert (whole.next_range(), whole.peek(0, 7), whole.fin_pending) == ((0, 7), b"message", True)


def test_a_fin_alone_is_sent_and_resent() -> None:
    buffer = SendBuffer()
    buffer.finish()
    assert buffer.has_pending
    assert buffer.next_range() == (0, 0)
    buffer.on_sent(0, 0, fin=True)
    assert not buffer.has_pending
    buffer.on_lost(0, 0, fin=True)
    assert buffer.has_pending
    buffer.on_sent(0, 0, fin=True)
    buffer.on_acked(0, 0, fin=True)
    assert buffer.is_finished


@given(st.integers(0, 1 << 30))
def test_every_byte_arrives_once_acknowledged_whatever_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    data = draw.randbytes(draw.randrange(1, 30_000))
    buffer, arrived, flying = SendBuffer(), bytearray(len(data)), list[tuple[int, int, bool]]()
    written, fin_arrived = 0, False
    while not buffer.is_finished:
        if written < len(data) and draw.random() < 0.5:
            size = draw.choice((1, 100, 3000, 9000))
            buffer.write(data[written : written + size])
            written = min(written + size, len(data))
            if written == len(data):
                buffer.finish()
        elif buffer.has_pending and draw.random() < 0.6:
            start, stop = buffer.next_range()
            stop = min(stop, start + draw.randrange(1, 2000))
            fin = buffer.final and stop == buffer.end
            arrived[start:stop] = buffer.peek(start, stop)
            buffer.on_sent(start, stop, fin=fin)
            flying.append((start, stop, fin))
        elif flying:
            start, stop, fin = flying.pop(draw.randrange(len(flying)))
            if draw.random() < 0.4:
                buffer.on_lost(start, stop, fin=fin)
            else:
                buffer.on_acked(start, stop, fin=fin)
                fin_arrived |= fin
    assert fin_arrived
    assert arrived == data
    assert not buffer._blocks
