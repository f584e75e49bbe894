"""A whole host: how soon it takes the first caller, and what an idle one costs, beside the reference daemon.

The idle processes run in network namespaces without a way out, which needs root; without root, or without the daemon,
their figures are left out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from a2al_trio.host import HostConfig, open_host
from a2al_trio.identity import Identity
from a2al_trio.identity.files import load_or_create_identity
from benchmarks.framework import OURS, Benchmark, Figures, Measurement

__all__ = ["BENCHMARK"]

REFERENCE = "a2ald"
SETTLE = 8.0
"""Seconds after the start that are not counted."""
WATCHED = 20.0
ADDRESS = "20.0.1.1"
ROOT = Path(__file__).parent.parent


def measure() -> Measurement:
    """One round of all: our first caller, then the idle processes."""
    found: dict[str, Figures] = {OURS: trio.run(_first_caller)}
    with tempfile.TemporaryDirectory() as folder, _idle_processes(Path(folder)) as processes:
        time.sleep(SETTLE)
        before = {name: _cpu_seconds(process) for name, process in processes.items()}
        time.sleep(WATCHED)
        for name, process in processes.items():
            used = _cpu_seconds(process) - before[name]
            idle = {"idle_percent_cpu": 100 * used / WATCHED, "idle_resident_kib": _resident_kib(process)}
            found[name] = {**found.get(name, {}), **idle}
    return found


async def _first_caller() -> dict[str, float]:
    config = HostConfig(listen="127.0.0.1:0")
    async with open_host(Identity.generate(os.urandom), config) as caller:
        who = Identity.generate(os.urandom)
        began = time.perf_counter()
        async with open_host(who, config) as host:
            opened = time.perf_counter()
            async with caller.connect(who.address, at=host.quic_address):
                await host.accept()
                accepted = time.perf_counter()
    return {"open_ms": 1000 * (opened - began), "open_to_first_caller_ms": 1000 * (accepted - began)}


@contextmanager
def _idle_processes(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Both kinds of node, each alone in a network of its own."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    if os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"):
        key = folder / "node.key"
        load_or_create_identity(key)
        options = ["--key", str(key), "--listen", f"{ADDRESS}:4121"]
        processes[OURS] = _start([sys.executable, "-m", "a2al_trio", "node", *options])
        if (binary := _reference_binary()) is not None:
            data = folder / "data"
            data.mkdir()
            (data / "config.toml").write_text(
                f'listen_addr = "{ADDRESS}:4121"\napi_addr = "127.0.0.1:2121"\ndisable_upnp = true\n'
                f'bootstrap = []\nice_stun_urls = ["stun:20.255.0.1:3478"]\n'
            )
            processes[REFERENCE] = _start([str(binary), "--data-dir", str(data), "-no-open-browser"])
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    network = f'ip link set lo up && ip addr add {ADDRESS}/32 dev lo && exec "$@"'
    return subprocess.Popen(
        ["unshare", "--net", "sh", "-c", network, "sh", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _reference_binary() -> Path | None:
    spec = importlib.util.find_spec("a2al")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "a2ald"
    return binary if binary.is_file() else None


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    assert process.poll() is None, f"{process.args!r} ended"
    threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _resident_kib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


BENCHMARK = Benchmark("host", "a host's first caller; CPU and memory of an idle one", measure, rounds=3)
