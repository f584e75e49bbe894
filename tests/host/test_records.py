"""Profiles and other sovereign records between hosts of a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from a2al_trio.dht import StaleRecord
from a2al_trio.errors import ConfigurationError, RecordNotFound
from a2al_trio.host import Host
from a2al_trio.testing import open_simnet
from a2al_trio.wire import PayloadTooLarge, ProfilePayload, RecordType, sign_record
from tests.host.world import identity, open_sim_host, unix_time

SEED, ALICE, BOB = identity(1), identity(2), identity(3)
PROFILE = ProfilePayload(name="Alice", brief="Knows the weather", protocols=("a2a",), skills=("rain",))


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(seed,)) as bob,
    ):
        yield alice, bob


async def test_a_profile_is_found(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (alice, bob):
        with pytest.raises(RecordNotFound):
            await bob.records.find_profile(ALICE.address)
        publication = await alice.records.publish_profile(PROFILE)
        assert publication.replicas
        assert (await bob.records.find_profile(ALICE.address)).payload == PROFILE


async def test_a_record_replaces_the_one_before(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (alice, bob):
        for payload in (b"\xa0", b"\xa1\x01\x02"):
            await alice.records.publish(0x05, payload)
        [record] = await bob.records.find(ALICE.address, 0x05)
        assert record.payload == b"\xa1\x01\x02"
        with pytest.raises(StaleRecord):
            await alice.records.publish(0x05, b"\xa0", sequence=1)


async def test_records_of_several_types_and_agents(autojump_clock: trio.testing.MockClock) -> None:
    second = identity(20)
    async with two_hosts() as (alice, bob):
        alice.register_agent(second)
        await alice.publish()
        await alice.records.publish_profile(PROFILE, agent=second.address)
        await alice.records.publish(0x05, b"\xa0", agent=second.address)
        found = await bob.find_records(second.address)
        assert {record.record_type for record in found} == {RecordType.ENDPOINT, RecordType.PROFILE, 0x05}
        assert all(record.address == second.address for record in found)
        assert await bob.records.find(ALICE.address, 0x05) == []


async def test_a_ready_record_is_published(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (alice, bob):
        now = int(unix_time())
        record = sign_record(identity(30), 0x05, b"\xa0", sequence=1, timestamp=now, ttl=60)
        assert (await alice.publish_record(record)).replicas
        assert await bob.find_records(identity(30).address) == [record]
        for record_type in (0x10, 0x80):
            with pytest.raises(ConfigurationError, match="not sovereign"):
                await alice.publish_record(attrs.evolve(record, record_type=record_type))


async def test_mistakes_are_named(autojump_clock: trio.testing.MockClock) -> None:
    async with two_hosts() as (alice, _):
        for record_type in (0, 0x10, 0x80):
            with pytest.raises(ConfigurationError, match="not sovereign"):
                await alice.records.publish(record_type, b"\xa0")
        with pytest.raises(ConfigurationError, match="at least 1"):
            await alice.records.publish(0x05, b"\xa0", ttl=0)
        with pytest.raises(PayloadTooLarge):
            await alice.records.publish_profile(ProfilePayload(brief="x" * 701))
        with pytest.raises(ConfigurationError, match="register it first"):
            await alice.records.publish_profile(PROFILE, agent=BOB.address)
