"""Windows and macOS, as far as they can be played here: without what they lack, everything imports and agents meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PLAY = """
import builtins, os, socket, sys

# Others' code knows where it really runs.
import asyncio, importlib.metadata, logging.config, ssl, tempfile
import click, cryptography.hazmat.primitives.asymmetric.ed25519, cryptography.x509, httpx, hypercorn.trio, ifaddr
import rich.console, rich.progress, trio, trio.testing, trio_websocket, pylsqpack

PLATFORM = sys.argv[1]
POSIX = {"fcntl", "grp", "pwd", "resource", "termios"}
ONLY_LINUX = ["AF_NETLINK", "AF_PACKET", "NETLINK_ROUTE", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "UDP_GRO", "UDP_SEGMENT"]
ONLY_POSIX = ["CMSG_LEN", "CMSG_SPACE", "IPV6_PKTINFO", "IP_RECVTOS", "MSG_DONTWAIT", "SCM_RIGHTS"]
real_import = builtins.__import__


def absent(self):
    raise AttributeError


def guarded(name, globals=None, *rest, **named):
    if PLATFORM == "win32" and name in POSIX and (globals or {}).get("__name__", "").startswith("a2al_trio"):
        raise ImportError(name)
    return real_import(name, globals, *rest, **named)


builtins.__import__ = guarded
for name in ONLY_LINUX + (ONLY_POSIX if PLATFORM == "win32" else []):
    if hasattr(socket, name):
        delattr(socket, name)
for name in ("sched_getaffinity",):
    delattr(os, name)
if PLATFORM == "win32":
    for name in ("fork", "geteuid", "getuid", "mkfifo", "uname"):
        delattr(os, name)
    for name in ("recvmsg", "recvmsg_into", "sendmsg", "sendmsg_afalg"):
        setattr(socket.socket, name, property(absent))
    socket.SO_EXCLUSIVEADDRUSE = socket.SO_KEEPALIVE
sys.platform = PLATFORM

import importlib, pkgutil
import a2al_trio
for module in pkgutil.walk_packages(a2al_trio.__path__, "a2al_trio."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from a2al_trio.cli.commands import commands
commands(["demo", "--nodes", "3"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the other tests show it")
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_everything_imports_and_agents_meet(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAY, platform], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "echoed     hello from the other side" in done.stdout
