"""The host at its signaling hubs: which ones, registered for whom, and named in its records (spec 06 §6–7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import HostConfig
from a2al_trio.ice import IceConfig, IceNetwork
from a2al_trio.signaling import CallHandler, Signaling, hub_from_bootstrap, open_signaling

__all__ = ["HubRegistrations", "hub_candidates", "ice_config", "open_hubs"]

MAX_DERIVED = 4
"""Hubs derived from bootstrap nodes at most (spec 06 §6)."""
FIRST_HUB_LIMIT = 3.0
"""Seconds the first publication waits for the hubs to answer, so that it need not be repeated at once."""


def hub_candidates(config: HostConfig) -> tuple[str, ...]:
    """The configured hubs, else those that the bootstrap nodes conventionally run on the same port (spec 06 §6)."""
    if config.signal_urls:
        return config.signal_urls
    found: dict[str, None] = {}
    for seed in config.bootstrap:
        try:
            found[hub_from_bootstrap(seed)] = None
        except ConfigurationError:
            continue
    return tuple(found)[:MAX_DERIVED]


def ice_config(config: HostConfig) -> IceConfig:
    """Where to look for paths; without STUN servers of its own the host asks those of its hubs (spec 06 §11.2).

    Raises ConfigurationError for a bad server URI.
    """
    stun = config.stun_servers
    if not stun:
        hosts = dict.fromkeys(urlsplit(hub).hostname or "" for hub in hub_candidates(config))
        stun = tuple(f"stun:[{host}]" if ":" in host else f"stun:{host}" for host in hosts if host)
    found = IceConfig(stun_servers=stun, turn_servers=config.turn_servers, relay_only=config.relay_only)
    found.stun_addresses()
    return found


@attrs.define
class HubRegistrations:
    """Keeps the hubs told of our agents, and the publisher of the hubs."""

    signaling: Signaling
    agents: AgentTable
    candidates: tuple[str, ...]

    @property
    def published(self) -> tuple[str, ...]:
        """The hubs to name in endpoint records: those we are registered at, in our order of preference.

        A hub that does not answer would cost every caller time (spec 06 D6).
        """
        active = set(self.signaling.active_hubs)
        return tuple(hub for hub in self.candidates if hub in active)

    def agents_changed(self) -> None:
        """Register the agents there are now."""
        self.signaling.set_agents(_registered_names(self.agents))

    async def wait_tried(self) -> None:
        """Wait until every hub has been tried once, but not long."""
        with trio.move_on_after(FIRST_HUB_LIMIT):
            await self.signaling.wait_tried()

    async def run(self, answer: CallHandler, changed: Callable[[], object]) -> None:
        """Answer the calls that come in; call `changed` whenever the hubs to publish change."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.signaling.serve, answer)
            while True:
                await self.signaling.wait_hubs_changed()
                changed()


@asynccontextmanager
async def open_hubs(config: HostConfig, agents: AgentTable, network: IceNetwork) -> AsyncIterator[HubRegistrations]:
    """Register the agents at the hubs; raises ConfigurationError for a URL that is no hub."""

    async def dial(host: str, port: int, tls: bool) -> trio.abc.Stream:
        return await network.open_stream(host, port, tls=tls)

    candidates = hub_candidates(config)
    async with open_signaling(candidates, _registered_names(agents), prove=agents.prove, dial=dial) as signaling:
        yield HubRegistrations(signaling, agents, candidates)


def _registered_names(agents: AgentTable) -> Sequence[str]:
    """The AIDs to register, the node's own first (spec 06 §7.2)."""
    node = agents.default.address
    return [str(node), *sorted(str(agent) for agent in agents.addresses if agent != node)]
