"""Route frames and control messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    AccessResult,
    AccessToken,
    AgentInfo,
    AgentInfoHint,
    ControlMessage,
    ControlReader,
    EnvelopeStream,
    InvalidControlStream,
    KeysDone,
    ObservedAddress,
    RouteFrame,
    ServiceStream,
    SkippedControl,
    WireEncodeError,
    decode_route_frame,
    encode_control,
    encode_route_frame,
)
from tests.wire.strategies import ALICE, addresses, records, socket_addresses, uint64

messages: st.SearchStrategy[ControlMessage] = st.one_of(
    st.builds(ObservedAddress, socket_addresses),
    st.builds(AgentInfoHint, addresses, uint64),
    st.builds(AgentInfo, records),
    st.builds(AccessToken, st.text(min_size=1, max_size=60)),
    st.builds(AccessResult, st.booleans(), st.text(max_size=20)),
    st.sampled_from([ServiceStream(), KeysDone(), EnvelopeStream()]),
    st.builds(SkippedControl, st.integers(9, 255), st.binary(max_size=50)),
)


def read(chunks: list[bytes], **limits: int) -> list[ControlMessage]:
    reader, got = ControlReader(**limits), []
    for chunk in chunks:
        reader.feed(chunk)
        while (message := reader.next_message()) is not None:
            got.append(message)
    reader.end()
    return got


@given(st.lists(messages, max_size=6), st.integers(1, 40))
def test_messages_come_back_however_they_are_cut(sent: list[ControlMessage], size: int) -> None:
    stream = b"".join(map(encode_control, sent))
    assert read([stream[at : at + size] for at in range(0, len(stream), size)]) == sent


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_messages_or_our_error(chunks: list[bytes]) -> None:
    try:
        got = read(chunks)
    except InvalidControlStream:
        return
    assert len(got) * 3 <= sum(map(len, chunks))


@given(st.integers(0, 255), st.binary(max_size=120))
def test_any_payload_of_any_type_is_taken(message_type: int, payload: bytes) -> None:
    (message,) = read([encode_control(SkippedControl(message_type, payload))])
    assert message is not None


def test_a_peer_cannot_make_us_hold_much() -> None:
    with pytest.raises(InvalidControlStream, match="4097"):
        read([b"\x09\x10\x01"])
    with pytest.raises(InvalidControlStream, match="too many"):
        read([b"\x07\x00\x00" * 5], max_messages=4)
    with pytest.raises(InvalidControlStream, match="inside"):
        read([b"\x07\x00"])


def test_what_came_before_a_fault_is_delivered() -> None:
    reader = ControlReader()
    reader.feed(encode_control(ServiceStream()) + b"\x09\xff\xff")
    assert reader.next_message() == ServiceStream()
    with pytest.raises(InvalidControlStream):
        reader.next_message()


def test_service_bytes_follow_the_last_message() -> None:
    reader = ControlReader()
    reader.feed(encode_control(KeysDone()) + b"SSH-2.0")
    assert reader.next_message() == KeysDone()
    assert reader.take_rest() == b"SSH-2.0"
    assert reader.take_rest() == b""


def test_observed_exchange() -> None:
    """Spec 04 §18."""
    reply = encode_control(ObservedAddress(SocketAddress("127.0.0.1", 60102)))
    assert reply.hex() == "0100067f000001eac6"
    hint = encode_route_frame(ALICE.address) + encode_control(AgentInfoHint(ALICE.address, 0))
    assert hint.hex() == f"61327232{ALICE.address.hex()}02001d{ALICE.address.hex()}0000000000000000"


@given(addresses, st.booleans())
def test_route_frames(target: Address, legacy: bool) -> None:
    frame = encode_route_frame(target, legacy=legacy)
    assert len(frame) == 25
    assert decode_route_frame(frame) == RouteFrame(target, legacy)


@given(st.binary(max_size=30))
def test_anything_else_is_no_route_frame(data: bytes) -> None:
    with pytest.raises(InvalidControlStream):
        decode_route_frame(data)


def test_users_mistakes_are_named() -> None:
    for wrong in (
        SkippedControl(9, bytes(4097)),
        AccessToken(""),
        AccessToken("x" * 257),
        AgentInfoHint(ALICE.address, -1),
    ):
        with pytest.raises(WireEncodeError):
            encode_control(wrong)


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(AccessToken("secret"))
