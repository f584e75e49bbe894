"""The UDP socket alone: what sending and receiving one datagram costs, by how many share a call, and a wake-up.

The peer is `trio.socket`, which has no runs: one datagram a call.
"""

from __future__ import annotations

import time

import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import ReceiveBuffer
from a2al_trio.net.datagram import Transmit
from a2al_trio.net.mux import MuxPlane, open_mux
from a2al_trio.net.socket import UdpSocket, open_udp
from benchmarks.framework import OURS, Benchmark, Measurement

__all__ = ["BENCHMARK"]

SIZE = 1200
RUNS = (1, 10, 40)
ROUNDS = 200
DATAGRAMS = 40  # in flight at a time
PINGS = 1000
LOOPBACK = SocketAddress("127.0.0.1", 0)
FIXED_BIT = b"\x40"  # so that the mux takes it for QUIC


def measure() -> Measurement:
    """One round: our socket, our mux's QUIC plane, and Trio's socket."""
    ours = trio.run(_our_socket)
    ours["muxed_ping_pong_us"] = trio.run(_our_mux)
    return {OURS: ours, "trio.socket": trio.run(_trio_socket)}


async def _our_socket() -> dict[str, float]:
    figures: dict[str, float] = {}
    async with open_udp(LOOPBACK) as one, open_udp(LOOPBACK) as two:
        for run in RUNS:
            send, receive = await _runs(one, two, run)
            figures[f"send_{run}_together_us"] = send
            figures[f"receive_{run}_together_us"] = receive
        figures["ping_pong_us"] = await _ping_pong(one, two)
    return figures


async def _runs(one: UdpSocket, two: UdpSocket, run: int) -> tuple[float, float]:
    transmit = Transmit(FIXED_BIT * (SIZE * run), SIZE, two.local_address, ecn=2)
    buffer = ReceiveBuffer()
    sending = receiving = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(DATAGRAMS // run):
            one.send_nowait(transmit)
        sending += time.perf_counter() - began
        left = DATAGRAMS * SIZE
        while left:
            await two.wait_readable()
            buffer.used = 0
            began = time.perf_counter()
            batch = two.read_nowait(buffer)
            receiving += time.perf_counter() - began
            left -= sum(len(received.data) for received in batch)
    scale = 1e6 / (ROUNDS * DATAGRAMS)
    return sending * scale, receiving * scale


async def _our_mux() -> float:
    async with open_mux(LOOPBACK) as one, open_mux(LOOPBACK) as two:
        return await _ping_pong(one.quic, two.quic)


async def _ping_pong(one: UdpSocket | MuxPlane, two: UdpSocket | MuxPlane) -> float:
    ping = Transmit(FIXED_BIT * 100, 100, two.local_address)

    async def echo() -> None:
        while True:
            for received in await two.receive():
                two.send_nowait(Transmit(received.data, received.segment_size, received.source))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        began = time.perf_counter()
        for _ in range(PINGS):
            one.send_nowait(ping)
            await one.receive()
        elapsed = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return elapsed / PINGS * 1e6


async def _trio_socket() -> dict[str, float]:
    one, two = (trio.socket.socket(type=trio.socket.SOCK_DGRAM) for _ in range(2))
    with one, two:
        for sock in (one, two):
            await sock.bind(("127.0.0.1", 0))
        to, data = two.getsockname(), FIXED_BIT * SIZE
        sending = receiving = 0.0
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(DATAGRAMS):
                await one.sendto(data, to)
            middle = time.perf_counter()
            for _ in range(DATAGRAMS):
                await two.recvfrom(2048)
            sending += middle - began
            receiving += time.perf_counter() - middle

        async def echo() -> None:
            while True:
                text, source = await two.recvfrom(2048)
                await two.sendto(text, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            began = time.perf_counter()
            for _ in range(PINGS):
                await one.sendto(data[:100], to)
                await one.recvfrom(2048)
            ping_pong = (time.perf_counter() - began) / PINGS * 1e6
            nursery.cancel_scope.cancel()
    scale = 1e6 / (ROUNDS * DATAGRAMS)
    return {
        "send_1_together_us": sending * scale,
        "receive_1_together_us": receiving * scale,
        "ping_pong_us": ping_pong,
    }


BENCHMARK = Benchmark("udp_socket", "microseconds per datagram of the UDP socket alone", measure)
