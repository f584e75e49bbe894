"""Our public address as servers that the user has named tell it: STUN, else HTTP (spec 04 §8.3).

Unlike the reference's, STUN answers concern the main socket, so their port is good too; they count as votes in
`NatSense`. A web service knows the host only. Nobody is contacted who is not named.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs
import trio

from a2al_trio.nat.http import HttpFailed, request
from a2al_trio.nat.stun_client import StunAnswer, StunClient, StunFailed
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import is_public

__all__ = ["ExternalAddress", "StunObserver", "fetch_public_host", "resolve_server"]

logger = logging.getLogger(__name__)

CACHE_LIFETIME = 300.0
"""Seconds before servers that have answered are asked again (spec 04 §8.3)."""
FAILURE_PAUSE = 60.0
"""Seconds before they are asked again when none has (spec 04 §17 D18)."""
DNS_LIMIT = 3.0
STUN_PORT = 3478
HTTP_LIMIT = 5.0
MAX_BODY = 64

StunObserver = Callable[[SocketAddress, StunAnswer], None]


@attrs.define(eq=False)
class ExternalAddress:
    """Asks the named servers, rarely. `servers` are `host:port` of STUN servers, `urls` of pages that show one's IP.

    `on_answer` is told every answer of a STUN server.
    """

    stun: StunClient
    servers: Sequence[str]
    urls: Sequence[str]
    on_answer: StunObserver
    host: str | None = attrs.field(default=None, init=False)
    """The public IPv4 address that a web service has seen."""
    _ask_at: float = attrs.field(default=-math.inf, init=False)
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def invalidate(self) -> None:
        """Forget what was found: the network has changed."""
        self.host = None
        self._ask_at = -math.inf

    async def refresh(self) -> None:
        """Ask if it is time to. Whoever comes while somebody is asking waits for the answers and does not ask too."""
        async with self._lock:
            if trio.current_time() < self._ask_at:
                return
            found = await self._ask_stun()
            if not found and self.urls:
                self.host = await fetch_public_host(self.urls)
                found = self.host is not None
            self._ask_at = trio.current_time() + (CACHE_LIFETIME if found else FAILURE_PAUSE)

    async def _ask_stun(self) -> bool:
        """Ask all servers at once, each at one address per family; returns whether one saw a public IPv4 address."""
        found = False

        async def ask(address: SocketAddress) -> None:
            nonlocal found
            try:
                answer = await self.stun.query(address)
            except StunFailed as error:
                logger.info("%s", error)
                return
            self.on_answer(address, answer)
            found = found or (not answer.mapped.is_ipv6 and is_public(answer.mapped.host))

        async def resolve_and_ask(server: str) -> None:
            for address in await resolve_server(server, ipv6=self.stun.local_address.is_ipv6):
                nursery.start_soon(ask, address)

        async with trio.open_nursery() as nursery:
            for server in self.servers:
                nursery.start_soon(resolve_and_ask, server)
        return found


async def resolve_server(server: str, *, ipv6: bool) -> list[SocketAddress]:
    """The first address per family of `host:port`, which may also be written `stun:host:port` (RFC 7064).

    The port is 3478 unless given. [] if the name does not resolve within 3 s.
    """
    try:
        parts = urlsplit("//" + server.removeprefix("stun:"))
        host, port = parts.hostname or "", parts.port or STUN_PORT
    except ValueError as error:
        logger.info("server %s: %s", server, error)
        return []
    answers: list[SocketAddress] = []
    with trio.move_on_after(DNS_LIMIT):
        try:
            found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            logger.info("server %s does not resolve: %s", server, error)
            return []
        answers = [SocketAddress.of(str(sockaddr[0]), port) for *_, sockaddr in found]
    first = {address.is_ipv6: address for address in reversed(answers)}
    return [address for family, address in sorted(first.items()) if ipv6 or not family]


async def fetch_public_host(urls: Sequence[str]) -> str | None:
    """Ask web services for our IPv4 address, all at once; the first public one that comes within 5 s is it."""
    winner: str | None = None

    async def fetch(url: str) -> None:
        nonlocal winner
        host = await _fetch_host(url)
        if host is not None and winner is None:
            winner = host
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + HTTP_LIMIT
        for url in urls:
            nursery.start_soon(fetch, url)
    return winner


async def _fetch_host(url: str) -> str | None:
    try:
        # From IPv4, or a service reached over IPv6 would tell that address.
        reply = await request(url, max_body=MAX_BODY, local_host="0.0.0.0")
        host = str(ipaddress.ip_address(reply.body.decode("ascii").strip()))
    except (HttpFailed, ValueError) as error:
        logger.info("%s does not tell our address: %s", url, error)
        return None
    return host if reply.status == 200 and is_public(host) else None
