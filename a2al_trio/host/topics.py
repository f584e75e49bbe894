"""Topics: agents announce what they offer and are found by it (spec 04 §12)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.dht import Dht, Publication, StaleRecord
from a2al_trio.errors import A2alError, ConfigurationError
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.stamps import RecordStamps
from a2al_trio.identity import Address
from a2al_trio.scopes import open_service_nursery, open_tasks
from a2al_trio.wire import (
    RecordType,
    SignedRecord,
    TopicPayload,
    WireDecodeError,
    filter_topics,
    sign_record,
    topic_key,
)

__all__ = ["MAX_TOPIC_TTL", "TOPIC_TTL", "Registration", "TopicEntry", "Topics"]

logger = logging.getLogger(__name__)

TOPIC_TTL = 3600
"""Seconds an entry is valid unless said otherwise (spec 04 §12)."""
MAX_TOPIC_TTL = 7200
CONCURRENT = 8
"""Topics worked on at a time."""
MAX_TOPICS = 256
"""Topics per call."""


@attrs.frozen
class TopicEntry:
    """An agent found under a topic: who, and what it says about itself."""

    agent: Address
    payload: TopicPayload
    record: SignedRecord


@attrs.define(eq=False)
class Registration:
    """An agent's entries under one or more topics.

    `publications` says by topic who holds the newest entry, `failures` why a topic has none; a renewal tries
    those again.
    """

    agent: Address
    topics: tuple[str, ...]
    publications: dict[str, Publication] = attrs.field(factory=dict)
    failures: dict[str, A2alError] = attrs.field(factory=dict)


class Topics:
    """Registering and searching: `host.topics`."""

    def __init__(self, *, dht: Dht, agents: AgentTable, stamps: RecordStamps) -> None:
        self._dht = dht
        self._agents = agents
        self._stamps = stamps

    @asynccontextmanager
    async def register(
        self,
        topics: str | Iterable[str],
        entry: TopicPayload | None = None,
        *,
        agent: Address | None = None,
        ttl: int = TOPIC_TTL,
    ) -> AsyncIterator[Registration]:
        """Keep an agent announced under topics for the length of a block; see `announce` for errors.

        The entries are renewed at half their lifetime. There is no way to take one back: after the block nobody
        keeps it alive, and it runs out within `ttl` seconds.
        """
        registration = await self.announce(topics, entry, agent=agent, ttl=ttl)
        base = entry or TopicPayload(topic="")
        async with open_service_nursery("topic registration") as nursery:
            nursery.start_soon(self._keep, registration, base, _lifetime(ttl))
            try:
                yield registration
            finally:
                for name in registration.topics:
                    self._dht.withdraw(registration.agent, RecordType.TOPIC, topic_key(name))

    async def announce(
        self,
        topics: str | Iterable[str],
        entry: TopicPayload | None = None,
        *,
        agent: Address | None = None,
        ttl: int = TOPIC_TTL,
    ) -> Registration:
        """Announce an agent once under one or several topics, all at the same time.

        `entry` is what to say; its own topic is replaced. `ttl` is in seconds, 0 meaning 3600, at most 7200.
        Topics that could not be published are in `Registration.failures`; if none could, the first error is
        raised. Raises WireEncodeError (PayloadTooLarge) before anything is sent if an entry has over 512 bytes or
        a brief over 140 characters, and ConfigurationError for no topics, empty ones, or an unknown agent.
        """
        names = _names(topics)
        registration = Registration(self._agents.get(agent).address, names)
        base = entry or TopicPayload(topic="")
        lifetime = _lifetime(ttl)
        for name in names:
            attrs.evolve(base, topic=name).encode()
        await self._publish_all(registration, base, lifetime)
        if not registration.publications:
            raise next(iter(registration.failures.values()))
        return registration

    async def search(self, topic: str, *, protocols: Sequence[str] = (), tags: Sequence[str] = ()) -> list[TopicEntry]:
        """Find the agents under a topic, newest entry first; nothing found is an empty list.

        Filters are case-sensitive: entries must share at least one of `protocols` and have all of `tags`.
        """
        [topic] = _names(topic)
        records = await self._dht.find_records(topic_key(topic), RecordType.TOPIC)
        entries = (_entry(record) for record in sorted(records, key=lambda record: record.order, reverse=True))
        return [
            entry
            for entry in entries
            if entry is not None
            and entry.payload.topic == topic
            and filter_topics([entry.payload], protocols=protocols, tags=tags)
        ]

    async def search_all(
        self, topics: Iterable[str], *, protocols: Sequence[str] = (), tags: Sequence[str] = ()
    ) -> list[TopicEntry]:
        """Find the agents that are under every one of the topics, by queries side by side.

        The entries returned, and held against the filters, are those of the first topic. Raises
        ConfigurationError if no topic is given.
        """
        names = _names(topics)
        found: dict[str, list[TopicEntry]] = {}

        async def find(name: str) -> None:
            if name == names[0]:
                found[name] = await self.search(name, protocols=protocols, tags=tags)
            else:
                found[name] = await self.search(name)

        await _for_each(names, find)
        common = frozenset.intersection(*(frozenset(entry.agent for entry in found[name]) for name in names))
        return [entry for entry in found[names[0]] if entry.agent in common]

    async def _keep(self, registration: Registration, base: TopicPayload, lifetime: int) -> None:
        while True:
            await trio.sleep(lifetime / 2)
            if registration.agent not in self._agents.addresses:
                return
            await self._publish_all(registration, base, lifetime)

    async def _publish_all(self, registration: Registration, base: TopicPayload, lifetime: int) -> None:
        async def publish(name: str) -> None:
            try:
                publication = await self._publish(registration.agent, attrs.evolve(base, topic=name), lifetime)
            except A2alError as error:
                registration.failures[name] = error
                logger.warning("%s is not announced under %r: %s", registration.agent, name, error)
            else:
                registration.publications[name] = publication
                registration.failures.pop(name, None)

        await _for_each(registration.topics, publish)

    async def _publish(self, agent: Address, payload: TopicPayload, lifetime: int) -> Publication:
        key = topic_key(payload.topic)
        above = 0
        while True:
            record = sign_record(
                self._agents.get(agent),
                RecordType.TOPIC,
                payload.encode(),
                sequence=self._stamps.sequence(above),
                timestamp=self._stamps.timestamp(),
                ttl=lifetime,
            )
            try:
                return await self._dht.publish(record, key)
            except StaleRecord:
                # An earlier life of this agent announced itself when the clock was ahead of where it is now.
                held = [r.sequence for r in self._dht.local_records(key, RecordType.TOPIC) if r.address == agent]
                if max(held, default=0) <= above:
                    raise
                above = max(held)


async def _for_each(names: Iterable[str], do: Callable[[str], Awaitable[None]]) -> None:
    """Do something for every topic, for a few of them at a time."""
    limiter = trio.CapacityLimiter(CONCURRENT)

    async def run(name: str) -> None:
        async with limiter:
            await do(name)

    async with open_tasks() as nursery:
        for name in names:
            nursery.start_soon(run, name)


def _names(topics: str | Iterable[str]) -> tuple[str, ...]:
    names = (topics,) if isinstance(topics, str) else tuple(dict.fromkeys(topics))
    if not names or not all(names):
        raise ConfigurationError("name at least one topic; a topic is a text that is not empty")
    if len(names) > MAX_TOPICS:
        raise ConfigurationError(f"{len(names)} topics in one call, more than {MAX_TOPICS}; split them up")
    return names


def _lifetime(ttl: int) -> int:
    if ttl < 0:
        raise ConfigurationError(f"a ttl of {ttl} seconds; use 1 to {MAX_TOPIC_TTL}, or 0 for {TOPIC_TTL}")
    return min(ttl or TOPIC_TTL, MAX_TOPIC_TTL)


def _entry(record: SignedRecord) -> TopicEntry | None:
    try:
        return TopicEntry(record.address, TopicPayload.decode(record.payload), record)
    except WireDecodeError:
        return None
