"""The demultiplexing table of spec 04 §2.2: every first byte has one owner."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received
from a2al_trio.net.demux import Plane, plane_of, split

SOURCE = SocketAddress("192.0.2.1", 4121)
STUN_REST = b"\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)


def by_the_table(datagram: bytes) -> Plane:
    """The table, written down once more in its own order."""
    if len(datagram) == 0:
        return Plane.NONE
    if datagram[0] < 4 and len(datagram) >= 20 and datagram[4:8].hex() == "2112a442":
        return Plane.STUN
    if datagram[:2] in (bytes.fromhex("00ec"), bytes.fromhex("00ed")):
        return Plane.NONE
    if 0x40 <= datagram[0] <= 0x7F or 0xC0 <= datagram[0] <= 0xFF:
        return Plane.QUIC
    return Plane.DHT


interesting = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda first, rest: bytes([first]) + rest, st.integers(0, 255), st.binary(max_size=30)),
    st.builds(lambda first, cut: (bytes([first]) + STUN_REST)[:cut], st.integers(0, 255), st.integers(0, 20)),
    st.sampled_from([b"\x00\xec", b"\x00\xed", b"\x00\xec" + bytes(50), b"\x00\xee", b"\x00"]),
)


@given(interesting)
def test_every_datagram_has_the_plane_of_the_table(datagram: bytes) -> None:
    assert plane_of(memoryview(datagram)) is by_the_table(datagram)


@given(st.lists(interesting.filter(len), min_size=1, max_size=20), st.integers(0, 3))
def test_a_run_is_cut_where_the_plane_changes_and_nothing_is_lost(datagrams: list[bytes], ecn: int) -> None:
    size = max(map(len, datagrams))
    padded = [datagram.ljust(size, b"\0") for datagram in datagrams[:-1]] + [datagrams[-1]]
    run = Received(memoryview(b"".join(padded)), size, SOURCE, ecn, "192.0.2.9")
    parts = list(split(run))
    found = [(plane, bytes(datagram)) for plane, part in parts for datagram in part.datagrams()]
    assert found == [(by_the_table(datagram), datagram) for datagram in padded]
    assert all(one is not other for (one, _), (other, _) in pairwise(parts))
    assert {(part.source, part.ecn, part.local_host) for _, part in parts} == {(SOURCE, ecn, "192.0.2.9")}


@given(st.integers(0x40, 0x7F), st.integers(1, 40))
def test_a_run_of_quic_alone_is_passed_on_untouched(first: int, count: int) -> None:
    run = Received(memoryview((bytes([first]) + bytes(99)) * count), 100, SOURCE)
    assert list(split(run)) == [(Plane.QUIC, run)]
