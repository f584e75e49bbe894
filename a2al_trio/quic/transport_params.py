"""Transport parameters (RFC 9000 §18; version information: RFC 9368 §3; datagrams: RFC 9221 §3; min_ack_delay:
draft-ietf-quic-ack-frequency-11 §3)."""

from __future__ import annotations

import ipaddress
from typing import Final

import attrs

from a2al_trio.errors import DecodeError
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.varint import MAX_VARINT, VarintError, decode_varint, encode_varint, varint_size

__all__ = [
    "PreferredAddress",
    "TransportParameterError",
    "TransportParameters",
    "VersionInformation",
    "decode_transport_parameters",
]

MAX_STREAMS: Final = 1 << 60
_MAX_CID: Final = 20


class TransportParameterError(DecodeError):
    """The peer's transport parameters do not decode or break a rule (TRANSPORT_PARAMETER_ERROR, 0x08)."""


@attrs.frozen
class PreferredAddress:
    """Where a server would rather be talked to (RFC 9000 §9.6), with the connection ID to use there (number 1)."""

    ipv4: SocketAddress | None
    ipv6: SocketAddress | None
    connection_id: bytes
    stateless_reset_token: bytes


@attrs.frozen
class VersionInformation:
    """The version in use and those that could be used instead (RFC 9368 §3)."""

    chosen: int
    available: tuple[int, ...]


@attrs.frozen(kw_only=True)
class TransportParameters:
    """One side's transport parameters; what is left out has the default of RFC 9000 §18.2. Sizes are in bytes."""

    original_destination_connection_id: bytes | None = None
    max_idle_timeout_ms: int = 0
    """Milliseconds; 0 is no timeout."""
    stateless_reset_token: bytes | None = None
    max_udp_payload_size: int = 65_527
    initial_max_data: int = 0
    initial_max_stream_data_bidi_local: int = 0
    """For bidirectional streams opened by the side that sends the parameter."""
    initial_max_stream_data_bidi_remote: int = 0
    initial_max_stream_data_uni: int = 0
    initial_max_streams_bidi: int = 0
    initial_max_streams_uni: int = 0
    ack_delay_exponent: int = 3
    max_ack_delay_ms: int = 25
    disable_active_migration: bool = False
    preferred_address: PreferredAddress | None = None
    active_connection_id_limit: int = 2
    initial_source_connection_id: bytes | None = None
    retry_source_connection_id: bytes | None = None
    version_information: VersionInformation | None = None
    max_datagram_frame_size: int = 0
    """Largest DATAGRAM frame accepted; 0 is none."""
    min_ack_delay_us: int | None = None
    """The shortest acknowledgement delay the peer may ask for, in microseconds; None if it may not ask."""

    def encode(self, *, grease: tuple[int, bytes] | None = None) -> bytes:
        """Return the bytes of the TLS extension.

        `grease` is `(n, value)`: parameter 31*n + 27 is added with `value`, which peers must ignore (RFC 9000 §18.1).
        """
        out = bytearray()
        for number, (name, default, _, _) in _INTEGERS.items():
            value: int = getattr(self, name)
            if value != default:
                out += encode_varint(number) + encode_varint(varint_size(value)) + encode_varint(value)
        for number, (name, _, _) in _BYTES.items():
            content: bytes | None = getattr(self, name)
            if content is not None:
                _append(out, number, content)
        if self.disable_active_migration:
            _append(out, _DISABLE_ACTIVE_MIGRATION, b"")
        if self.preferred_address is not None:
            _append(out, _PREFERRED_ADDRESS, _encode_preferred_address(self.preferred_address))
        if self.version_information is not None:
            versions = (self.version_information.chosen, *self.version_information.available)
            _append(out, _VERSION_INFORMATION, b"".join(version.to_bytes(4, "big") for version in versions))
        if grease is not None:
            _append(out, 31 * grease[0] + 27, grease[1])
        return bytes(out)


_DISABLE_ACTIVE_MIGRATION: Final = 0x0C
_PREFERRED_ADDRESS: Final = 0x0D
_VERSION_INFORMATION: Final = 0x11

# number: (field, default, smallest and largest value allowed)
_INTEGERS: Final[dict[int, tuple[str, int | None, int, int]]] = {
    0x01: ("max_idle_timeout_ms", 0, 0, MAX_VARINT),
    0x03: ("max_udp_payload_size", 65_527, 1200, MAX_VARINT),
    0x04: ("initial_max_data", 0, 0, MAX_VARINT),
    0x05: ("initial_max_stream_data_bidi_local", 0, 0, MAX_VARINT),
    0x06: ("initial_max_stream_data_bidi_remote", 0, 0, MAX_VARINT),
    0x07: ("initial_max_stream_data_uni", 0, 0, MAX_VARINT),
    0x08: ("initial_max_streams_bidi", 0, 0, MAX_STREAMS),
    0x09: ("initial_max_streams_uni", 0, 0, MAX_STREAMS),
    0x0A: ("ack_delay_exponent", 3, 0, 20),
    0x0B: ("max_ack_delay_ms", 25, 0, (1 << 14) - 1),
    0x0E: ("active_connection_id_limit", 2, 2, MAX_VARINT),
    0x20: ("max_datagram_frame_size", 0, 0, MAX_VARINT),
    0xFF04DE1B: ("min_ack_delay_us", None, 0, MAX_VARINT),
}
# number: (field, smallest and largest length allowed)
_BYTES: Final[dict[int, tuple[str, int, int]]] = {
    0x00: ("original_destination_connection_id", 0, _MAX_CID),
    0x02: ("stateless_reset_token", 16, 16),
    0x0F: ("initial_source_connection_id", 0, _MAX_CID),
    0x10: ("retry_source_connection_id", 0, _MAX_CID),
}
_SERVER_ONLY: Final = frozenset({0x00, 0x02, _PREFERRED_ADDRESS, 0x10})


