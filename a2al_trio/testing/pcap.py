"""Capture files of simulated traffic, for Wireshark and tcpdump."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType

from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.link import Packet

__all__ = ["PcapWriter", "ip_packet"]

MAGIC = 0xA1B2C3D4
LINKTYPE_RAW = 101  # every packet begins with its IP header
UDP = 17


class PcapWriter:
    """An open capture file (the classic pcap format); a context manager that closes it."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("wb")  # noqa: SIM115 - closed by __exit__
        self._file.write(struct.pack("<IHHiIII", MAGIC, 2, 4, 0, 0, 65535, LINKTYPE_RAW))

    def write(self, packet: Packet, now: float) -> None:
        """Append one packet; does nothing once closed."""
        if self._file.closed:
            return
        data = ip_packet(packet)
        seconds, fraction = divmod(now, 1)
        self._file.write(struct.pack("<IIII", int(seconds), int(fraction * 1e6), len(data), len(data)) + data)

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def ip_packet(packet: Packet) -> bytes:
    """The packet with its UDP (RFC 768) and IPv4 (RFC 791) or IPv6 (RFC 8200) header and all checksums."""
    source, destination = packet.source, packet.destination
    length = 8 + len(packet.data)
    family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
    addresses = _packed(family, source) + _packed(family, destination)
    ports = struct.pack("!HHH", source.port, destination.port, length)
    pseudo = addresses + struct.pack("!IHH", length, 0, UDP)
    checksum = _checksum(pseudo + ports + b"\0\0" + packet.data) or 0xFFFF
    datagram = ports + struct.pack("!H", checksum) + packet.data
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28 | packet.ecn << 20, length, UDP, 64) + addresses + datagram
    header = struct.pack("!BBHHHBBH", 0x45, packet.ecn, 20 + length, 0, 0x4000, 64, UDP, 0) + addresses
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + datagram


def _packed(family: int, address: SocketAddress) -> bytes:
    return socket.inet_pton(family, address.host.partition("%")[0])


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
