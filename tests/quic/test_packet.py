from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.errors import PacketDecodeError
from a2al_trio.quic.packet import (
    PacketType,
    decode_invariants,
    decode_long_header,
    decode_packet_number,
    decode_retry,
    decode_version_negotiation,
    encode_long_header,
    encode_retry,
    encode_version_negotiation,
    packet_number_size,
    packet_type_of,
)
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2

CIDS = st.binary(max_size=20)
VERSIONS = st.sampled_from((VERSION_1, VERSION_2))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_header_or_the_one_error(data: bytes) -> None:
    for first in (b"", b"\xc0\x00\x00\x00\x01", b"\xd0\x6b\x33\x43\xcf", b"\xff\x00\x00\x00\x00"):
        packet = first + data
        for decode in (
            lambda packet: decode_long_header(packet, decode_invariants(packet)),
            decode_version_negotiation,
            lambda packet: decode_retry(packet, original_destination_cid=b"12345678"),
        ):
            with contextlib.suppress(PacketDecodeError):
                decode(packet)


@given(
    VERSIONS, st.sampled_from((PacketType.INITIAL, PacketType.ZERO_RTT, PacketType.HANDSHAKE)), CIDS, CIDS,
    st.binary(max_size=100), st.integers(0, 1 << 40), st.integers(4, 1300),
)  # fmt: skip
def test_long_headers_round_trip(
    version: int, kind: PacketType, destination: bytes, source: bytes, token: bytes, number: int, size: int
) -> None:
    header = encode_long_header(
        version, kind, destination, source, token=token, packet_number=number, payload_size=size
    )
    data = b"before" + header + bytes(size + 16) + b"after"
    decoded = decode_long_header(data, decode_invariants(data, 6), 6)
    assert (decoded.version, decoded.packet_type) == (version, kind)
    assert (decoded.destination_cid, decoded.source_cid) == (destination, source)
    assert decoded.token == (token if kind is PacketType.INITIAL else b"")
    assert data[decoded.end :] == b"after"
    assert data[decoded.packet_number_offset :][:4] == (number & 0xFFFFFFFF).to_bytes(4, "big")


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 22))
def test_packet_numbers_survive_truncation(acked: int, ahead: int) -> None:
    number = acked + 1 + ahead
    size = packet_number_size(number, acked)
    for expected in (acked + 1, number):
        truncated = number & (1 << 8 * size) - 1
        assert decode_packet_number(truncated, 8 * size, expected) == number


def test_the_rfc_example_of_packet_number_decoding() -> None:
    assert decode_packet_number(0x9B32, 16, 0xA82F30EA + 1) == 0xA82F9B32  # RFC 9000 §A.3


@given(VERSIONS, CIDS, CIDS, st.binary(min_size=1, max_size=90))
def test_retry_round_trips_and_forgeries_fail(version: int, destination: bytes, source: bytes, token: bytes) -> None:
    packet = encode_retry(version, destination, source, original_destination_cid=b"original", token=token)
    retry = decode_retry(packet, original_destination_cid=b"original")
    assert (retry.version, retry.token) == (version, token)
    assert (retry.destination_cid, retry.source_cid) == (destination, source)
    assert packet_type_of(packet[0], version) is PacketType.RETRY
    with pytest.raises(PacketDecodeError):
        decode_retry(packet, original_destination_cid=b"another")
    with pytest.raises(PacketDecodeError):
        decode_retry(packet[:-1] + bytes((packet[-1] ^ 1,)), original_destination_cid=b"original")


def test_version_negotiation_round_trips() -> None:
    packet = encode_version_negotiation(b"dst", b"source", (VERSION_1, VERSION_2), 0x15)
    decoded = decode_version_negotiation(packet)
    assert (decoded.destination_cid, decoded.source_cid) == (b"dst", b"source")
    assert decoded.versions == (VERSION_1, VERSION_2)
    assert packet[0] & 0xC0 == 0xC0
