"""What the kernel can do for a UDP socket, found out by asking it: offloads, ECN, local addresses, path MTU.

Every option is tried and its absence is a normal outcome; the numbers the `socket` module lacks are Linux's and
only used there. Control messages are encoded and decoded here.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence

import attrs

from a2al_trio.net.address import SocketAddress

__all__ = ["ANCILLARY_SIZE", "Arrival", "SocketFeatures", "apply_options", "control_messages", "decode_control"]

IS_LINUX = sys.platform == "linux"


def _number(name: str, on_linux: int) -> int | None:
    """The number of an option: the module's, or the one Linux has, or None."""
    value = getattr(socket, name, on_linux if IS_LINUX else None)
    return int(value) if value is not None else None


SOL_UDP = 17
UDP_SEGMENT = _number("UDP_SEGMENT", 103)
UDP_GRO = _number("UDP_GRO", 104)
IP_TOS = _number("IP_TOS", 1)
IP_PKTINFO = _number("IP_PKTINFO", 8)
IP_RECVTOS = _number("IP_RECVTOS", 13)
IP_MTU_DISCOVER = _number("IP_MTU_DISCOVER", 10)
IPV6_MTU_DISCOVER = _number("IPV6_MTU_DISCOVER", 23)
IPV6_RECVPKTINFO = _number("IPV6_RECVPKTINFO", 49)
IPV6_PKTINFO = _number("IPV6_PKTINFO", 50)
IPV6_RECVTCLASS = _number("IPV6_RECVTCLASS", 66)
IPV6_TCLASS = _number("IPV6_TCLASS", 67)
PMTUDISC_PROBE = 3  # set DF, and leave it to us what size to try
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32  # beyond the system's maximum, if we may
DARWIN_DONTFRAG = ((socket.IPPROTO_IP, 28), (socket.IPPROTO_IPV6, 62))
WINDOWS_DONTFRAG = ((socket.IPPROTO_IP, 14), (socket.IPPROTO_IPV6, 14))

BUFFER_SIZE = 4 * 1024 * 1024
ANCILLARY_SIZE = 256
"""Room for every control message `apply_options` can turn on."""


@attrs.frozen
class SocketFeatures:
    """What `apply_options` could turn on: sending and receiving runs, ECN, local addresses, never fragmenting."""

    segments: bool
    coalesces: bool
    ecn: bool
    packet_info: bool
    dont_fragment: bool


@attrs.frozen
class Arrival:
    """What control messages say of a read; `segment_size` 0 means that it is one datagram."""

    segment_size: int = 0
    ecn: int = 0
    local_host: str | None = None


def apply_options(sock: socket.socket, *, packet_info: bool = True) -> SocketFeatures:
    """Set all options that help and that this system has; `packet_info` if packets may be for several addresses."""
    ipv6 = sock.family == socket.AF_INET6
    for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        if not (IS_LINUX and _set(sock, socket.SOL_SOCKET, force, BUFFER_SIZE)):
            _set(sock, socket.SOL_SOCKET, plain, BUFFER_SIZE)
    has_messages = hasattr(sock, "recvmsg_into")
    # A dual-stack socket reports on its IPv4 packets as an IPv4 socket does, so both levels are set.
    ecn = has_messages and _set(sock, socket.IPPROTO_IP, IP_RECVTOS, 1)
    packet_info = packet_info and has_messages
    if ipv6 and has_messages:
        ecn = _set(sock, socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1) or ecn
        packet_info = packet_info and _set(sock, socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        packet_info = packet_info and _set(sock, socket.IPPROTO_IP, IP_PKTINFO, 1)
    return SocketFeatures(
        segments=has_messages and _set(sock, SOL_UDP, UDP_SEGMENT, 0),
        coalesces=has_messages and _set(sock, SOL_UDP, UDP_GRO, 1),
        ecn=ecn,
        packet_info=packet_info,
        dont_fragment=_never_fragment(sock, ipv6),
    )


def _never_fragment(sock: socket.socket, ipv6: bool) -> bool:
    if sys.platform == "darwin" or sys.platform == "win32":
        options = DARWIN_DONTFRAG if sys.platform == "darwin" else WINDOWS_DONTFRAG
        return any([_set(sock, level, option, 1) for level, option in options[: 2 if ipv6 else 1]])
    done = _set(sock, socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if ipv6:
        done = _set(sock, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE) or done
    return done


def _set(sock: socket.socket, level: int, option: int | None, value: int) -> bool:
    if option is None:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def control_messages(
    destination: SocketAddress, *, segment_size: int, ecn: int, source_host: str | None
) -> list[tuple[int, int, bytes]]:
    """What to send along with a run: its segment size (0: one datagram), ECN codepoint and source address."""
    messages: list[tuple[int, int, bytes]] = []
    if segment_size and UDP_SEGMENT is not None:
        messages.append((SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment_size)))
    if destination.is_ipv6:
        if ecn and IPV6_TCLASS is not None:
            messages.append((socket.IPPROTO_IPV6, IPV6_TCLASS, struct.pack("=i", ecn)))
        if source_host is not None and IPV6_PKTINFO is not None:
            packed = socket.inet_pton(socket.AF_INET6, source_host.partition("%")[0])
            messages.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, packed + bytes(4)))
    else:
        if ecn and IP_TOS is not None:
            messages.append((socket.IPPROTO_IP, IP_TOS, struct.pack("=i", ecn)))
        if source_host is not None and IP_PKTINFO is not None:
            packed = socket.inet_pton(socket.AF_INET, source_host)
            messages.append((socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + packed + bytes(4)))
    return messages


def decode_control(messages: Sequence[tuple[int, int, bytes]]) -> Arrival:
    """Read the control messages of one read."""
    segment_size = ecn = 0
    local_host = None
    for level, kind, data in messages:
        if level == SOL_UDP and kind == UDP_GRO:
            segment_size = int.from_bytes(data, sys.byteorder)
        elif (level == socket.IPPROTO_IP and kind in (IP_TOS, IP_RECVTOS)) or (
            level == socket.IPPROTO_IPV6 and kind == IPV6_TCLASS
        ):
            # One byte, or a native integer whose other bytes are zero.
            ecn = (data[0] | data[-1]) & 0b11
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            local_host = socket.inet_ntop(socket.AF_INET, data[8:12])
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            local_host = SocketAddress.of(socket.inet_ntop(socket.AF_INET6, data[:16]), 0).host
    return Arrival(segment_size, ecn, local_host)
