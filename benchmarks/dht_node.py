"""How many requests one DHT node answers on one core, over a real UDP socket, beside the reference daemon.

Both run in the same network namespace, one after the other, pinned to the first core; the client is pinned to another.
Both know the same sixteen neighbours, so answers are of full size, and hold the same record. Without root or the
reference daemon only our own node is measured, on loopback.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from a2al_trio.dht import open_dht
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.wire.bodies import Body, FindNode, FindValue, Ping, Store
from a2al_trio.wire.messages import encode_message
from benchmarks.dht_swarm import START, endpoint_record
from benchmarks.framework import OURS, Benchmark, Figures, Measurement
from tests.interop.private_network import private_network, why_not

__all__ = ["BENCHMARK"]

REFERENCE = "a2ald"
SERVER = SocketAddress("20.0.1.1", 4121)
CLIENT = "20.1.1.1"
NEIGHBOURS = [f"20.2.{number}.1" for number in range(1, 17)]
SECONDS = 1.5
WINDOW = 48
MESSAGES = 3000
RECORDS = 3000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def reference_binary() -> Path | None:
    """The reference daemon of the installed wheel, if there is one for this platform."""
    spec = importlib.util.find_spec("a2al")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "a2ald"
    return binary if binary.is_file() else None


def measure() -> Measurement:
    """One round of both, or of ours alone."""
    binary = None if why_not() else reference_binary()
    if binary is None:
        with our_node(SocketAddress("127.0.0.1", 4121)) as process:
            return {OURS: figures_of(process, SocketAddress("127.0.0.1", 4121), "127.0.0.1", ["127.0.0.1"] * 16)}
    with private_network(SERVER.host, CLIENT, *NEIGHBOURS), tempfile.TemporaryDirectory() as directory:
        with our_node(SERVER) as process:
            ours = figures_of(process, SERVER, CLIENT, NEIGHBOURS)
        with reference_node(binary, Path(directory)) as process:
            reference = figures_of(process, SERVER, CLIENT, NEIGHBOURS)
    # Go keeps memory in hand, so what a record takes there does not show from outside.
    visible = {name: value for name, value in reference.items() if name != "record_bytes"}
    return {OURS: ours, REFERENCE: visible}


def pin(core: int) -> None:
    """Stay on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[min(core, len(cores) - 1)]})


@contextlib.contextmanager
def our_node(address: SocketAddress) -> Iterator[subprocess.Popen[bytes]]:
    """A node of ours in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.workers.dht_node", address.host, str(address.port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=lambda: pin(0))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.communicate()


@contextlib.contextmanager
def reference_node(binary: Path, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A reference daemon, alone in its network."""
    settings = (
        f'listen_addr = "{SERVER}"\napi_addr = "127.0.0.1:2121"\nlog_level = "error"\ndisable_upnp = true\n'
        'bootstrap = ["20.9.9.9:4121"]\nice_stun_urls = ["stun:20.255.0.1:3478"]\n'
    )
    (directory / "config.toml").write_text(settings)
    process = subprocess.Popen(
        [str(binary), "--data-dir", str(directory), "-no-open-browser"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        preexec_fn=lambda: pin(0),
    )
    try:
        with client_socket(CLIENT) as sock:
            answers_ping(sock, SERVER)
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def client_socket(host: str) -> Iterator[socket.socket]:
    """A non-blocking socket bound to a host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        yield sock


def answers_ping(sock: socket.socket, server: SocketAddress) -> None:
    """Wait until the server answers."""
    asker = Identity.generate(os.urandom)
    for _ in range(200):
        sock.sendto(encode_message(Ping(asker.address), os.urandom(20), asker), server)
        if select.select([sock], [], [], 0.1)[0]:
            sock.recv(2048)
            return
    raise RuntimeError(f"nobody answers at {server}")


def figures_of(process: subprocess.Popen[bytes], server: SocketAddress, client: str, neighbours: list[str]) -> Figures:
    """Fill the node, then measure each kind of request, then memory."""
    trio.run(introduce, server, neighbours)
    asker = Identity.generate(os.urandom)
    agent = Identity.generate(os.urandom)
    record = endpoint_record(agent, time.time() - START, SocketAddress(client, 4121))
    figures: dict[str, float] = {}
    affinity = os.sched_getaffinity(0)
    pin(1)
    try:
        with client_socket(client) as sock:
            sock.sendto(encode_message(Store(record), os.urandom(20), asker), server)
            answers_ping(sock, server)
            kinds: dict[str, Body] = {
                "ping": Ping(asker.address),
                "find_node": FindNode(agent.node_id),
                "find_value": FindValue(agent.node_id, 1),
            }
            for name, body in kinds.items():
                messages = [encode_message(body, os.urandom(20), asker) for _ in range(MESSAGES)]
                rate, cpu = flood(sock, server, messages, process.pid)
                figures[f"{name}_per_s"] = rate
                figures[f"{name}_cpu_us"] = cpu
            figures["record_bytes"] = store_many(sock, server, process.pid)
            figures["resident_kib"] = resident_bytes(process.pid) / 1024
    finally:
        os.sched_setaffinity(0, affinity)
    return figures


async def introduce(server: SocketAddress, neighbours: list[str]) -> None:
    """Make neighbours known to the server: nodes of ours that join through it and leave again."""
    async with contextlib.AsyncExitStack() as stack:
        for host in neighbours:
            sock = await stack.enter_async_context(open_udp(SocketAddress(host, 0)))
            identity = Identity.generate(os.urandom)
            dht = await stack.enter_async_context(open_dht(sock, identity, bootstrap=[server]))
            await dht.bootstrapped()
        await trio.sleep(1.0)


def flood(sock: socket.socket, server: SocketAddress, messages: list[bytes], pid: int) -> tuple[float, float]:
    """Keep a window of requests in flight; answers per second and CPU microseconds per answer."""
    target = (server.host, server.port)
    answered = sent = 0
    in_flight = 0
    cpu = cpu_seconds(pid)
    began = time.perf_counter()
    ends = began + SECONDS
    while (now := time.perf_counter()) < ends:
        while in_flight < WINDOW:
            sock.sendto(messages[sent % len(messages)], target)
            sent += 1
            in_flight += 1
        if not select.select([sock], [], [], 0.2)[0]:
            in_flight = 0  # lost somewhere: begin again
            continue
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.recv(2048)
                answered += 1
                in_flight = max(0, in_flight - 1)
    elapsed = now - began
    return answered / elapsed, (cpu_seconds(pid) - cpu) / max(answered, 1) * 1e6


def store_many(sock: socket.socket, server: SocketAddress, pid: int) -> float:
    """Resident bytes the server grows by per record stored."""
    asker = Identity.generate(os.urandom)
    before = resident_bytes(pid)
    at = SocketAddress(*sock.getsockname())
    for _ in range(RECORDS):
        record = endpoint_record(Identity.generate(os.urandom), time.time() - START, at)
        sock.sendto(encode_message(Store(record), os.urandom(20), asker), (server.host, server.port))
        if select.select([sock], [], [], 0.5)[0]:
            sock.recv(2048)
    return (resident_bytes(pid) - before) / RECORDS


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


BENCHMARK = Benchmark("dht_node", "requests one DHT node answers on one core over UDP", measure, rounds=3)
