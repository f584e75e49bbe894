"""Real UDP sockets on loopback: what goes in comes out, and nothing the network does raises."""

from __future__ import annotations

import socket
import sys

import pytest
import trio
import trio.testing

from a2al_trio.errors import ConfigurationError
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import ReceiveBuffer
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.net.socket import UdpSocket, open_udp

LOOPBACK = [SocketAddress("127.0.0.1", 0), SocketAddress("::1", 0)]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="segmentation offload is tested on Linux")
pytestmark = pytest.mark.usefixtures("no_leaks")


def has_ipv6() -> bool:
    try:
        UdpSocket.bind(SocketAddress("::1", 0)).close()
    except ConfigurationError:
        return False
    return True


async def receive(sock: UdpSocket, datagrams: int) -> list[Received]:
    """Copies of what arrives until that many datagrams are there."""
    found: list[Received] = []
    while sum(1 for run in found for _ in run.datagrams()) < datagrams:
        for run in await sock.receive():
            run.data = memoryview(bytes(run.data))
            found.append(run)
    return found


def reach(sock: UdpSocket, host: str) -> SocketAddress:
    return SocketAddress(host, sock.local_address.port)


@pytest.mark.parametrize("address", LOOPBACK, ids=str)
async def test_a_run_arrives_whole_and_is_answered(address: SocketAddress) -> None:
    if address.is_ipv6 and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with open_udp(address) as one, open_udp(address) as two:
        data = bytes(range(256)) * 100 + b"tail"
        assert one.send_nowait(Transmit(data, 1200, two.local_address)) == len(data)
        runs = await receive(two, -(-len(data) // 1200))
        assert b"".join(run.data for run in runs) == data
        assert {run.source for run in runs} == {one.local_address}
        sizes = [len(datagram) for run in runs for datagram in run.datagrams()]
        assert sizes == [1200] * (len(data) // 1200) + [len(data) % 1200]
        two.send_nowait(Transmit(b"answer", 6, runs[0].source))
        [answer] = await receive(one, 1)
        assert (bytes(answer.data), answer.segment_size) == (b"answer", 6)


@on_linux
async def test_the_kernel_segments_and_coalesces() -> None:
    async with open_udp(LOOPBACK[0]) as one, open_udp(LOOPBACK[0]) as two:
        if not (one.features.segments and two.features.coalesces):
            pytest.skip("this kernel does not segment and coalesce UDP")
        one.send_nowait(Transmit(bytes(60_000), 1200, two.local_address))
        [run] = await two.receive()
        assert (len(run.data), run.segment_size) == (60_000, 1200)


@pytest.mark.parametrize("segments", [True, False])
async def test_long_runs_of_any_segment_size_arrive(segments: bool) -> None:
    async with open_udp(LOOPBACK[0]) as one, open_udp(LOOPBACK[0]) as two:
        one._segments = one._segments and segments
        for size, count in ((1, 200), (100, 150), (1452, 100), (40_000, 4)):
            data = bytes(i % 251 for i in range(size * count - size // 2))
            assert one.send_nowait(Transmit(data, size, two.local_address)) == len(data)
            runs = await receive(two, count)
            assert b"".join(run.data for run in runs) == data


async def test_one_socket_serves_both_families_and_unmaps_addresses() -> None:
    async with open_udp() as both, open_udp(LOOPBACK[0]) as four:
        four.send_nowait(Transmit(b"4", 1, reach(both, "127.0.0.1")))
        [run] = await receive(both, 1)
        assert run.source == four.local_address
        assert run.local_host in ("127.0.0.1", None)
        both.send_nowait(Transmit(b"back", 4, run.source))
        assert bytes((await receive(four, 1))[0].data) == b"back"
        if both.local_address.host == "::":
            async with open_udp(LOOPBACK[1]) as six:
                six.send_nowait(Transmit(b"6", 1, reach(both, "::1")))
                [run] = await receive(both, 1)
                assert (run.source, run.local_host) == (six.local_address, "::1")


@on_linux
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_ecn_and_the_source_address_are_carried(host: str) -> None:
    async with open_udp() as sender, open_udp() as receiver:
        if ":" in host and sender.local_address.host != "::":
            pytest.skip("this machine has no IPv6")
        source = "127.0.0.5" if host == "127.0.0.1" else "::1"
        for size in (3000, 1000):
            for ecn in (0, 1, 2, 3):
                transmit = Transmit(bytes(3000), size, reach(receiver, host), ecn=ecn, source_host=source)
                assert sender.send_nowait(transmit) == 3000
                runs = await receive(receiver, 3000 // size)
                assert {(run.ecn, run.local_host) for run in runs} == {(ecn, host)}
                assert {run.source.host for run in runs} == {source}


async def test_unreachable_and_oversized_datagrams_are_counted_not_raised() -> None:
    async with open_udp(LOOPBACK[0]) as sock:
        closed = UdpSocket.bind(LOOPBACK[0])
        closed.close()
        for _ in range(3):  # ICMP says that nobody listens
            assert sock.send_nowait(Transmit(b"x", 1, closed.local_address)) == 1
        assert sock.send_nowait(Transmit(bytes(70_000), 70_000, sock.local_address)) == 70_000
        assert sock.send_nowait(Transmit(bytes(250), 100, SocketAddress("::1", 9))) == 250
        assert (sock.stats.too_big, sock.stats.unreachable) == (1, 3)
        sock.send_nowait(Transmit(b"alive", 5, sock.local_address))
        assert bytes((await receive(sock, 1))[0].data) == b"alive"


async def test_a_full_socket_takes_whole_datagrams_and_tells_when_to_go_on() -> None:
    async with open_udp(LOOPBACK[0]) as sock:

        class Full:
            """The kernel's socket with no room in its buffer."""

            def sendmsg(self, *_: object) -> int:
                raise BlockingIOError

            sendto = sendmsg

        real, sock._sock = sock._sock, Full()  # type: ignore[assignment]
        assert sock.send_nowait(Transmit(bytes(5000), 1000, sock.local_address)) == 0
        assert sock.send_nowait(Transmit(bytes(5), 1000, sock.local_address)) == 0
        sock._sock = real
        assert sock.stats.full == 2
        await sock.wait_writable()
        assert sock.send_nowait(Transmit(bytes(5000), 1000, sock.local_address)) == 5000


async def test_a_device_that_cannot_segment_gets_single_datagrams() -> None:
    async with open_udp(LOOPBACK[0]) as one, open_udp(LOOPBACK[0]) as two:
        if not one.features.segments:
            pytest.skip("this system does not segment UDP")
        real = one._sock

        class NoOffload:
            """A kernel socket on a device without checksum offload."""

            def sendmsg(self, *_: object) -> int:
                raise OSError(5, "no offload")

            sendto = real.sendto

        one._sock = NoOffload()  # type: ignore[assignment]
        assert one.send_nowait(Transmit(bytes(5000), 1000, two.local_address)) == 5000
        one._sock = real
        assert len(await receive(two, 5)) > 1
        assert not one._segments


async def test_a_flood_is_read_in_bounded_batches() -> None:
    async with open_udp(LOOPBACK[0]) as one, open_udp(LOOPBACK[0]) as two:
        for number in range(300):
            one.send_nowait(Transmit(number.to_bytes(2, "big") * (1 + number % 2), 4, two.local_address))
        numbers: list[int] = []
        while len(numbers) < 300:
            batch = await two.receive()
            assert len(batch) <= 64
            numbers += [int.from_bytes(d[:2], "big") for run in batch for d in run.datagrams()]
        assert numbers == list(range(300))


async def test_closing_wakes_the_receiver() -> None:
    async with open_udp(LOOPBACK[0]) as sock, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await sock.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sock.receive()
        sock.close()
    for action in (sock.receive, sock.wait_writable):
        with pytest.raises(trio.ClosedResourceError):
            await action()
    with pytest.raises(trio.ClosedResourceError):
        sock.send_nowait(Transmit(b"x", 1, sock.local_address))


async def test_reading_continues_behind_what_the_buffer_holds() -> None:
    async with open_udp(LOOPBACK[0]) as one, open_udp(LOOPBACK[0]) as two:
        buffer = ReceiveBuffer()
        for text in (b"one", b"more"):
            one.send_nowait(Transmit(text, 4, two.local_address))
            await two.wait_readable()
            two.read_nowait(buffer)
        assert bytes(buffer.view[: buffer.used]) == b"onemore"


@pytest.mark.parametrize("host", ["::", "127.0.0.1"])
def test_a_port_in_use_names_the_fix(host: str) -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"{port}: another program has the port; stop it, or choose"):
            UdpSocket.bind(SocketAddress(host, port))


def test_a_foreign_address_names_the_fix() -> None:
    with pytest.raises(ConfigurationError, match="this machine has no address"):
        UdpSocket.bind(SocketAddress("192.0.2.1", 0))
