"""What a host advertises, and keeping it advertised (spec 04 §8)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set

import attrs
import trio

from a2al_trio.dht import Dht, Publication, StaleRecord
from a2al_trio.errors import A2alError, NoRoute
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.config import HostConfig
from a2al_trio.host.network import Surroundings
from a2al_trio.identity import Address
from a2al_trio.scopes import open_tasks
from a2al_trio.wire import EndpointPayload, RecordType, sign_record

__all__ = ["Publisher"]

logger = logging.getLogger(__name__)

CLOCK_MARGIN = 3
"""Seconds a timestamp is set back: a receiver with a slower clock refuses records from the future (spec 02 §15.1)."""
AT_ONCE = 8
"""Records published at a time."""
SETTLE = 2.0
"""Seconds a change of our address must rest before we publish it."""


@attrs.define
class Publisher:
    """Builds endpoint records of the host's agents, publishes them and keeps them fresh.

    All agents of a host publish the same endpoints: newer nodes recognise a host by that (spec 08 §5.4).
    """

    config: HostConfig
    agents: AgentTable
    dht: Dht
    surroundings: Surroundings
    unix_time: Callable[[], float]
    hubs: Callable[[], tuple[str, ...]]
    """The signaling hubs at which our agents can be called."""
    doubt_time: Callable[[], bool]
    """Told that everybody refuses our records; whether `unix_time` says something else now."""
    _sequences: dict[Address, int] = attrs.field(factory=dict)
    _kept: set[Address] = attrs.field(factory=set)
    _published: EndpointPayload | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _due_at: float = attrs.field(factory=trio.current_time)

    def build_payload(self) -> EndpointPayload:
        """Say where we can be reached, best first, and at which hubs (spec 04 §8.1).

        Raises NoRoute if there is neither; with hubs alone others can still meet us (spec 04 §17 D18).
        """
        candidates = self.surroundings.candidates()
        signals = self.hubs()
        if not candidates and not signals:
            raise NoRoute(
                "this host knows no address at which others could reach it: join through a public node, "
                "or set fallback_host to an address that leads here"
            )
        return EndpointPayload(
            endpoints=tuple(candidate.url for candidate in candidates),
            nat_type=int(self.surroundings.nat_type),
            signal=signals[0] if signals else "",
            signals=signals,
        )

    async def publish(
        self,
        agent: Address | None = None,
        *,
        payload: EndpointPayload | None = None,
        sequence: int | None = None,
        ttl: int | None = None,
    ) -> Publication:
        """Publish one agent's endpoint record once; see `Host.publish_endpoint`."""
        identity = self.agents.get(agent)
        built = payload or self.build_payload()
        seconds = self.config.endpoint_ttl if ttl is None else ttl
        number = self._next_sequence(identity.address) if sequence is None else sequence
        while True:
            record = sign_record(
                identity,
                RecordType.ENDPOINT,
                built.encode(),
                sequence=number,
                timestamp=int(self.unix_time()) - CLOCK_MARGIN,
                ttl=seconds,
            )
            try:
                publication = await self.dht.publish(record)
            except StaleRecord as error:
                if sequence is not None:
                    raise
                # An earlier life of this agent published with a higher number, or its clock ran ahead.
                records = self.dht.local_records(identity.address.node_id, RecordType.ENDPOINT)
                held = max((record.sequence for record in records), default=0)
                if held < number:
                    # No number helps against a younger delegation, which is how a stolen key is revoked (spec 08 §3).
                    raise StaleRecord(
                        f"{identity.address} has published under a younger delegation; register it with that one"
                    ) from error
                number = held + 1
                continue
            self._sequences[identity.address] = number
            if publication.refused and not publication.replicas and sequence is None and self.doubt_time():
                number += 1
                continue
            return publication

    def _next_sequence(self, agent: Address) -> int:
        """Wall-clock seconds, but never back: monotonic over restarts and clock steps (spec 04 §17 D19)."""
        return max(int(self.unix_time()), self._sequences.get(agent, 0) + 1)

    async def publish_all(self) -> tuple[Publication, ...]:
        """Publish every agent's endpoints, the default one's first, and keep them fresh from now on.

        Raises NoRoute if there are none yet; they are then published as soon as there are.
        """
        self._kept |= self.agents.addresses
        payload = self.build_payload()
        outcomes = await self._publish_each(self._kept & self.agents.addresses, payload)
        self._published = payload
        self._set_due()
        self.reconsider()
        for outcome in outcomes:
            if isinstance(outcome, A2alError):
                raise outcome
        return tuple(outcome for outcome in outcomes if not isinstance(outcome, A2alError))

    async def _publish_each(self, agents: Set[Address], payload: EndpointPayload) -> list[Publication | A2alError]:
        """Publish the default agent's record, then those of the others side by side, and say what came of each.

        One agent's trouble, such as endpoints too many for its record, is not that of the others.
        """
        outcomes: dict[Address, Publication | A2alError] = {}
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def publish(agent: Address) -> None:
            async with limiter:
                try:
                    outcomes[agent] = await self.publish(agent, payload=payload)
                except A2alError as error:
                    if agent in self.agents.addresses:
                        outcomes[agent] = error
                        logger.warning("the record of %s could not be published: %s", agent, error)

        default = self.agents.default.address
        if default in agents:
            await publish(default)
        async with open_tasks() as nursery:
            for agent in sorted(agents - {default}):
                nursery.start_soon(publish, agent)
        return list(outcomes.values())

    def forget(self, agent: Address) -> None:
        """Stop keeping an agent's record fresh."""
        self._kept.discard(agent)
        self.dht.withdraw(agent)

    def reconsider(self) -> None:
        """Something that endpoints are built from has changed: publish again if they have."""
        self._changed.set()

    async def keep_fresh(self) -> None:
        """Republish at half the lifetime of the records, and soon after our endpoints change."""
        while True:
            with trio.move_on_at(self._due_at):
                await self._changed.wait()
                await trio.sleep(SETTLE)
            self._changed = trio.Event()
            if self._kept and (trio.current_time() >= self._due_at or self._endpoints_changed()):
                await self._republish()
            elif trio.current_time() >= self._due_at:
                self._set_due()

    def _set_due(self) -> None:
        self._due_at = trio.current_time() + self.config.endpoint_ttl / 2

    def _endpoints_changed(self) -> bool:
        try:
            return self.build_payload() != self._published
        except NoRoute:
            return False

    async def _republish(self) -> None:
        self._set_due()
        try:
            payload = self.build_payload()
        except NoRoute:
            logger.warning("no address is known to publish any more; the published records run out")
            return
        await self._publish_each(self._kept & self.agents.addresses, payload)
        self._published = payload