def decode_transport_parameters(data: bytes, *, from_server: bool) -> TransportParameters:
    """Decode and check what the peer sent; unknown parameters are ignored.

    Whether the connection IDs are the right ones is for the connection to say (RFC 9000 §7.3).
    Raises `TransportParameterError`.
    """
    fields: dict[str, object] = {}
    for number, value in _split(data).items():
        if number in _SERVER_ONLY and not from_server:
            raise TransportParameterError(f"a client must not send transport parameter {number:#x}")
        if number in _INTEGERS:
            name, _, smallest, largest = _INTEGERS[number]
            fields[name] = _decode_integer(name, value, smallest, largest)
        elif number in _BYTES:
            name, shortest, longest = _BYTES[number]
            if not shortest <= len(value) <= longest:
                raise TransportParameterError(f"{name} has {len(value)} bytes")
            fields[name] = value
        elif number == _DISABLE_ACTIVE_MIGRATION:
            if value:
                raise TransportParameterError("disable_active_migration must be empty")
            fields["disable_active_migration"] = True
        elif number == _PREFERRED_ADDRESS:
            fields["preferred_address"] = _decode_preferred_address(value)
        elif number == _VERSION_INFORMATION:
            fields["version_information"] = _decode_version_information(value)
    parameters = TransportParameters(**fields)  # type: ignore[arg-type]  # the tables hold the fields' own types
    if parameters.min_ack_delay_us is not None and parameters.min_ack_delay_us > parameters.max_ack_delay_ms * 1000:
        raise TransportParameterError("min_ack_delay is longer than max_ack_delay")
    return parameters


def _append(out: bytearray, number: int, content: bytes) -> None:
    out += encode_varint(number) + encode_varint(len(content)) + content


def _split(data: bytes) -> dict[int, bytes]:
    parameters: dict[int, bytes] = {}
    offset, end = 0, len(data)
    while offset < end:
        try:
            number, offset = decode_varint(data, offset)
            size, offset = decode_varint(data, offset)
        except VarintError as error:
            raise TransportParameterError("the transport parameters are cut off") from error
        if size > end - offset:
            raise TransportParameterError(f"transport parameter {number:#x} is cut off")
        if number in parameters:
            raise TransportParameterError(f"transport parameter {number:#x} is there twice")
        parameters[number] = data[offset : offset + size]
        offset += size
    return parameters


def _decode_integer(name: str, value: bytes, smallest: int, largest: int) -> int:
    try:
        number, end = decode_varint(value, 0)
    except VarintError as error:
        raise TransportParameterError(f"{name} is not an integer") from error
    if end != len(value):
        raise TransportParameterError(f"{name} has bytes behind its value")
    if not smallest <= number <= largest:
        raise TransportParameterError(f"{name} must be in {smallest}..{largest}, not {number}")
    return number


def _encode_preferred_address(preferred: PreferredAddress) -> bytes:
    ipv4 = preferred.ipv4 or SocketAddress("0.0.0.0", 0)
    ipv6 = preferred.ipv6 or SocketAddress("::", 0)
    return b"".join(
        (
            ipaddress.IPv4Address(ipv4.host).packed + ipv4.port.to_bytes(2, "big"),
            ipaddress.IPv6Address(ipv6.host).packed + ipv6.port.to_bytes(2, "big"),
            bytes((len(preferred.connection_id),)) + preferred.connection_id,
            preferred.stateless_reset_token,
        )
    )


def _decode_preferred_address(value: bytes) -> PreferredAddress:
    cid_size = value[24] if len(value) > 24 else 0
    if not 1 <= cid_size <= _MAX_CID or len(value) != 25 + cid_size + 16:
        raise TransportParameterError("preferred_address is malformed")
    ipv4 = SocketAddress(str(ipaddress.IPv4Address(value[:4])), int.from_bytes(value[4:6], "big"))
    ipv6 = SocketAddress(str(ipaddress.IPv6Address(value[6:22])), int.from_bytes(value[22:24], "big"))
    return PreferredAddress(
        ipv4=ipv4 if any(value[:6]) else None,
        ipv6=ipv6 if any(value[6:24]) else None,
        connection_id=value[25 : 25 + cid_size],
        stateless_reset_token=value[25 + cid_size :],
    )


def _decode_version_information(value: bytes) -> VersionInformation:
    versions = tuple(int.from_bytes(value[i : i + 4], "big") for i in range(0, len(value), 4))
    if not versions or len(value) % 4 or 0 in versions:
        raise TransportParameterError("version_information is malformed")
    return VersionInformation(versions[0], versions[1:])
