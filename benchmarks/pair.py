"""Runs a contender's server and client as two processes on two cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.framework import OURS
from benchmarks.workers.common import write_certificate

__all__ = ["available_peers", "run_pair"]

MODULES = {
    OURS: "benchmarks.workers.ours",
    "aioquic": "benchmarks.workers.asyncio_peer",
    "qh3": "benchmarks.workers.asyncio_peer",
}
SERVER_CORE, CLIENT_CORE = 0, 1
ROOT = Path(__file__).parent.parent


def available_peers() -> list[str]:
    """The peers that are installed here."""
    found = []
    for peer in ("aioquic", "qh3"):
        try:
            __import__(peer)
        except ImportError:
            continue
        found.append(peer)
    return found


def run_pair(contender: str, task: str, *, modules: Mapping[str, str] = MODULES, **settings: int) -> dict[str, float]:
    """Run one task between a fresh server and a fresh client of `modules`; returns what the client measured."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = write_certificate(Path(folder))
        command = [sys.executable, "-m", modules[contender]]
        shared = ["--contender", contender, "--certificate", str(certificate), "--key", str(key)]
        for name, value in settings.items():
            shared += [f"--{name}", str(value)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [*command, "server", *shared, "--core", str(SERVER_CORE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as server:
            assert server.stdout is not None
            try:
                ready = json.loads(server.stdout.readline())
                server_is = ["--port", str(ready["port"]), "--server-pid", str(ready["pid"])]
                client = subprocess.run(
                    [*command, "client", "--task", task, *shared, "--core", str(CLIENT_CORE), *server_is],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    timeout=300,
                    env=environment,
                )
            finally:
                server.terminate()
        result: dict[str, float] = json.loads(client.stdout.splitlines()[-1])
        return result
