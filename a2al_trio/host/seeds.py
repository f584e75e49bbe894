"""Where the nodes are that a host joins through (`HostConfig.bootstrap`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from a2al_trio.net.address import SocketAddress

__all__ = ["seed_addresses"]

logger = logging.getLogger(__name__)

DNS_LIMIT = 5.0
"""Seconds for all names together: a name server that is silent may not keep a host from starting (spec 04 §17 D18)."""


async def seed_addresses(seeds: Sequence[str]) -> list[SocketAddress]:
    """Resolve `host:port` texts, all at once; a name that does not resolve now is left out and said in the log."""
    found: dict[str, list[SocketAddress]] = {}

    async def resolve(seed: str) -> None:
        host, _, port = seed.rpartition(":")
        try:
            answers = await trio.socket.getaddrinfo(host.strip("[]"), int(port), type=trio.socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            logger.warning("bootstrap node %s does not resolve: %s", seed, error)
        else:
            found[seed] = [SocketAddress.of(str(sockaddr[0]), int(port)) for *_, sockaddr in answers]

    with trio.move_on_after(DNS_LIMIT) as limit:
        async with trio.open_nursery() as nursery:
            for seed in dict.fromkeys(seeds):
                nursery.start_soon(resolve, seed)
    if limit.cancelled_caught:
        late = ", ".join(seed for seed in seeds if seed not in found)
        logger.warning("bootstrap nodes did not resolve within %.0f s: %s", DNS_LIMIT, late)
    return list(dict.fromkeys(address for seed in seeds for address in found.get(seed, ())))
