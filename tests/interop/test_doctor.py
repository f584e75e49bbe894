"""The doctor behind real NATs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.interop.nat_lab import NatLab, load_nat_lab

pytestmark = pytest.mark.interop

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
            command = [sys.executable, "-m", "a2al_trio", "doctor", "--json", *stun]
            output = lab.run("inside", command, check=True, timeout=60, stdout=subprocess.PIPE).stdout
        finally:
            for server in servers:
                server.kill()
                server.wait()
    data: dict[str, Any] = json.loads(output)
    (verdict,) = [verdict for verdict in data["verdicts"] if verdict["subject"] == subject]
    assert text in verdict["text"]
