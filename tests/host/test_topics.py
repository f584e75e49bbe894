"""Topics between hosts of a simulated network."""

from __future__ import annotations

import pytest
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.wire import PayloadTooLarge, RecordType, TopicPayload, WireEncodeError, topic_key
from tests.host.world import ALICE, BOB, identity, three_hosts

WEATHER = TopicPayload(topic="", name="rain", protocols=("http", "mcp"), tags=("eu", "free"), brief="Rain or shine")


async def test_an_announced_agent_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        assert await bob.topics.search("weather") == []
        async with alice.topics.register("weather", WEATHER) as registration:
            assert registration.publications["weather"].replicas
            assert registration.failures == {}
            [entry] = await bob.topics.search("weather")
            assert entry.agent == ALICE.address
            assert (entry.payload.topic, entry.payload.name) == ("weather", "rain")
            assert await bob.topics.search("Weather") == [], "the text counts exactly as it is"


async def test_filters_by_protocol_and_tag(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        await alice.topics.announce("weather", WEATHER)

        async def found(protocols: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> int:
            return len(await bob.topics.search("weather", protocols=protocols, tags=tags))

        assert await found(("mcp", "gopher")) == 1
        assert await found(("gopher",)) == 0
        assert await found(tags=("free", "eu")) == 1
        assert await found(tags=("free", "us")) == 0
        assert await found(("http",), ("eu",)) == 1


async def test_the_intersection_of_topics(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        second = identity(20)
        alice.register_agent(second)
        await alice.topics.announce(["weather", "eu"], WEATHER)
        await alice.topics.announce(["weather"], WEATHER, agent=second.address)
        assert {entry.agent for entry in await bob.topics.search("weather")} == {ALICE.address, second.address}
        [entry] = await bob.topics.search_all(["weather", "eu"])
        assert (entry.agent, entry.payload.topic) == (ALICE.address, "weather")
        assert await bob.topics.search_all(["weather", "eu"], tags=("none",)) == []
        assert await bob.topics.search_all(["weather", "us"]) == []


async def test_queries_run_side_by_side(autojump_clock: trio.testing.MockClock) -> None:
    topics = [f"topic {number}" for number in range(8)]
    async with three_hosts() as (_, _, alice, bob):
        await alice.topics.announce(topics, WEATHER)
        began = trio.current_time()
        await bob.topics.search(topics[0])
        alone = trio.current_time() - began
        began = trio.current_time()
        assert len(await bob.topics.search_all(topics)) == 1
        assert trio.current_time() - began < 2 * alone


async def test_a_registration_is_kept_alive_and_runs_out(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        async with alice.topics.register("weather", WEATHER, ttl=1000):
            [first] = await bob.topics.search("weather")
            await trio.sleep(5000)
            [later] = await bob.topics.search("weather")
            assert later.record.sequence > first.record.sequence
            [held] = alice.dht.local_records(topic_key("weather"), RecordType.TOPIC)
        assert alice.dht.replica_count(topic_key("weather"), held) == 0, "nobody keeps it alive any more"
        await trio.sleep(1001)
        assert await bob.topics.search("weather") == []


async def test_the_newest_entry_of_an_agent_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        await alice.topics.announce("weather", TopicPayload(topic="x", name="old"))
        await alice.topics.announce("weather", TopicPayload(topic="y", name="new"))
        [entry] = await bob.topics.search("weather")
        assert entry.payload.name == "new"


async def test_a_clock_that_was_ahead_does_not_stop_renewals(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        stamps = alice.topics._stamps
        stamps.sequence(above=stamps.sequence() + 10**15)
        await alice.topics.announce("weather", TopicPayload(topic="x", name="ahead"))
        stamps._last = 0
        await alice.topics.announce("weather", TopicPayload(topic="x", name="set back"))
        [entry] = await bob.topics.search("weather")
        assert entry.payload.name == "set back"


async def test_partial_success_is_reported(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, _):
        key = topic_key("taken")
        publish = alice.dht.publish

        async def refuse(record: object, where: object = None) -> object:
            if where == key:
                raise ConfigurationError("no room")
            return await publish(record, where)  # type: ignore[arg-type]

        alice.dht.publish = refuse  # type: ignore[method-assign,assignment]
        registration = await alice.topics.announce(["taken", "free"], WEATHER)
        assert set(registration.publications) == {"free"}
        assert str(registration.failures["taken"]) == "no room"
        with pytest.raises(ConfigurationError, match="no room"):
            await alice.topics.announce("taken", WEATHER)


async def test_lifetimes(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, _):
        for asked, given in ((0, 3600), (60, 60), (100_000, 7200)):
            await alice.topics.announce("weather", WEATHER, ttl=asked)
            [record] = alice.dht.local_records(topic_key("weather"), RecordType.TOPIC)
            assert record.ttl == given
        with pytest.raises(ConfigurationError, match="use 1 to 7200"):
            await alice.topics.announce("weather", WEATHER, ttl=-1)


async def test_mistakes_are_named_before_anything_is_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, _):
        for topics in ([], "", ["weather", ""]):
            with pytest.raises(ConfigurationError, match="at least one topic"):
                await alice.topics.announce(topics)
        with pytest.raises(ConfigurationError, match="register it first"):
            await alice.topics.announce("weather", agent=BOB.address)
        with pytest.raises(PayloadTooLarge, match="brief"):
            await alice.topics.announce(["a", "b"], TopicPayload(topic="", brief="x" * 141))
        with pytest.raises(WireEncodeError):
            await alice.topics.announce("weather", TopicPayload(topic="", meta={"x": "y" * 500}))
        assert alice.dht.records_by(ALICE.address, RecordType.TOPIC) == []


async def test_a_dialler_is_told_the_topics_of_an_agent(autojump_clock: trio.testing.MockClock) -> None:
    async with three_hosts() as (_, _, alice, bob):
        await alice.topics.announce("weather", WEATHER)
        bob.dht.invalidate(topic_key("weather"))
        async with bob.connect(ALICE.address, at=alice.quic_address) as connection:
            assert await connection.wait_service_streams()
            await trio.sleep(1)
            [record] = bob.dht.local_records(topic_key("weather"), RecordType.TOPIC)
            assert record.address == ALICE.address
