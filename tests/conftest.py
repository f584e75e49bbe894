"""How tests run: async ones under Trio, on a virtual clock where asked, leaking nothing and sending nothing out."""

from __future__ import annotations

import functools
import gc
import inspect
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

# Drawn examples differ from run to run, but not in CI: there a failure is one of the change, not of the day.
settings.register_profile(
    "suite",
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", metavar="DIR", default=None, help="run the golden cases of DIR instead")


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Virtual time that jumps ahead whenever every task waits; never mix it with kernel sockets."""
    return trio.testing.MockClock(autojump_threshold=0)


def _in_trio(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        clock = next((v for v in arguments.values() if isinstance(v, trio.testing.MockClock)), None)
        trio.run(functools.partial(function, **arguments), clock=clock)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    function = pyfuncitem.obj
    if hasattr(function, "hypothesis"):
        inner = function.hypothesis.inner_test
        if inspect.iscoroutinefunction(inner):
            function.hypothesis.inner_test = _in_trio(inner)
    elif inspect.iscoroutinefunction(function):
        pyfuncitem.obj = _in_trio(function)


# --- nothing leaves the machine ------------------------------------------------------------------------------

_strays: list[str] = []
_lab_networks_allowed = False


def _is_stray(address: object) -> bool:
    if not isinstance(address, tuple) or len(address) < 2 or not isinstance(address[0], str):
        return False  # unix, netlink and the like
    try:
        ip = ipaddress.ip_address(address[0].partition("%")[0] or "0.0.0.0")
    except ValueError:
        return address[0] != "localhost"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return not (ip.is_loopback or ip.is_unspecified)


SIOCGSKNS = 0x894C  # linux/sockios.h: a descriptor of the network namespace a socket is in
OUTSIDE = os.stat("/proc/self/ns/net").st_ino if sys.platform == "linux" else 0


def _is_in_a_lab(sock: socket.socket) -> bool:
    """Whether a socket is in a network namespace other than the machine's own."""
    import fcntl

    if os.geteuid() != 0:
        return False  # nor could it have made a namespace
    namespace = fcntl.ioctl(sock.fileno(), SIOCGSKNS)
    try:
        return os.fstat(namespace).st_ino != OUTSIDE
    finally:
        os.close(namespace)


def _watch_sockets(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("socket.sendto", "socket.sendmsg", "socket.connect"):
        return
    sock, address = arguments[0], arguments[1]
    if event == "socket.connect" and sock.type == socket.SOCK_DGRAM:
        return  # only asks the kernel for a route; nothing is sent
    if address is not None and _is_stray(address) and not (_lab_networks_allowed and _is_in_a_lab(sock)):
        _strays.append(f"{event} to {address}")
        raise PermissionError(f"tests must stay on loopback: {event} to {address}")


sys.addaudithook(_watch_sockets)


@pytest.fixture(autouse=True)
def _off_loopback_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail any test that sends off loopback; lab tests (`interop`) may send in network namespaces of their own only."""
    global _lab_networks_allowed
    _lab_networks_allowed = request.node.get_closest_marker("interop") is not None
    _strays.clear()
    yield
    _lab_networks_allowed = False
    assert not _strays, f"left loopback: {_strays}"


def _open_sockets() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves a socket open."""
    before = _open_sockets()
    yield
    gc.collect()
    assert not _open_sockets() - before, "the test left sockets open"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where `A2AL_TRIO_REQUIRE_INTEROP` is set, a lab test that skips has failed: its peer should be there."""
    report = yield
    if report.skipped and item.get_closest_marker("interop") and os.environ.get("A2AL_TRIO_REQUIRE_INTEROP"):
        report.outcome = "failed"
        report.longrepr = f"must not skip here: {report.longrepr}"
    return report
