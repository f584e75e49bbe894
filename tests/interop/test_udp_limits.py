"""The UDP socket on a link with a limit: datagrams over the MTU are never fragmented, only counted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit
from a2al_trio.net.socket import UdpSocket, open_udp
from tests.interop.private_network import private_network, why_not

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks", "ethernet")]

HOST = "20.1.1.1"


@pytest.fixture
def ethernet() -> Iterator[None]:
    """A network whose loopback takes packets of 1,500 bytes."""
    if reason := why_not():
        pytest.skip(reason)
    with private_network(HOST, "2a01::1"):
        subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
        yield


async def arrived(sock: UdpSocket, count: int) -> list[int]:
    sizes: list[int] = []
    while len(sizes) < count:
        sizes += [len(datagram) for run in await sock.receive() for datagram in run.datagrams()]
    return sizes


@pytest.mark.parametrize(("host", "largest"), [(HOST, 1472), ("2a01::1", 1452)])
async def test_what_does_not_fit_is_counted_and_the_rest_goes_on(host: str, largest: int) -> None:
    async with open_udp() as one, open_udp() as two:
        to = SocketAddress(host, two.local_address.port)
        for size in (largest, largest + 1):
            assert one.send_nowait(Transmit(bytes(size), size, to)) == size
            assert one.send_nowait(Transmit(bytes(3 * size), size, to)) == 3 * size
        assert one.send_nowait(Transmit(bytes(100), 100, to)) == 100
        assert await arrived(two, 5) == [largest] * 4 + [100]
        assert (one.stats.too_big, one.stats.unreachable) == (4, 0)


async def test_without_a_route_datagrams_are_counted() -> None:
    async with open_udp() as sock:
        for host in ("192.0.2.1", "2a02::1"):
            assert sock.send_nowait(Transmit(bytes(2400), 1200, SocketAddress(host, 9))) == 2400
        assert sock.stats.unreachable == 4
