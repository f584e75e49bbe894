"""Noticing that the machine has moved to another network (spec 05 §8).

Linux tells of changes through a netlink socket (rtnetlink, RFC 3549); elsewhere the addresses are looked at every
10 s. Either way a change counts only once it has lasted.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import trio
import trio.lowlevel

from a2al_trio.nat.changes import ChangeDetector
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.interfaces import local_addresses, source_address
from a2al_trio.scopes import open_service_nursery

__all__ = ["NetworkWatch", "network_fingerprint", "open_network_watch", "outbound_hosts"]

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


class NetworkWatch:
    """Watches for changes of the local network; made by `open_network_watch`."""

    def __init__(self, sample: Callable[[], Hashable], on_change: Callable[[], None]) -> None:
        self._sample = sample
        self._on_change = on_change
        self._detector = ChangeDetector(sample())

    @property
    def is_flapping(self) -> bool:
        """Whether the network keeps changing, so that acting on it is premature."""
        return self._detector.is_flapping(trio.current_time())

    async def run(self, wait_hint: Callable[[], Awaitable[object]] | None) -> None:
        """Sample after every hint that something may have changed, or every 10 s if hints are not to be had."""
        while True:
            now = trio.current_time()
            if self._detector.sample(self._sample(), now):
                self._on_change()
            due = self._detector.due
            with trio.CancelScope(deadline=float("inf") if due is None else due):
                if wait_hint is None:
                    await trio.sleep(POLL_INTERVAL)
                else:
                    await wait_hint()


@asynccontextmanager
async def open_network_watch(
    on_change: Callable[[], None], *, sample: Callable[[], Hashable] = network_fingerprint
) -> AsyncIterator[NetworkWatch]:
    """Call `on_change` (which must not wait) whenever the network has changed and settled, until the block ends.

    `sample` returns a fingerprint of the network, which is compared with the last one.
    """
    watch = NetworkWatch(sample, on_change)
    with _open_netlink() as netlink:

        async def wait_hint() -> None:
            if netlink is not None:
                await trio.lowlevel.wait_readable(netlink)
                await trio.sleep(GATHER)
                _drain(netlink)

        async with open_service_nursery("network watch") as nursery:
            nursery.start_soon(watch.run, None if netlink is None else wait_hint)
            yield watch


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
