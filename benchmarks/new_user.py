"""A new user's path: from a checkout and an empty virtual environment to the first answer of another agent.

It types what the README and the tutorial say, on loopback. What `pip` downloads is fetched beforehand and counted
apart, since that measures the way to the package index and not us.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.framework import OURS, Benchmark, Measurement

__all__ = ["BENCHMARK"]

ROOT = Path(__file__).parent.parent
GREETING = "hello"
PATH = (
    "python3 -m venv .venv && . .venv/bin/activate",
    "pip install CHECKOUT",
    "a2al-trio serve --listen 127.0.0.1:0 --advertise 127.0.0.1",
    f"echo {GREETING} | a2al-trio connect AID --bootstrap IP:PORT",
)
"""What the user types; the third runs in a terminal of its own."""
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def measure() -> Measurement:
    """Walk the path once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels, programs = folder / "wheels", folder / ".venv" / ("Scripts" if os.name == "nt" else "bin")
        began = time.perf_counter()
        _run([sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels), str(ROOT), "hatchling"])
        downloaded, cpu = time.perf_counter(), _cpu_seconds()
        _run([sys.executable, "-m", "venv", str(folder / ".venv")])
        pip = [str(programs / "python"), "-m", "pip"]
        _run([*pip, "install", "-q", str(ROOT)], {**OFFLINE, "PIP_FIND_LINKS": str(wheels)})
        installed = time.perf_counter()
        _call_another_agent(programs / "a2al-trio", folder)
        answered = time.perf_counter()
    return {
        OURS: {
            "download_s": downloaded - began,
            "install_s": installed - downloaded,
            "first_request_s": answered - installed,
            "whole_path_s": answered - downloaded,
            "whole_path_cpu_s": _cpu_seconds() - cpu,
        }
    }


def _call_another_agent(program: Path, folder: Path) -> None:
    """Two users of this machine: one serves, the other calls."""
    homes = [{"HOME": str(folder / user), "XDG_CONFIG_HOME": str(folder / user)} for user in ("alice", "bob")]
    serve = [str(program), "serve", "--json", "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1"]
    environment = {**os.environ, **homes[0]}
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as server:
        try:
            assert server.stdout is not None
            facts = json.loads(server.stdout.readline())
            connect = [str(program), "connect", facts["aid"], "--bootstrap", facts["listen"]]
            answer = _run(connect, homes[1], said=f"{GREETING}\n")
            if answer != f"{GREETING}\n":
                raise RuntimeError(f"the other agent answered {answer!r}")
        finally:
            server.terminate()


def _run(command: list[str], more: Mapping[str, str] | None = None, *, said: str = "") -> str:
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, env=environment, input=said, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _cpu_seconds() -> float:
    """Of all processes we waited for: on a busy machine it tells more than the clock."""
    spent = os.times()
    return spent.children_user + spent.children_system


def notes() -> Mapping[str, object]:
    """What is typed."""
    return {"commands": len(PATH), "typed": PATH}


BENCHMARK = Benchmark(
    "new_user", "from a checkout to the first request between two agents", measure, rounds=1, notes=notes
)
