"""Where connecting, resolving and publishing are to do better than the reference: spec 04 §17, D14 to D18.

D13 is shown in `test_pool`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from a2al_trio.errors import ConnectError, RecordNotFound
from a2al_trio.host import CONNECT_STAGGER, EndpointRecord, Host, HostConfig, open_host_over, reach
from a2al_trio.host.seeds import DNS_LIMIT, seed_addresses
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.mux import open_mux_over
from a2al_trio.testing import Nat, SimHost, open_simnet
from a2al_trio.wire import EndpointPayload, RecordType, SignedRecord, sign_record
from tests.host.nat_world import HUB, open_world
from tests.host.world import ALICE, BOB, EPOCH, SimNetwork, identity, open_sim_host, three_hosts, unix_time

Clock = trio.testing.MockClock

CAROL = identity(4)
NOWHERE = "quic://192.0.2.250:4121"


def record_of(
    who: Identity, endpoints: Sequence[str], *, nat_type: int = 0, signal: str = "", sequence: int = 1
) -> SignedRecord:
    payload = EndpointPayload(tuple(endpoints), nat_type=nat_type, signal=signal, signals=(signal,) if signal else ())
    now = EPOCH + int(trio.current_time())
    return sign_record(who, RecordType.ENDPOINT, payload.encode(), sequence=sequence, timestamp=now - 3, ttl=3600)


def resolved(record: SignedRecord) -> EndpointRecord:
    return EndpointRecord(record, EndpointPayload.decode(record.payload))


def url(host: Host) -> str:
    return f"quic://{host.quic_address}"


@asynccontextmanager
async def open_split_host(machine: SimHost, who: Identity) -> AsyncIterator[Host]:
    host = machine.addresses[0]
    with contextlib.closing(machine.bind(4121, host=host)) as dht, contextlib.closing(machine.bind(0, host=host)) as q:
        async with (
            open_mux_over(dht, q) as mux,
            open_host_over(mux, who, HostConfig(), network=SimNetwork(machine), unix_time=unix_time) as opened,
        ):
            yield opened


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_d14_a_host_ends_every_connection_with_code_0_and_at_once(
    autojump_clock: Clock, is_split: bool, is_cancelled: bool
) -> None:
    async with three_hosts() as (net, _, alice, bob):
        machine = net.host("carol")
        opened = open_split_host(machine, CAROL) if is_split else open_sim_host(machine, CAROL)
        with trio.CancelScope() as scope:
            async with opened as carol:
                outgoing = await carol.open_connection(ALICE.address, at=alice.quic_address)
                incoming = await bob.open_connection(CAROL.address, at=carol.quic_address)
                accepted = await alice.accept()
                await trio.sleep(1)
                ending = trio.current_time()
                if is_cancelled:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught is is_cancelled
        assert trio.current_time() - ending < 0.01, "nothing is waited for"
        assert outgoing.close_reason is not None
        for connection in (accepted, incoming):
            assert (await connection.wait_closed()).code == 0
        assert trio.current_time() - ending < 0.1, "peers need not wait for their idle timeout"


async def test_d15_the_next_endpoint_is_tried_as_soon_as_one_fails(autojump_clock: Clock) -> None:
    async with three_hosts() as (_, seed, alice, bob):
        record = resolved(record_of(ALICE, [url(seed), url(alice)]))  # at the first one somebody else answers
        began = trio.current_time()
        async with bob.connect(ALICE.address, record=record) as connection:
            assert connection.peer_address == alice.quic_address
        assert trio.current_time() - began < CONNECT_STAGGER


async def test_d15_hubs_are_tried_as_soon_as_direct_dials_have_failed(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "head_start", lambda round_trips: 1000.0)
    async with open_world() as world, world.host(ALICE, Nat.port_restricted(), name="alice") as alice:
        await alice.publish()
        async with world.host(BOB, name="bob") as bob:
            record = resolved(record_of(ALICE, [url(world.seed)], signal=HUB))
            began = trio.current_time()
            async with bob.connect(ALICE.address, record=record) as connection:
                assert not connection.path.startswith("direct")
                assert trio.current_time() - began < 5


async def test_d15_an_agent_that_no_hub_knows_is_dialled_directly_in_the_end(autojump_clock: Clock) -> None:
    async with three_hosts() as (_, seed, alice, bob):
        # Behind such a NAT nobody would be dialled cold; but it is all that is left.
        record = resolved(record_of(ALICE, [url(alice)], nat_type=3, signal=f"ws://{seed.quic_address}"))
        async with bob.connect(ALICE.address, record=record) as connection:
            assert connection.path == f"direct {alice.quic_address}"


async def test_d16_a_record_that_led_nowhere_stays_with_its_holders(autojump_clock: Clock) -> None:
    async with three_hosts() as (_, seed, alice, bob):
        dead = record_of(ALICE, [NOWHERE])
        await alice.dht.publish(dead)
        for holder in (seed, bob):
            assert dead in holder.dht.local_records(ALICE.node_id)
        with pytest.raises(ConnectError):
            await bob.open_connection(ALICE.address)
        with trio.move_on_after(1) as limit:
            await bob.open_connection(ALICE.address)
        assert limit.cancelled_caught
        assert dead in bob.dht.local_records(ALICE.node_id), "others rely on us as a holder"
        with pytest.raises(ConnectError):
            await alice.open_connection(ALICE.address)
        assert dead in alice.dht.local_records(ALICE.node_id), "our own"
        await alice.dht.publish(record_of(ALICE, [url(alice)], sequence=2))
        async with bob.connect(ALICE.address):
            pass  # the next resolve has asked the network again


async def test_d17_of_several_answers_the_newest_wins(autojump_clock: Clock) -> None:
    async with three_hosts() as (net, seed, alice, bob):
        await alice.publish()
        newest = record_of(ALICE, [url(alice)], sequence=EPOCH + 1000)
        assert all(newest not in host.dht.local_records(ALICE.node_id) for host in (alice, bob))
        seed.dht.put_local(newest)
        async with open_sim_host(net.host("carol"), CAROL, seeds=(seed,)) as carol:
            assert (await carol.resolve(ALICE.address)).record == newest


async def test_d18_behind_a_nat_of_unknown_address_hubs_alone_are_published(autojump_clock: Clock) -> None:
    async with open_world() as world, world.host(ALICE, Nat.symmetric(), name="alice") as alice:
        alice._surroundings.candidates = tuple  # type: ignore[method-assign]
        await alice.publish()
        found = await world.seed.resolve(ALICE.address)
        assert (found.endpoints, found.payload.signals) == ((), (HUB,))
        async with world.host(BOB, Nat.full_cone(), name="bob") as bob, bob.connect(ALICE.address) as connection:
            assert connection.remote == ALICE.address


class SilentNames(trio.abc.HostnameResolver):
    """Knows `good.example`, and never answers about other names."""

    async def getaddrinfo(  # type: ignore[override]
        self, host: bytes | None, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[object, ...]]:
        if host != b"good.example":
            await trio.sleep_forever()
        return [(2, 2, 17, "", ("192.0.2.1", port))]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_d18_names_have_a_limit_of_their_own(autojump_clock: Clock) -> None:
    trio.socket.set_custom_hostname_resolver(SilentNames())
    began = trio.current_time()
    seeds = ["lost.example:4121", "good.example:4121", "198.51.100.1:7", "[2001:db8::1]:8", "gone.example:1"]
    assert await seed_addresses(seeds) == [
        SocketAddress("192.0.2.1", 4121),
        SocketAddress("198.51.100.1", 7),
        SocketAddress("2001:db8::1", 8),
    ]
    assert trio.current_time() - began == pytest.approx(DNS_LIMIT)


async def test_who_has_met_nobody_is_told_that_it_is_its_own_trouble(autojump_clock: Clock) -> None:
    async with open_simnet(seed=1) as net, open_sim_host(net.host("bob"), BOB) as bob:
        with pytest.raises(RecordNotFound, match="this host knows no other node"):
            await bob.resolve(ALICE.address)
