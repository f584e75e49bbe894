"""Messages on their way out: over a peer's punched connection if it has one, else by UDP (spec 03 §15.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Transmit

__all__ = ["Outbox", "Route"]

LIMIT = 4096


class Route(Protocol):
    """A way to a peer other than our UDP socket: a connection of the punch pool."""

    @property
    def remote_address(self) -> SocketAddress:
        """Where the connection ends; not an address to send UDP to."""

    def send_nowait(self, message: bytes) -> bool:
        """Deliver one message without waiting; False if the connection is gone, then UDP is used."""


class Outbox:
    """A bounded queue of datagrams; what does not fit is dropped, as a full socket would."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Transmit, int | None]] = deque()
        self._routes: dict[int, Route] = {}
        self.sent = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add_route(self, key: int, route: Route) -> None:
        """Prefer that connection for messages to the node; a newer one replaces an older."""
        self._routes[key] = route

    def remove_route(self, key: int, route: Route) -> None:
        """Forget the connection, unless a newer one has taken its place."""
        if self._routes.get(key) is route:
            del self._routes[key]

    def has_route(self, key: int) -> bool:
        """Whether there is a connection to the node."""
        return key in self._routes

    def send(self, destination: SocketAddress, message: bytes, key: int | None = None) -> None:
        """Queue a message to an address; `key` names the node if it is known, so that its route may serve."""
        if len(self._queue) >= LIMIT:
            self.dropped += 1
            return
        self.sent += 1
        self._queue.append((Transmit(message, len(message), destination), key))

    def drain(self) -> Iterator[Transmit]:
        """Take the queued datagrams, oldest first; what a route accepts is delivered there instead."""
        queue = self._queue
        while queue:
            transmit, key = queue.popleft()
            if key is None or key not in self._routes or not self._deliver(key, bytes(transmit.data)):
                yield transmit

    def _deliver(self, key: int, message: bytes) -> bool:
        route = self._routes[key]
        if route.send_nowait(message):
            return True
        self.remove_route(key, route)
        return False
