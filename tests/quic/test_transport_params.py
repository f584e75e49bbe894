"""Transport parameters: round trips, the rules of RFC 9000 §18.2, and any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.transport_params import (
    PreferredAddress,
    TransportParameterError,
    TransportParameters,
    VersionInformation,
    decode_transport_parameters,
)
from a2al_trio.quic.varint import MAX_VARINT, encode_varint

integers = st.integers(0, MAX_VARINT)
cids = st.none() | st.binary(max_size=20)
preferred_addresses = st.builds(
    PreferredAddress,
    ipv4=st.none() | st.builds(SocketAddress, st.ip_addresses(v=4).map(str), st.integers(1, 65535)),
    ipv6=st.none() | st.builds(SocketAddress, st.ip_addresses(v=6).map(str), st.integers(1, 65535)),
    connection_id=st.binary(min_size=1, max_size=20),
    stateless_reset_token=st.binary(min_size=16, max_size=16),
)
versions = st.integers(1, 0xFFFFFFFF)
parameters = st.builds(
    TransportParameters,
    original_destination_connection_id=cids,
    max_idle_timeout_ms=integers,
    stateless_reset_token=st.none() | st.binary(min_size=16, max_size=16),
    max_udp_payload_size=st.integers(1200, MAX_VARINT),
    initial_max_data=integers,
    initial_max_stream_data_bidi_local=integers,
    initial_max_stream_data_bidi_remote=integers,
    initial_max_stream_data_uni=integers,
    initial_max_streams_bidi=st.integers(0, 1 << 60),
    initial_max_streams_uni=st.integers(0, 1 << 60),
    ack_delay_exponent=st.integers(0, 20),
    max_ack_delay_ms=st.integers(0, 16383),
    disable_active_migration=st.booleans(),
    preferred_address=st.none() | preferred_addresses,
    active_connection_id_limit=st.integers(2, MAX_VARINT),
    initial_source_connection_id=cids,
    retry_source_connection_id=cids,
    version_information=st.none() | st.builds(VersionInformation, versions, st.lists(versions).map(tuple)),
    max_datagram_frame_size=integers,
)


@given(parameters)
def test_round_trip(params: TransportParameters) -> None:
    assert decode_transport_parameters(params.encode(), from_server=True) == params


def test_defaults_take_no_bytes_and_are_assumed() -> None:
    assert TransportParameters().encode() == b""
    assert decode_transport_parameters(b"", from_server=False) == TransportParameters()


def test_grease_and_unknown_parameters_are_ignored() -> None:
    data = TransportParameters(initial_max_data=5).encode(grease=(7, b"xyz"))
    assert encode_varint(31 * 7 + 27) + b"\x03xyz" in data
    assert decode_transport_parameters(data + bytes.fromhex("6ab200"), from_server=False).initial_max_data == 5


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_decode_or_raise(data: bytes, from_server: bool) -> None:
    try:
        params = decode_transport_parameters(data, from_server=from_server)
    except TransportParameterError:
        return
    assert decode_transport_parameters(params.encode(), from_server=from_server) == params


@given(parameters, st.data())
def test_damaged_parameters_decode_or_raise(params: TransportParameters, data: st.DataObject) -> None:
    encoded = bytearray(params.encode() or b"\0")
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(TransportParameterError):
        decode_transport_parameters(bytes(encoded), from_server=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("0304", "cut off"),
        ("030244af", "must be in 1200"),
        ("0a0115", "must be in 0..20"),
        ("0b0480004000", "must be in 0..16383"),
        ("0e0101", "must be in 2"),
        ("0808d000000000000001", "must be in 0.."),
        ("0c0100", "must be empty"),
        ("04020505", "behind its value"),
        ("0400", "not an integer"),
        ("020101", "1 bytes"),
        ("0f15" + "00" * 21, "21 bytes"),
        ("040105040105", "twice"),
        ("1100", "version_information"),
        ("110400000000", "version_information"),
        ("11050000000100", "version_information"),
        ("0d00", "preferred_address"),
        ("0d29" + "00" * 41, "preferred_address"),
        ("40", "cut off"),
    ],
)
def test_broken_rules_are_refused(data: str, message: str) -> None:
    with pytest.raises(TransportParameterError, match=message):
        decode_transport_parameters(bytes.fromhex(data), from_server=True)


@pytest.mark.parametrize(
    "params",
    [
        TransportParameters(original_destination_connection_id=b""),
        TransportParameters(stateless_reset_token=bytes(16)),
        TransportParameters(retry_source_connection_id=b"r"),
        TransportParameters(preferred_address=PreferredAddress(None, None, b"c", bytes(16))),
    ],
)
def test_a_client_must_not_send_what_only_servers_have(params: TransportParameters) -> None:
    assert decode_transport_parameters(params.encode(), from_server=True) == params
    with pytest.raises(TransportParameterError, match="a client must not"):
        decode_transport_parameters(params.encode(), from_server=False)
