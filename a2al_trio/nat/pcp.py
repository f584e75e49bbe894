"""Messages of PCP (RFC 6887) and of its forerunner NAT-PMP (RFC 6886), as far as a port mapping needs them.

Both live on the same port of a gateway. Whoever knows only one of them answers the other with an error in its own
format, so answers are told apart by their version byte.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import attrs

from a2al_trio.errors import DecodeError
from a2al_trio.net.address import SocketAddress

__all__ = [
    "GATEWAY_PORT",
    "PCP_UNSUPPORTED_VERSION",
    "GatewayDecodeError",
    "GatewayReply",
    "PcpMapping",
    "PcpRefusal",
    "PmpAddress",
    "PmpMapping",
    "PmpRefusal",
    "decode_reply",
    "encode_pcp_map",
    "encode_pmp_address_request",
    "encode_pmp_map",
]

GATEWAY_PORT: Final = 5351
PCP_UNSUPPORTED_VERSION: Final = 1
_PMP, _PCP = 0, 2
_RESPONSE = 0x80
_OP_ADDRESS, _OP_MAP = 0, 1
_UDP = 17
_MAX_PCP = 1100  # RFC 6887 §7

_PCP_RESULTS = {
    1: "version not supported",
    2: "not authorized",
    3: "malformed request",
    4: "MAP is not supported",
    7: "the gateway has no network",
    8: "no resources",
    9: "UDP is not supported",
    10: "quota exceeded",
    11: "the external address cannot be provided",
    12: "the address in the request is not the one it came from: another NAT is in between",
    13: "too many peers",
}
_PMP_RESULTS = {
    1: "version not supported",
    2: "not authorized",
    3: "the gateway has no network",
    4: "no resources",
    5: "operation not supported",
}


class GatewayDecodeError(DecodeError):
    """An answer of a gateway that is neither PCP nor NAT-PMP."""


@attrs.frozen
class PmpAddress:
    """The gateway's external IPv4 address; `epoch` is the seconds since its table was last empty."""

    epoch: int
    host: str


@attrs.frozen
class PmpMapping:
    """A UDP mapping by NAT-PMP; `lifetime` in seconds."""

    epoch: int
    internal_port: int
    external_port: int
    lifetime: int


@attrs.frozen
class PmpRefusal:
    """A NAT-PMP gateway, or one of its time, refuses."""

    code: int

    @property
    def reason(self) -> str:
        """What the code means (RFC 6886 §3.5)."""
        return _PMP_RESULTS.get(self.code, f"error {self.code}")


@attrs.frozen
class PcpMapping:
    """A UDP mapping by PCP; `nonce` is that of the request, `lifetime` in seconds."""

    epoch: int
    nonce: bytes
    internal_port: int
    external: SocketAddress
    lifetime: int


@attrs.frozen
class PcpRefusal:
    """A PCP gateway refuses."""

    code: int
    retry_after: int

    @property
    def reason(self) -> str:
        """What the code means (RFC 6887 §7.4)."""
        return _PCP_RESULTS.get(self.code, f"error {self.code}")


GatewayReply = PmpAddress | PmpMapping | PmpRefusal | PcpMapping | PcpRefusal


def encode_pmp_address_request() -> bytes:
    """Ask for the external address (RFC 6886 §3.2)."""
    return bytes([_PMP, _OP_ADDRESS])


def encode_pmp_map(internal_port: int, external_port: int, lifetime: int) -> bytes:
    """Ask for a UDP mapping, or with lifetime and external port 0 for its end (RFC 6886 §3.3–3.4)."""
    return struct.pack(">BBHHHI", _PMP, _OP_MAP, 0, internal_port, external_port, lifetime)


def encode_pcp_map(client: str, nonce: bytes, internal_port: int, external: SocketAddress, lifetime: int) -> bytes:
    """Ask for a UDP mapping (RFC 6887 §7.1, §11.1), for its renewal, or with lifetime 0 for its end.

    `client` is the address the request is sent from, `external` what is wanted; its host may be all zeros.
    """
    header = struct.pack(">BBHI", _PCP, _OP_MAP, 0, lifetime) + _packed(client)
    ports = struct.pack(">BxxxHH", _UDP, internal_port, external.port)
    return header + nonce + ports + _packed(external.host)


def _packed(host: str) -> bytes:
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def decode_reply(data: bytes) -> GatewayReply:
    """Read an answer of either protocol; raises GatewayDecodeError."""
    if len(data) < 4 or not data[1] & _RESPONSE:
        raise GatewayDecodeError("not an answer of a gateway")
    if data[0] == _PMP:
        return _decode_pmp(data)
    if data[0] == _PCP:
        return _decode_pcp(data)
    raise GatewayDecodeError(f"version {data[0]} is neither PCP nor NAT-PMP")


def _decode_pmp(data: bytes) -> GatewayReply:
    operation, result = data[1] & ~_RESPONSE, int.from_bytes(data[2:4], "big")
    if result:
        return PmpRefusal(result)
    if operation == _OP_ADDRESS and len(data) == 12:
        epoch, packed = struct.unpack(">I4s", data[4:])
        return PmpAddress(epoch, str(ipaddress.IPv4Address(packed)))
    if operation == _OP_MAP and len(data) == 16:
        return PmpMapping(*struct.unpack(">IHHI", data[4:]))
    raise GatewayDecodeError("a NAT-PMP answer of the wrong length")


def _decode_pcp(data: bytes) -> GatewayReply:
    if len(data) < 24 or len(data) % 4 or len(data) > _MAX_PCP:
        raise GatewayDecodeError("a PCP answer of the wrong length")
    result, lifetime, epoch = struct.unpack(">xxxBII", data[:12])
    if result:
        return PcpRefusal(result, lifetime)
    if data[1] & ~_RESPONSE != _OP_MAP or len(data) < 60:
        raise GatewayDecodeError("a PCP answer about something else")
    protocol, internal_port, external_port = struct.unpack(">BxxxHH", data[36:44])
    if protocol != _UDP:
        raise GatewayDecodeError("a PCP mapping that is not for UDP")
    external = SocketAddress.of(str(ipaddress.IPv6Address(data[44:60])), external_port)
    return PcpMapping(epoch, data[24:36], internal_port, external, lifetime)
