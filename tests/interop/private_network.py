"""A network of our own: the calling thread moves to a fresh network namespace with no way out.

The namespace has no name and nothing but a loopback device that carries the given addresses, so packets between
them never leave it, everything else is unreachable, and the kernel takes it back when the last process is gone.
Programs started from the thread live in it too.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["assert_no_way_out", "private_network", "why_not"]

CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """The reason why this machine cannot do it; empty if it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return ""


@contextmanager
def private_network(*hosts: str) -> Iterator[None]:
    """Be in a network of its own where `hosts` are local addresses, until the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(libc.unshare(CLONE_NEWNET), "unshare")
        try:
            _ip("link", "set", "lo", "up")
            for host in hosts:
                _ip("addr", "add", f"{host}/{128 if ':' in host else 32}", "dev", "lo")
            yield
        finally:
            _check(libc.setns(home, CLONE_NEWNET), "setns")
    finally:
        os.close(home)


def assert_no_way_out() -> None:
    """Fail unless the calling thread is in a network without a route to anywhere."""
    routes = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
    assert not routes, f"this network has routes: {routes}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")
