"""What the worker processes share: the tiny protocol on the streams, process accounting, and the command line.

A stream begins with eight bytes: how many bytes the client is going to send after them (which the server reads up to
the end) and how many it wants back, four bytes each.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import struct
import sys
import time
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

__all__ = [
    "ALPN",
    "CHUNK",
    "HEADER",
    "Cost",
    "Job",
    "parse_job",
    "print_result",
    "resident_kib",
    "settle",
    "write_certificate",
]

ALPN = "bench"
HEADER = struct.Struct(">II")
CHUNK = bytes(range(256)) * 1024
CPU_CLOCK_OF_PROCESS = 2
"""CPUCLOCK_SCHED: the CPU clock of another process is `(~pid << 3) | 2` on Linux."""


@attrs.frozen
class Job:
    """What a worker process is asked to do."""

    role: str
    task: str
    contender: str
    port: int
    certificate: Path
    key: Path
    server_pid: int
    size: int
    streams: int
    count: int
    concurrency: int
    datagram: int
    """UDP payload size in bytes; 0 is as shipped."""
    idle: int
    """Seconds that connections lie idle at the end, where the task has that."""


def parse_job() -> Job:
    """Read the command line of a worker and pin the process to its core."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("--task", default="")
    parser.add_argument("--contender", default="")
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--core", type=int, default=None)
    for name, default in (("port", 0), ("server-pid", 0), ("size", 0), ("streams", 1), ("count", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--concurrency", type=int, default=1)
    for name in ("datagram", "idle"):
        parser.add_argument(f"--{name}", type=int, default=0)
    arguments = vars(parser.parse_args())
    core = arguments.pop("core")
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
    return Job(**arguments)


def print_result(result: dict[str, float]) -> None:
    """Hand a result to the parent process."""
    print(json.dumps(result), flush=True)


def process_cpu_seconds(pid: int) -> float:
    """CPU time a process has used, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK_OF_PROCESS)


class Cost:
    """Wall time and CPU time of both processes between `__init__` and `stop`."""

    def __init__(self, job: Job) -> None:
        self._server_pid = job.server_pid
        gc.collect()
        self._server = process_cpu_seconds(job.server_pid)
        self._client = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Seconds since the start."""
        return {
            "wall": time.perf_counter() - self._wall,
            "client_cpu": time.process_time() - self._client,
            "server_cpu": process_cpu_seconds(self._server_pid) - self._server,
        }


def resident_kib(pid: int) -> float:
    """Memory a process has in use, its own pages only."""
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1024


def settle() -> None:
    """Let go of what is not needed, before memory is measured."""
    gc.collect()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed Ed25519 certificate; returns the files of certificate and key."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def serve_until_told(port: int) -> None:
    """Tell the parent our port; called once by a server that is ready."""
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


def wait_for_end() -> None:
    """Block until the parent closes our standard input."""
    sys.stdin.read()
