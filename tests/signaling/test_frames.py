from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.signaling.errors import SignalingDecodeError
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame, encode_frame

texts = st.text(max_size=40)
frames = st.builds(
    Frame,
    type=texts,
    ufrag=texts,
    pwd=texts,
    candidate=texts,
    agent=texts,
    room=texts,
    caller=texts,
    target=texts,
    addresses=st.lists(texts, max_size=5).map(tuple),
    timestamp_ms=st.integers(0, 2**64 - 1),
    nat_type=st.integers(0, 4),
)


@given(frames)
def test_every_frame_survives_the_round_trip(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_decode_error(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except SignalingDecodeError:
        return
    assert isinstance(frame, Frame)


@given(frames, st.data())
def test_a_mutated_frame_is_a_frame_or_a_decode_error(frame: Frame, data: st.DataObject) -> None:
    raw = bytearray(encode_frame(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_frame(raw)
    except SignalingDecodeError:
        return


@pytest.mark.parametrize(
    "data", [b"\x81" * 5000 + b"\x00", b"\x9f" * 5000, b"\xc0" * 5000, b"\xbf" + b"\x00\x00" * 5000]
)
def test_deep_or_endless_nesting_is_refused(data: bytes) -> None:
    with pytest.raises(SignalingDecodeError):
        decode_frame(data)


def test_a_huge_announced_length_allocates_nothing() -> None:
    with pytest.raises(SignalingDecodeError, match="cut short"):
        decode_frame(bytes.fromhex("a161747bffffffffffffffff"))


def test_punch_frames_carry_addresses_time_and_nat_type() -> None:
    frame = Frame(
        type=FrameType.PUNCH_INIT,
        addresses=("192.0.2.1:4121", "[2001:db8::1]:4121"),
        timestamp_ms=1_700_000_000_123,
        nat_type=4,
    )
    raw = encode_frame(frame)
    assert b"eaddrs\x82" in raw
    assert decode_frame(raw) == frame


def test_credentials_stay_out_of_the_representation() -> None:
    assert "secret" not in repr(Frame(type=FrameType.CREDENTIALS, ufrag="u", pwd="secret"))
