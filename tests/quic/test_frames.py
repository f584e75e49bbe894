from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic import ack_frame
from a2al_trio.quic.ack_frame import AckFrame, encode_ack
from a2al_trio.quic.errors import FrameDecodeError, TransportErrorCode
from a2al_trio.quic.frames import (
    ConnectionCloseFrame,
    CryptoFrame,
    DatagramFrame,
    FrameContext,
    MaxStreamsFrame,
    NewConnectionIdFrame,
    PaddingFrame,
    PathChallengeFrame,
    PingFrame,
    ResetStreamFrame,
    StreamFrame,
    decode_frames,
    encode_connection_close,
    encode_new_connection_id,
    encode_varints,
)
from a2al_trio.quic.ranges import RangeSet


@given(st.binary(max_size=200), st.sampled_from([FrameContext.ONE_RTT, FrameContext.INITIAL, FrameContext.ZERO_RTT]))
def test_any_bytes_decode_or_raise_the_one_error(data: bytes, allowed: frozenset[int]) -> None:
    with contextlib.suppress(FrameDecodeError):
        list(decode_frames(data, allowed))


@given(st.sampled_from(range(0x32)), st.binary(max_size=60))
def test_any_frame_body_decodes_or_raises_the_one_error(kind: int, body: bytes) -> None:
    try:
        frames = list(decode_frames(bytes((kind,)) + body))
    except FrameDecodeError:
        return
    for frame in frames:
        if isinstance(frame, AckFrame):
            assert all(0 <= start < stop for start, stop in frame.ranges)
            assert all(a[1] < b[0] for a, b in zip(frame.ranges, frame.ranges[1:], strict=False))


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 30)), min_size=1, max_size=80),
    st.integers(0, 1 << 20),
    st.none() | st.tuples(*[st.integers(0, 1 << 40)] * 3),
    st.integers(60, 600),
)
def test_acks_round_trip_and_keep_the_newest_ranges(
    pieces: list[tuple[int, int]], delay: int, counts: tuple[int, int, int] | None, room: int
) -> None:
    received = RangeSet()
    for start, size in pieces:
        received.add(start, start + size)
    encoded = encode_ack(received, delay, ecn_counts=counts, room=room)
    assert len(encoded) <= room
    (frame,) = decode_frames(encoded)
    assert isinstance(frame, AckFrame)
    assert list(frame.ranges) == list(received)[-len(frame.ranges) :]
    assert (frame.delay, frame.ecn_counts) == (delay, counts)


@given(
    st.sampled_from((0x02, 0x03)),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from((1, 2, 4, 8))), min_size=4, max_size=8),
    st.integers(0, 24),
)
def test_acks_laid_out_as_ours_read_as_all_others_do(
    frame_type: int, values: list[tuple[int, int]], count: int
) -> None:
    values[2] = (0, 1)  # one range
    if count % 2:
        values[:] = [(value, size) for (value, _), size in zip(values, (4, 2, 1, 4, 4, 1, 4, 4), strict=False)]
    row = bytearray()
    for value, size in values:
        bits = {1: 0, 2: 1, 4: 2, 8: 3}[size]
        row += (value % (1 << 8 * size - 2) | bits << 8 * size - 2).to_bytes(size, "big")
    data = bytes(row)
    quick = ack_frame._usual_ack(data, 0, frame_type)
    if quick is not None:
        assert quick == ack_frame._any_ack(data, 0, frame_type)


def test_plain_frames() -> None:
    payload = b"".join((
        bytes(5), b"\x01", encode_varints(0x04, 8, 300, 70_000), encode_varints(0x13, 1 << 60),
        b"\x06\x40\x64\x03abc", b"\x1a12345678", encode_new_connection_id(3, 1, b"cidcid", bytes(16)),
        b"\x31\x02hi", b"\x0f\x04\x44\x00\x02xy", b"\x08\x05rest",
    ))  # fmt: skip
    assert list(decode_frames(payload)) == [
        PaddingFrame(),
        PingFrame(),
        ResetStreamFrame(8, 300, 70_000),
        MaxStreamsFrame(True, 1 << 60),
        CryptoFrame(100, b"abc"),
        PathChallengeFrame(b"12345678"),
        NewConnectionIdFrame(3, 1, b"cidcid", bytes(16)),
        DatagramFrame(b"hi"),
        StreamFrame(4, 1024, b"xy", True),
        StreamFrame(5, 0, b"rest", False),
    ]


@pytest.mark.parametrize("is_application", [True, False])
def test_close_reasons_are_cut_to_fit(is_application: bool) -> None:
    encoded = encode_connection_close(77, "é" * 900, is_application=is_application, room=300)
    assert len(encoded) <= 300
    (frame,) = decode_frames(encoded)
    assert isinstance(frame, ConnectionCloseFrame)
    assert (frame.code, frame.is_application) == (77, is_application)
    assert frame.reason.startswith("é" * 100)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", TransportErrorCode.PROTOCOL_VIOLATION),
        (b"\x40\x01", TransportErrorCode.FRAME_ENCODING_ERROR),
        (b"\x21", TransportErrorCode.FRAME_ENCODING_ERROR),
        (b"\x02\x05\x00\x00\x06", TransportErrorCode.FRAME_ENCODING_ERROR),
        (b"\x07\x00", TransportErrorCode.FRAME_ENCODING_ERROR),
        (encode_varints(0x12, (1 << 60) + 1), TransportErrorCode.FRAME_ENCODING_ERROR),
        (encode_new_connection_id(1, 2, b"cid", bytes(16)), TransportErrorCode.FRAME_ENCODING_ERROR),
        (encode_new_connection_id(2, 1, b"", bytes(16)), TransportErrorCode.FRAME_ENCODING_ERROR),
        (b"\x06" + b"\xff" * 8 + b"\x01x", TransportErrorCode.FRAME_ENCODING_ERROR),
    ],
)
def test_malformed_frames(payload: bytes, code: int) -> None:
    with pytest.raises(FrameDecodeError) as caught:
        list(decode_frames(payload))
    assert caught.value.code == code


def test_frames_in_the_wrong_packet() -> None:
    for allowed in (FrameContext.INITIAL, FrameContext.HANDSHAKE):
        with pytest.raises(FrameDecodeError) as caught:
            list(decode_frames(b"\x08\x00x", allowed))
        assert caught.value.code == TransportErrorCode.PROTOCOL_VIOLATION
    with pytest.raises(FrameDecodeError):
        list(decode_frames(b"\x1e", FrameContext.ZERO_RTT))
