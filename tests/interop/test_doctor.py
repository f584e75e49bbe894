"""The doctor behind real NATs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.interop.nat_lab import NatLab, load_nat_lab

pytestmark = pytest.mark.interop

COMMAND = [sys.executable, "-m", "a2al_trio"]
OpenNatLab = Callable[..., AbstractContextManager[NatLab]]


@pytest.mark.parametrize(
    ("kind", "subject", "text"),
    [
        ("open", "IPv4", "public and ours"),
        ("full_cone", "NAT", "keeps one port"),
        ("port_restricted", "NAT", "keeps one port"),
        ("symmetric", "NAT", "symmetric"),
        ("udp_blocked", "UDP", "nothing comes back"),
    ],
)
def test_it_tells_the_kind_of_network(open_nat_lab: OpenNatLab, kind: str, subject: str, text: str) -> None:
    with open_nat_lab(one="open", two="open", inside=kind) as lab:
        servers = []
        try:
            for name in ("one", "two"):
                argv = [sys.executable, load_nat_lab().__file__, "stun", "3478"]
                servers.append(lab.popen(name, argv, stdout=subprocess.DEVNULL))
            stun = [f"--stun={lab.address(name)}:3478" for name in ("one", "two")]
            command = [*COMMAND, "doctor", "--json", *stun]
            output = lab.run("inside", command, check=True, timeout=60, stdout=subprocess.PIPE).stdout
        finally:
            for server in servers:
                server.kill()
                server.wait()
    data: dict[str, Any] = json.loads(output)
    (verdict,) = [verdict for verdict in data["verdicts"] if verdict["subject"] == subject]
    assert text in verdict["text"]


@pytest.mark.parametrize(
    ("kind", "strangers"), [("full_cone", "get through to us"), ("port_restricted", "until we have sent to them")]
)
def test_nodes_of_the_network_test_whether_strangers_get_in(
    open_nat_lab: OpenNatLab, tmp_path: Path, kind: str, strangers: str
) -> None:
    with open_nat_lab(one="open", two="open", inside=kind) as lab:
        nodes: list[subprocess.Popen[str]] = []
        try:
            for name in ("one", "two"):
                key = str(tmp_path / name)
                subprocess.run([*COMMAND, "id", "--create", "--key", key], check=True, stdout=subprocess.DEVNULL)
                node = [*COMMAND, "node", "--key", key, "--listen", f"{lab.address(name)}:4121"]
                join = ["--bootstrap", f"{lab.address('one')}:4121"] if nodes else []
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
                nodes.append(lab.popen(name, [*node, *join], **pipes))
                said = nodes[-1].stdout
                assert said is not None
                assert said.readline(), "it says its AID once it listens"
            doctor = [*COMMAND, "doctor", "--json", f"--bootstrap={lab.address('one')}:4121"]
            output = lab.run("inside", doctor, check=True, timeout=60, stdout=subprocess.PIPE).stdout
        finally:
            for node_process in nodes:
                with node_process:
                    node_process.kill()
    data: dict[str, Any] = json.loads(output)
    assert data["findings"]["peers"] == 2
    assert data["findings"]["observed"].startswith(lab.public_address("inside"))
    (verdict,) = [verdict for verdict in data["verdicts"] if verdict["subject"] == "Strangers"]
    assert strangers in verdict["text"]
