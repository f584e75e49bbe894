"""Noticing that the machine has moved to another network (spec 05 §8).

Linux tells of changes through a netlink socket (rtnetlink, RFC 3549); elsewhere the addresses are looked at every
10 s. Either way a change counts only once it has lasted.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import trio
import trio.lowlevel

from a2al_trio.nat.changes import ChangeDetector
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.interfaces import local_addresses, source_address
from a2al_trio.scopes import open_service_nursery

__all__ = ["network_fingerprint", "open_network_watch", "outbound_hosts"]

POLL_INTERVAL = 10.0
GATHER = 0.5
"""Seconds to let further messages come in: one change causes a dozen."""
# Any global unicast address will do: nothing is sent, the system is only asked for its route.
ROUTE_PROBES = (SocketAddress("8.8.8.8", 80), SocketAddress("2001:4860:4860::8888", 80))
_RTNETLINK_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400  # links; IPv4 and IPv6 addresses; IPv4 and IPv6 routes


def outbound_hosts() -> tuple[str, ...]:
    """The addresses this machine would send to the Internet from, one per family with a route; IPv4 first."""
    return tuple(host for probe in ROUTE_PROBES if (host := source_address(probe)) is not None)


def network_fingerprint() -> Hashable:
    """What changes when the machine moves to another network: its addresses, and those it sends from."""
    return frozenset((found.name, found.host, found.prefix_length) for found in local_addresses()), outbound_hosts()


@asynccontextmanager
async def open_network_watch(
    on_change: Callable[[], None], *, sample: Callable[[], Hashable] = network_fingerprint
) -> AsyncIterator[None]:
    """Call `on_change` (which must not wait) whenever the network has changed and settled, until the block ends.

    `sample` returns a fingerprint of the network, which is compared with the last one.
    """
    with _open_netlink() as netlink:
        async with open_service_nursery("network watch") as nursery:
            nursery.start_soon(_watch, netlink, sample, on_change)
            yield


async def _watch(netlink: socket.socket | None, sample: Callable[[], Hashable], on_change: Callable[[], None]) -> None:
    """Sample after every hint of the system that something may have changed, or every 10 s where it gives none."""
    detector = ChangeDetector(sample())
    while True:
        due = detector.due
        with trio.CancelScope(deadline=float("inf") if due is None else due):
            if netlink is None:
                await trio.sleep(POLL_INTERVAL)
            else:
                await trio.lowlevel.wait_readable(netlink)
                await trio.sleep(GATHER)
                _drain(netlink)
        if detector.sample(sample(), trio.current_time()):
            on_change()


def _open_netlink() -> AbstractContextManager[socket.socket | None]:
    if sys.platform != "linux":
        return nullcontext(None)
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        netlink.bind((0, _RTNETLINK_GROUPS))
    except OSError:
        return nullcontext(None)  # some sandboxes have none
    return netlink


def _drain(netlink: socket.socket) -> None:
    """Throw the messages away: that there are some is all we want to know."""
    while True:
        try:
            netlink.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: messages were lost, which is a hint as well
