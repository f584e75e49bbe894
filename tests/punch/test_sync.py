"""What a peer may make us dial with the synchronised punch: a few public addresses, whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.punch.sync import PunchSide, punch_targets
from a2al_trio.signaling import Frame, FrameType, decode_frame, encode_frame
from a2al_trio.wire import NatType, is_public

TEXTS = st.one_of(
    st.text(max_size=40),
    st.builds(lambda ip, port: f"{ip}:{port}", st.ip_addresses(v=4), st.integers(0, 70_000)),
    st.builds(lambda ip, port: f"[{ip}]:{port}", st.ip_addresses(v=6), st.integers(0, 70_000)),
)


@given(st.lists(TEXTS, max_size=40), st.integers(0, 9))
def test_targets_are_few_and_public(texts: list[str], nat_type: int) -> None:
    targets = punch_targets(Frame(type=FrameType.PUNCH_INIT, addresses=tuple(texts), nat_type=nat_type))
    assert len(targets) <= 17
    assert len(set(targets)) == len(targets)
    for target in targets:
        assert 0 < target.port < 65536
        assert is_public(target.host)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.1", "10.0.0.1", "224.0.0.1", "0.0.0.0", "169.254.1.1"])
def test_nobody_makes_us_dial_the_inside(host: str) -> None:
    assert punch_targets(Frame(type=FrameType.PUNCH_ACK, addresses=(f"{host}:4121",))) == ()


def test_ports_around_that_of_a_symmetric_nat_are_tried() -> None:
    frame = Frame(
        type=FrameType.PUNCH_ACK,
        addresses=("[2a00::1]:4121", "20.0.0.1:65534", "20.0.0.2:7"),
        nat_type=NatType.SYMMETRIC,
    )
    ipv4 = [SocketAddress("20.0.0.1", port) for port in range(65529, 65536)]
    assert punch_targets(frame) == (*ipv4, SocketAddress("2a00::1", 4121))


def test_a_side_tells_its_addresses_in_a_frame() -> None:
    own = (SocketAddress("20.0.0.1", 4121), SocketAddress("2a00::1", 4121))
    frame = PunchSide(own, 2, lambda: 0.0).frame(FrameType.PUNCH_INIT, 1_800_000_000_123)
    read = decode_frame(encode_frame(frame))
    assert (read.type, read.timestamp_ms, read.nat_type) == ("punch-init", 1_800_000_000_123, 2)
    assert punch_targets(read) == own
