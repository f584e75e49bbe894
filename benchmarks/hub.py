"""A signaling hub with thousands of registered callees, and hundreds of calls through it at once."""

from __future__ import annotations

import base64
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import attrs
import trio

from a2al_trio.signaling import Frame, FrameType, decode_frame, encode_frame
from benchmarks.framework import OURS, Benchmark, Figures, Measurement

__all__ = ["BENCHMARK", "CALLEES", "CALLS", "run_load"]

CALLEES = 5_000
CALLS = 200
FRAMES = 10
DIALS_AT_ONCE = 50
KEY = base64.b64encode(bytes(16)).decode()


@attrs.define(eq=False)
class RawSocket:
    """The least that speaks WebSocket, so that the clients weigh next to nothing."""

    stream: trio.SocketStream
    buffer: bytes = b""

    @classmethod
    async def open(cls, port: int, resource_path: str) -> RawSocket:
        socket = cls(await trio.open_tcp_stream("127.0.0.1", port))
        await socket.stream.send_all(
            f"GET {resource_path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in socket.buffer:
            socket.buffer += await socket.stream.receive_some()
        head, _, socket.buffer = socket.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return socket

    async def send(self, frame: Frame) -> None:
        payload = encode_frame(frame)  # short, and masked with zeros
        head = (
            bytes([0x82, 0x80 | len(payload)]) if len(payload) < 126 else b"\x82\xfe" + len(payload).to_bytes(2, "big")
        )
        await self.stream.send_all(head + bytes(4) + payload)

    async def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError("the hub closed the connection")
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def receive(self) -> Frame:
        head = await self._take(2)
        size = head[1] if head[1] < 126 else int.from_bytes(await self._take(2), "big")
        return decode_frame(await self._take(size))


async def run_load(port: int, *, callees: int, calls: int) -> dict[str, float]:
    """Register, then call; seconds of the registrations, and milliseconds of the calls until the last frame."""
    limit = trio.CapacityLimiter(DIALS_AT_ONCE)
    sockets: list[RawSocket] = []

    async def register(number: int) -> None:
        async with limit:
            socket = await RawSocket.open(port, "/signal")
            await socket.send(Frame(type=FrameType.REGISTER, agent=f"agent{number}"))
            assert (await socket.receive()).type == FrameType.ACKNOWLEDGE
            sockets.append(socket)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(callees):
            nursery.start_soon(register, number)
    figures = {"registered": float(len(sockets)), "register_s": time.perf_counter() - start}
    rings: dict[str, trio.Event] = {}

    async def listen(socket: RawSocket) -> None:
        while True:
            frame = await socket.receive()
            if frame.type == FrameType.INCOMING:
                rings[frame.room].set()

    latencies: list[float] = []

    async def talk(socket: RawSocket) -> None:
        for _ in range(FRAMES):
            await socket.send(Frame(type=FrameType.CANDIDATE, candidate="1 1 udp 2130706431 192.0.2.1 1000 typ host"))
        for _ in range(FRAMES):
            await socket.receive()

    async def call(number: int) -> None:
        room = f"room{number}"
        ring = rings[room] = trio.Event()
        begun = time.perf_counter()
        caller = await RawSocket.open(port, f"/ice?room={room}&caller=caller{number}&target=agent{number}")
        await ring.wait()
        callee = await RawSocket.open(port, f"/ice?room={room}&callee=agent{number}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, caller)
            nursery.start_soon(talk, callee)
        latencies.append(1000 * (time.perf_counter() - begun))
        open_calls.append((caller, callee))

    open_calls: list[tuple[RawSocket, RawSocket]] = []
    async with trio.open_nursery() as listeners:
        for socket in sockets:
            listeners.start_soon(listen, socket)
        async with trio.open_nursery() as nursery:
            for number in range(calls):
                nursery.start_soon(call, number)
        listeners.cancel_scope.cancel()
    for socket in [*sockets, *(end for ends in open_calls for end in ends)]:
        await trio.aclose_forcefully(socket.stream)
    figures |= {"calls": float(len(latencies)), "call_median_ms": statistics.median(latencies)}
    return figures | {"call_slowest_ms": max(latencies)}


def measure() -> Measurement:
    """One hub process with everything on it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CALLEES + 2 * CALLS + 200
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    command = [sys.executable, "-m", "benchmarks.workers.hub_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())

        async def load() -> tuple[dict[str, float], Figures]:
            figures = await run_load(port, callees=CALLEES, calls=CALLS)
            return figures, account(process.pid)

        figures, cost = trio.run(load)
        process.stdin.close()
    return {OURS: {**figures, **cost}}


def account(pid: int) -> dict[str, float]:
    """Peak memory and processor time of a process so far."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return {
        "hub_memory_kib": float(status[status.index("VmHWM:") + 1]),
        "hub_cpu_s": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    }


BENCHMARK = Benchmark(
    "hub", f"{CALLEES} registered callees and {CALLS} calls at once through one hub", measure, rounds=1
)
